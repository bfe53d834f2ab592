#include "trend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 100, FEWEST = 8 };

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double dg_median(double *v, int64_t n)
{
    int64_t num = 0;

    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i]))
            v[num++] = v[i];
    if (num == 0)
        return NAN;
    qsort(v, (size_t)num, sizeof *v, ascending);
    return (v[(num - 1) / 2] + v[num / 2]) / 2;
}

/* Finite points, in at most BLOCKS blocks of equal count; their number. */
static int64_t blocks(double *bx, double *by, const double *x, const double *y,
                      int64_t n)
{
    int64_t num = 0, seen = 0, out = -1, inside = 0;

    for (int64_t i = 0; i < n; i++)
        num += isfinite(y[i]);
    const int64_t B = num < BLOCKS ? num : BLOCKS;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(y[i]))
            continue;
        const int64_t b = seen++ * B / num;
        if (b != out) {
            out = b;
            inside = 0;
            bx[b] = by[b] = 0;
        }
        inside++;
        bx[b] += (x[i] - bx[b]) / (double)inside;
        by[b] += (y[i] - by[b]) / (double)inside;
    }
    return B;
}

/* Two-sided p of Kendall's S over [n] values; sorted is scratch. */
static double kendall_p(const double *y, double *sorted, int64_t n)
{
    double S = 0, ties = 0;

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++)
            S += (y[j] > y[i]) - (y[j] < y[i]);
    memcpy(sorted, y, (size_t)n * sizeof *y);
    qsort(sorted, (size_t)n, sizeof *y, ascending);
    for (int64_t i = 0, t; i < n; i += t) {
        for (t = 1; i + t < n && sorted[i + t] == sorted[i]; t++)
            ;
        ties += (double)t * (double)(t - 1) * (double)(2 * t + 5);
    }
    const double m = (double)n;
    const double var = (m * (m - 1) * (2 * m + 5) - ties) / 18;
    if (S == 0 || var <= 0)
        return 1;
    return erfc((fabs(S) - 1) / sqrt(2 * var));
}

static double theil_sen(const double *x, const double *y, double *slopes,
                        int64_t n)
{
    int64_t num = 0;

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++)
            if (x[j] != x[i])
                slopes[num++] = (y[j] - y[i]) / (x[j] - x[i]);
    return dg_median(slopes, num);
}

/* Median of up to num finite values from one end, going by step. */
static double end_median(const double *y, int64_t n, int64_t num, int step)
{
    double v[10];
    int64_t got = 0;

    for (int64_t i = step > 0 ? 0 : n - 1; i >= 0 && i < n && got < num;
         i += step)
        if (isfinite(y[i]))
            v[got++] = y[i];
    return dg_median(v, got);
}

int dg_trend_find(Trend *t, const double *x, const double *y, int64_t n)
{
    double bx[BLOCKS], by[BLOCKS], sorted[BLOCKS];
    double *slopes = malloc(BLOCKS * BLOCKS / 2 * sizeof *slopes);

    if (slopes == NULL)
        return 0;
    *t = (Trend) { .slope = NAN, .p = 1 };
    for (int64_t i = 0; i < n; i++)
        t->points += isfinite(y[i]);
    const int64_t tenth = t->points / 10;
    t->ends = tenth < 1 ? 1 : tenth > 10 ? 10 : tenth;
    t->first = end_median(y, n, t->ends, 1);
    t->last = end_median(y, n, t->ends, -1);
    if (t->points > 0) {
        const int64_t B = blocks(bx, by, x, y, n);
        t->slope = theil_sen(bx, by, slopes, B);
        if (B >= FEWEST)
            t->p = kendall_p(by, sorted, B);
    }
    free(slopes);
    return 1;
}
