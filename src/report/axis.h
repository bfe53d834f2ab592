#ifndef DG_REPORT_AXIS_H
#define DG_REPORT_AXIS_H
/*
 * From values to places in a drawing, with round numbers along the way.
 */
#include "page.h"

#include <stdint.h>

enum { DG_AXIS_TICKS = 12 };

typedef struct Axis {
    double low, high; /* of the values (of their log10 if log) */
    double from, to;  /* in the drawing */
    int log;
    int percent;
    int decimals; /* of the tick labels; -1: scientific */
    int num_ticks;
    double tick[DG_AXIS_TICKS]; /* values */
} Axis;

/** Rounds low..high outwards to ticks, about `wanted` of them. */
void dg_axis_round(Axis *a, double low, double high, int wanted);

/** Ticks at whole numbers inside low..high, which stay as they are. */
void dg_axis_whole(Axis *a, double low, double high, int wanted);

/** Powers of ten around low..high, both > 0. */
void dg_axis_powers(Axis *a, double low, double high);

double dg_axis_place(const Axis *a, double value);
void dg_axis_label(char out[DG_VALUE_BYTES], const Axis *a, double tick);

#endif
