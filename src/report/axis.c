#include "axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* 1, 2 or 5 times a power of ten, at least so that `wanted` steps fill the
 * range. */
static double round_step(double range, int wanted)
{
    const double raw = range / wanted;
    const double power = pow(10, floor(log10(raw)));
    const double lead = raw / power;

    return power * (lead <= 1.0001   ? 1
                    : lead <= 2.0001 ? 2
                    : lead <= 5.0001 ? 5
                                     : 10);
}

static void set_decimals(Axis *a, double step)
{
    const double largest = fmax(fabs(a->low), fabs(a->high));
    const double shown = a->percent ? 100 * step : step;

    a->decimals = (int)ceil(-log10(shown) - 1e-9);
    if (a->decimals < 0)
        a->decimals = 0;
    /* what is longer than seven signs leaves its card */
    if (!a->percent && (a->decimals > (a->low < 0 ? 4 : 5) || largest >= 1e5))
        a->decimals = -1;
}

/* With as many digits as tell it from the next tick. */
static void put_power(char out[DG_VALUE_BYTES], const Axis *a, double tick)
{
    const double step = a->num_ticks > 1 ? a->tick[1] - a->tick[0] : tick;
    const double digits =
        floor(log10(fabs(tick)) + 1e-9) - floor(log10(fabs(step)) + 1e-9);

    dg_power_text(out, tick, (int)fmin(fmax(digits, 0), 9));
}

static void set_ticks(Axis *a, double step)
{
    const double first = ceil(a->low / step - 1e-6);

    a->num_ticks = 0;
    for (int i = 0; i < DG_AXIS_TICKS; i++) {
        const double v = (first + i) * step;
        if (v > a->high + 1e-6 * step)
            break;
        a->tick[a->num_ticks++] = v;
    }
}

void dg_axis_round(Axis *a, double low, double high, int wanted)
{
    if (!(high - low > 1e-12 * fmax(fabs(low), fabs(high)))) {
        const double room = low != 0 ? fabs(low) * 0.1 : 1;

        low -= low != 0 ? room : 0;
        high += room;
    }
    const double step = round_step(high - low, wanted);
    a->low = floor(low / step + 1e-6) * step;
    a->high = ceil(high / step - 1e-6) * step;
    set_decimals(a, step);
    set_ticks(a, step);
}

void dg_axis_whole(Axis *a, double low, double high, int wanted)
{
    a->low = low;
    a->high = high > low ? high : low + 1;
    const double step = fmax(1, round_step(a->high - a->low, wanted));
    a->decimals = 0;
    set_ticks(a, step);
}

void dg_axis_powers(Axis *a, double low, double high)
{
    const double first = floor(log10(low)), last = ceil(log10(high));
    const double step = ceil((last - first) / 5);

    a->log = 1;
    a->low = first;
    a->high = last > first ? last : first + 1;
    a->decimals = -1;
    a->num_ticks = 0;
    for (double v = first; v <= a->high && a->num_ticks < DG_AXIS_TICKS;
         v += step)
        a->tick[a->num_ticks++] = pow(10, v);
}

double dg_axis_place(const Axis *a, double value)
{
    const double v = a->log ? log10(value) : value;

    return a->from + (v - a->low) / (a->high - a->low) * (a->to - a->from);
}

void dg_axis_label(char out[DG_VALUE_BYTES], const Axis *a, double tick)
{
    const char *minus = tick < 0 ? "\u2212" : "";

    if (a->percent)
        snprintf(out, DG_VALUE_BYTES, "%s%.*f\u202f%%", minus, a->decimals,
                 fabs(100 * tick));
    else if (a->log && tick >= 1e-3 && tick <= 1e5)
        snprintf(out, DG_VALUE_BYTES, "%.*f",
                 tick < 1 ? (int)lround(-log10(tick)) : 0, tick);
    else if (a->decimals < 0 && fabs(tick) < 1e-30)
        strcpy(out, "0");
    else if (a->decimals < 0)
        put_power(out, a, tick);
    else
        snprintf(out, DG_VALUE_BYTES, "%s%.*f", minus, a->decimals, fabs(tick));
}
