#ifndef DG_REPORT_TREND_H
#define DG_REPORT_TREND_H
/*
 * Does a noisy curve rise or fall? Answers that outliers do not sway.
 */
#include <stdint.h>

typedef struct Trend {
    int64_t points; /* finite values there were */
    double slope;   /* Theil-Sen, per unit of x; NaN below 2 points */
    double p;       /* Mann-Kendall, two-sided; 1 below 8 points */
    double first;   /* medians of the first and the last tenth, 1 to 10 */
    double last;    /* values each */
    int64_t ends;   /* how many values each */
} Trend;

/**
 * Median of the pairwise slopes (Theil 1950, Sen 1968) and the normal
 * approximation of Kendall's S with its correction for ties (Mann 1945).
 * Long curves are first averaged into 100 blocks, which also takes away most
 * of the correlation between neighbours that the test does not know of.
 * x, y  [n]; NaN and Inf in y are left out. x rises.
 * Returns 0 when memory is short, else 1.
 */
int dg_trend_find(Trend *out, const double *x, const double *y, int64_t n);

/** Median of the finite values; NaN without any. Reorders v. */
double dg_median(double *v, int64_t n);

#endif
