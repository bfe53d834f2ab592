#include "chart.h"

#include "axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of every chart, in units of the drawing (pixels at its usual size). */
enum {
    WIDTH = 400,
    HEIGHT = 176,
    LEFT = 46,
    RIGHT = 326,       /* behind it: direct labels, */
    RIGHT_NAMED = 286, /* with names */
    NAME = 10,         /* most characters of a name beside a line */
    TOP = 8,
    BOTTOM = 152,
    MOST = 300, /* points of a line */
    HOVERS = 100
};

/* A line thinned out, and what is drawn of it. */
typedef struct Curve {
    double raw[MOST], drawn[MOST], spread[MOST];
    double end;   /* last finite value drawn */
    double share; /* of a stack's whole area */
    double label_at;
} Curve;

typedef struct Plot {
    const Chart *chart;
    Axis x, y;
    int right;     /* end of the drawing, behind it labels */
    int64_t n;     /* points of each curve */
    int64_t block; /* iterations of a point */
    double at[MOST];
    Curve *curve; /* [num_lines] */
} Plot;

/* Mean or maximum of the finite among v[from..to). */
static double gather(const double *v, int64_t from, int64_t to, int peaks)
{
    double sum = 0, top = NAN;
    int64_t num = 0;

    for (int64_t i = from; i < to; i++) {
        if (!isfinite(v[i]))
            continue;
        sum += v[i];
        top = num++ == 0 || fabs(v[i]) > fabs(top) ? v[i] : top;
    }
    if (num == 0)
        return NAN;
    return peaks ? top : sum / (double)num;
}

static void thin_out(Plot *p)
{
    const Chart *c = p->chart;

    p->block = dg_chart_block(c->n);
    p->n = (c->n + p->block - 1) / p->block;
    for (int64_t b = 0; b < p->n; b++) {
        const int64_t from = b * p->block;
        const int64_t to = from + p->block < c->n ? from + p->block : c->n;

        p->at[b] = gather(c->x, from, to, 0);
        for (int l = 0; l < c->num_lines; l++) {
            Curve *k = &p->curve[l];
            const ChartLine *line = &c->line[l];

            k->raw[b] = gather(line->y, from, to, c->peaks);
            k->spread[b] =
                line->spread ? gather(line->spread, from, to, 0) : NAN;
        }
    }
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Mean of the middle half of the finite among v[0..num): one spike does not
 * bend it, and it is smoother than a median. */
static double middle_mean(const double *v, int64_t num)
{
    double sorted[MOST], sum = 0;
    int64_t n = 0;

    for (int64_t i = 0; i < num; i++)
        if (isfinite(v[i]))
            sorted[n++] = v[i];
    if (n == 0)
        return NAN;
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    const int64_t cut = n / 4;
    for (int64_t i = cut; i < n - cut; i++)
        sum += sorted[i];
    return sum / (double)(n - 2 * cut);
}

/* Moving average over a 30th of the curve on each side, where there are
 * enough points for one to help. It narrows towards the start, where curves
 * are steep, and not towards the end, which should be calm. */
static void smooth(Plot *p, Curve *k)
{
    const int64_t half = p->chart->smooth && p->n >= 24 ? (p->n + 29) / 30 : 0;

    k->end = NAN;
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t side = half < i ? half : i;
        const int64_t to = i + side + 1 < p->n ? i + side + 1 : p->n;

        k->drawn[i] = isnan(k->raw[i])
                          ? NAN
                          : middle_mean(k->raw + i - side, to - (i - side));
        if (isfinite(k->drawn[i]))
            k->end = k->drawn[i];
    }
}

/* Each line stands on the ones before it. */
static void stack(Plot *p)
{
    double area = 0;

    for (int64_t i = 0; i < p->n; i++) {
        double sum = 0;

        for (int l = 0; l < p->chart->num_lines; l++) {
            const double v = p->curve[l].raw[i];
            sum += isfinite(v) ? v : 0;
            p->curve[l].drawn[i] = sum;
            p->curve[l].end = sum;
            p->curve[l].share += isfinite(v) ? v : 0;
        }
        area += sum;
    }
    for (int l = 0; l < p->chart->num_lines && area > 0; l++)
        p->curve[l].share /= area;
}

static void widen(double range[3], double v)
{
    if (!isfinite(v))
        return;
    range[0] = fmin(range[0], v);
    range[1] = fmax(range[1], v);
    if (v > 0)
        range[2] = fmin(range[2], v);
}

/* Least, largest and least positive value; 0 when there is none. */
static int find_range(const Plot *p, double range[3])
{
    const Chart *c = p->chart;

    range[0] = range[2] = INFINITY;
    range[1] = -INFINITY;
    for (int l = 0; l < c->num_lines; l++)
        for (int64_t i = 0; i < p->n; i++) {
            const Curve *k = &p->curve[l];
            const double s = isfinite(k->spread[i]) ? k->spread[i] : 0;

            widen(range, k->drawn[i] - s);
            widen(range, k->drawn[i] + s);
            if (c->kind == CHART_LINES)
                widen(range, k->raw[i]);
        }
    for (int i = 0; i < c->num_points; i++) {
        widen(range, c->point[i].y);
        widen(range, c->point[i].low);
        widen(range, c->point[i].high);
    }
    return range[0] <= range[1];
}

static int set_axes(Plot *p)
{
    const Chart *c = p->chart;
    double range[3], first = c->x[0], last = c->x[c->n - 1];

    if (!find_range(p, range))
        return 0;
    const int log = c->maybe_log && range[0] > 0 && range[1] > 100 * range[2];
    if (c->from_zero && !log)
        widen(range, 0);
    for (int i = 0; i < c->num_points; i++) {
        first = fmin(first, c->point[i].x);
        last = fmax(last, c->point[i].x);
    }
    if (first >= last) {
        first -= 0.5;
        last += 0.5;
    }
    p->x.from = LEFT;
    p->right = RIGHT;
    for (int l = 0; l < c->num_lines; l++)
        if (*c->line[l].label)
            p->right = RIGHT_NAMED;
    p->x.to = p->right;
    dg_axis_whole(&p->x, first, last, 4);
    p->y.from = BOTTOM;
    p->y.to = TOP;
    p->y.percent = c->percent;
    if (log)
        dg_axis_powers(&p->y, range[2], range[1]);
    else
        dg_axis_round(&p->y, range[0], range[1], 4);
    if (c->percent && range[1] <= 1 && p->y.high > 1)
        p->y.high = 1;
    return 1;
}

static void number(const Plot *p, char out[DG_VALUE_BYTES], double v)
{
    if (p->chart->percent)
        dg_percent_text(out, v);
    else
        dg_value_text(out, v);
}

static void put_grid(Page *page, const Plot *p)
{
    char label[DG_VALUE_BYTES];

    for (int i = 0; i < p->y.num_ticks; i++) {
        const double v = p->y.tick[i], y = dg_axis_place(&p->y, v);

        dg_axis_label(label, &p->y, v);
        dg_page_put(page,
                    "<path class=\"%s\" d=\"M%d %.1fH%d\"/>"
                    "<text class=\"t\" x=\"%d\" y=\"%.1f\" "
                    "text-anchor=\"end\">%s</text>",
                    v == 0 ? "z" : "g", LEFT, y, p->right, LEFT - 7, y + 3.8,
                    label);
    }
    for (int i = 0; i < p->x.num_ticks; i++) {
        const double x = dg_axis_place(&p->x, p->x.tick[i]);

        dg_axis_label(label, &p->x, p->x.tick[i]);
        dg_page_put(page,
                    "<path class=\"z\" d=\"M%.1f %dv4\"/>"
                    "<text class=\"t\" x=\"%.1f\" y=\"%d\" "
                    "text-anchor=\"middle\">%s</text>",
                    x, BOTTOM, x, BOTTOM + 17, label);
    }
    dg_page_put(page, "<text class=\"t\" x=\"%d\" y=\"%d\">iteration</text>",
                p->right + 18, BOTTOM + 17);
}

static double place_y(const Plot *p, double v)
{
    /* what a logarithm cannot show lies on the floor */
    if (p->y.log && !(v > 0))
        return BOTTOM;
    return dg_axis_place(&p->y, v);
}

/* The path of a line, broken where values are not finite. */
static void put_path(Page *page, const Plot *p, const double *y,
                     const char *class, int colour)
{
    int pen = 0;

    dg_page_put(page, "<path class=\"%s c%d\" d=\"", class, colour);
    for (int64_t i = 0; i < p->n; i++) {
        if (!isfinite(y[i])) {
            pen = 0;
            continue;
        }
        dg_page_put(page, "%c%.1f %.1f", pen ? 'L' : 'M',
                    dg_axis_place(&p->x, p->at[i]), place_y(p, y[i]));
        pen = 1;
    }
    dg_page_put(page, "\"/>");
}

/* The area between low and high over points from..to-1. */
static void put_area(Page *page, const Plot *p, const double *low,
                     const double *high, int64_t from, int64_t to)
{
    const double pad = p->n == 1 ? (p->right - LEFT) / 4.0 : 0;

    for (int64_t i = from; i < to; i++)
        dg_page_put(page, "%c%.1f %.1f", i == from ? 'M' : 'L',
                    dg_axis_place(&p->x, p->at[i]) - pad, place_y(p, high[i]));
    for (int64_t i = to - 1; i >= from; i--) {
        const double x = dg_axis_place(&p->x, p->at[i]);
        const double y = low != NULL ? place_y(p, low[i]) : BOTTOM;

        if (pad > 0)
            dg_page_put(page, "L%.1f %.1f", x + pad, place_y(p, high[i]));
        if (pad > 0)
            dg_page_put(page, "L%.1f %.1f", x + pad, y);
        dg_page_put(page, "L%.1f %.1f", x - pad, y);
    }
    dg_page_put(page, "Z");
}

static void put_band(Page *page, const Plot *p, const Curve *k, int colour)
{
    double low[MOST] = { 0 }, high[MOST] = { 0 };
    int64_t from = 0;

    for (int64_t i = 0; i < p->n; i++) {
        low[i] = k->drawn[i] - k->spread[i];
        high[i] = k->drawn[i] + k->spread[i];
    }
    dg_page_put(page, "<path class=\"b c%d\" d=\"", colour);
    for (int64_t i = 0; i <= p->n; i++) {
        if (i < p->n && isfinite(low[i]))
            continue;
        if (i > from)
            put_area(page, p, low, high, from, i);
        from = i + 1;
    }
    dg_page_put(page, "\"/>");
}

static void put_lines(Page *page, const Plot *p)
{
    const Chart *c = p->chart;

    for (int l = 0; l < c->num_lines; l++)
        if (c->line[l].spread != NULL)
            put_band(page, p, &p->curve[l], c->line[l].colour);
    for (int l = 0; l < c->num_lines; l++) {
        const Curve *k = &p->curve[l];
        const int colour = c->line[l].colour;

        if (memcmp(k->raw, k->drawn, (size_t)p->n * sizeof *k->raw) != 0)
            put_path(page, p, k->raw, "r", colour);
        put_path(page, p, k->drawn, "l", colour);
        for (int64_t i = 0; i < p->n && p->n <= 12; i++)
            if (isfinite(k->raw[i]))
                dg_page_put(page,
                            "<circle class=\"d c%d\" cx=\"%.1f\" "
                            "cy=\"%.1f\" r=\"2.6\"/>",
                            colour, dg_axis_place(&p->x, p->at[i]),
                            place_y(p, k->raw[i]));
    }
}

static void put_stack(Page *page, const Plot *p)
{
    const Chart *c = p->chart;

    for (int l = 0; l < c->num_lines; l++) {
        dg_page_put(page, "<path class=\"a c%d\" d=\"", c->line[l].colour);
        put_area(page, p, l > 0 ? p->curve[l - 1].drawn : NULL,
                 p->curve[l].drawn, 0, p->n);
        dg_page_put(page, "\"/>");
    }
}

static void put_points(Page *page, const Plot *p)
{
    const Chart *c = p->chart;

    for (int i = 0; i < c->num_points; i++) {
        const ChartPoint *v = &c->point[i];
        const double x = dg_axis_place(&p->x, v->x);

        if (!isfinite(v->y))
            continue;
        if (isfinite(v->low) && isfinite(v->high))
            dg_page_put(page, "<path class=\"l c%d\" d=\"M%.1f %.1fV%.1f\"/>",
                        c->point_colour, x, place_y(p, v->low),
                        place_y(p, v->high));
        dg_page_put(page,
                    "<circle class=\"p c%d\" cx=\"%.1f\" cy=\"%.1f\" "
                    "r=\"4\"/>",
                    c->point_colour, x, place_y(p, v->y));
    }
}

/* Labels stand at the ends of their lines, pushed apart where they would
 * cover each other. */
static void place_labels(const Plot *p, int order[DG_CHART_LINES])
{
    const int num = p->chart->num_lines;
    const double gap = 14;

    for (int l = 0; l < num; l++) {
        Curve *k = &p->curve[l];
        const int stacked = p->chart->kind == CHART_STACK;
        const double under = stacked && l > 0 ? p->curve[l - 1].end : 0;

        k->label_at = !isfinite(k->end) ? BOTTOM
                      : stacked         ? place_y(p, (k->end + under) / 2)
                                        : place_y(p, k->end);
        int i = l;
        for (; i > 0 && p->curve[order[i - 1]].label_at < k->label_at; i--)
            order[i] = order[i - 1];
        order[i] = l;
    }
    /* from the lowest label upwards, then back down from the top */
    for (int i = 1; i < num; i++) {
        const double most = p->curve[order[i - 1]].label_at - gap;
        double *at = &p->curve[order[i]].label_at;
        *at = fmin(*at, most);
    }
    for (int i = num - 1; i >= 0; i--) {
        const double least =
            i == num - 1 ? TOP + 4 : p->curve[order[i + 1]].label_at + gap;
        double *at = &p->curve[order[i]].label_at;
        *at = fmax(*at, least);
    }
}

/* The start of a name; all of it stands in the tooltips. */
static void put_short(Page *page, const char *name)
{
    char text[4 * NAME + 4];
    size_t end = 0;
    int characters = 0;

    /* no cut inside a character of several bytes */
    for (; name[end] != '\0'; end++)
        if ((name[end] & 0xc0) != 0x80 && characters++ == NAME)
            break;
    snprintf(text, sizeof text, "%.*s%s",
             (int)(end < 4 * NAME ? end : 4 * NAME), name,
             name[end] != '\0' ? "\u2026" : "");
    dg_page_text(page, text);
}

static void put_labels(Page *page, const Plot *p)
{
    int order[DG_CHART_LINES] = { 0 };
    char value[DG_VALUE_BYTES];

    place_labels(p, order);
    for (int l = 0; l < p->chart->num_lines; l++) {
        const Curve *k = &p->curve[l];
        const ChartLine *line = &p->chart->line[l];

        if (!isfinite(k->end))
            continue;
        dg_page_put(page, "<text class=\"e c%d\" x=\"%d\" y=\"%.1f\">",
                    line->colour, p->right + 7, k->label_at + 4);
        put_short(page, line->label);
        number(p, value, k->end);
        if (p->chart->kind == CHART_STACK)
            dg_percent_text(value, k->share);
        dg_page_put(page, "%s%s", *line->label ? " " : "", value);
        dg_page_put(page, "</text>");
    }
}

/* Invisible columns whose <title> a browser shows under the pointer. */
static void put_hovers(Page *page, const Plot *p)
{
    const Chart *c = p->chart;
    const int64_t num = p->n < HOVERS ? p->n : HOVERS;
    const double wide = (double)(p->right - LEFT) / (double)num;
    char value[DG_VALUE_BYTES];

    for (int64_t h = 0; h < num; h++) {
        const int64_t i = num > 1 ? h * (p->n - 1) / (num - 1) : 0;
        const double x = dg_axis_place(&p->x, p->at[i]);

        dg_page_put(page,
                    "<rect class=\"h\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
                    "height=\"%d\"><title>iteration %.0f",
                    x - wide / 2, TOP, wide, BOTTOM - TOP, p->at[i]);
        for (int l = 0; l < c->num_lines; l++) {
            const Curve *k = &p->curve[l];

            number(p, value, k->raw[i]);
            dg_page_put(page, "\n");
            dg_page_text(page, c->line[l].label);
            dg_page_put(page, "%s%s", *c->line[l].label ? " " : "", value);
            if (isfinite(k->spread[i])) {
                dg_value_text(value, k->spread[i]);
                dg_page_put(page, " \u00b1 %s", value);
            }
        }
        dg_page_put(page, "</title></rect>");
    }
}

static void put_caption(Page *page, const Plot *p)
{
    const Chart *c = p->chart;

    dg_page_put(page, "<figcaption><b>");
    dg_page_text(page, c->title);
    dg_page_put(page, "</b>");
    if (*c->unit) {
        dg_page_put(page, " <span class=\"u\">");
        dg_page_text(page, c->unit);
        dg_page_put(page, "</span>");
    }
    if (c->badge != NULL) {
        dg_page_put(page, " <span class=\"badge %s\">",
                    c->badge_good ? "good" : "wrong");
        dg_page_text(page, c->badge);
        dg_page_put(page, "</span>");
    }
    dg_page_put(page, "<small>");
    dg_page_text(page, c->note);
    if (p->y.log)
        dg_page_put(page, " Logarithmic axis.");
    dg_page_put(page, "</small></figcaption>");
}

static void put_figure(Page *page, const Plot *p)
{
    dg_page_put(page, "<figure>");
    put_caption(page, p);
    dg_page_put(page, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
                WIDTH, HEIGHT);
    dg_page_text(page, p->chart->title);
    dg_page_put(page, "\">");
    put_grid(page, p);
    if (p->chart->kind == CHART_STACK)
        put_stack(page, p);
    else
        put_lines(page, p);
    put_points(page, p);
    put_labels(page, p);
    put_hovers(page, p);
    dg_page_put(page, "</svg></figure>\n");
}

int64_t dg_chart_block(int64_t n)
{
    return (n + MOST - 1) / MOST;
}

void dg_chart_put(Page *page, const Chart *c)
{
    Plot *p = calloc(1, sizeof *p);

    if (p == NULL || c->n < 1)
        goto free_plot;
    p->chart = c;
    p->curve = calloc((size_t)c->num_lines + 1, sizeof *p->curve);
    if (p->curve == NULL) {
        page->failed = 1;
        goto free_plot;
    }
    thin_out(p);
    for (int l = 0; l < c->num_lines; l++)
        smooth(p, &p->curve[l]);
    if (c->kind == CHART_STACK)
        stack(p);
    if (set_axes(p))
        put_figure(page, p);
    free(p->curve);
free_plot:
    page->failed |= p == NULL;
    free(p);
}
