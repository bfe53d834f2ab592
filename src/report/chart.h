#ifndef DG_REPORT_CHART_H
#define DG_REPORT_CHART_H
/*
 * Small charts over iterations as inline SVG, all of one size and layout, so
 * that they align when they stand side by side. Colours are the page's style
 * sheet's classes c0..c5; tooltips are <title> elements, no scripts.
 */
#include "page.h"

#include <stdint.h>

enum { DG_CHART_LINES = 8 };

typedef enum ChartKind { CHART_LINES, CHART_STACK } ChartKind;

typedef struct ChartLine {
    const double *y;      /* [n]; NaN: a gap */
    const double *spread; /* [n] half width of a band around y, or NULL */
    const char *label;    /* text from outside is allowed; "" */
    int colour;           /* 0..5 */
} ChartLine;

/* A measured point with its interval, drawn over the lines. */
typedef struct ChartPoint {
    double x, y, low, high;
} ChartPoint;

typedef struct Chart {
    ChartKind kind;
    const char *title;
    const char *unit;  /* "1" is not written out: "" */
    const char *note;  /* one plain sentence under the title; "" */
    const char *badge; /* plain text beside the title, or NULL */
    int badge_good;    /* 1 green, 0 red */
    const double *x;   /* [n], rising */
    int64_t n;
    int num_lines;
    ChartLine line[DG_CHART_LINES];
    int num_points;
    const ChartPoint *point;
    int point_colour;
    int from_zero; /* the vertical axis holds 0 */
    int percent;   /* values are shares, shown in percent, at most 1 */
    int smooth;    /* draw a moving average over a faint raw line */
    int peaks;     /* thin out long curves by their maximum, not mean */
    int maybe_log; /* logarithmic when values span more than 100 */
} Chart;

/** Iterations that one point of a curve of n stands for. */
int64_t dg_chart_block(int64_t n);

/** Appends one <figure>. A chart without any finite value adds nothing. */
void dg_chart_put(Page *p, const Chart *c);

#endif
