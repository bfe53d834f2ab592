#include "kernels.h"

#include "act.h"

/*
 * Rows are taken in blocks that stay in the second-level cache while column
 * after column of sixteen channels is summed over them in registers; the
 * blocks' sums are added in double. So the order is fixed, memory is read row
 * by row, and a map of a million pixels loses no digits.
 */
enum { BLOCK_ROWS = 64 };

void dg_cpu_add_columns(float *sums, const float *x, int64_t rows,
                        int64_t width)
{
    for (int64_t r0 = 0; r0 < rows; r0 += BLOCK_ROWS) {
        const int64_t n = rows - r0 < BLOCK_ROWS ? rows - r0 : BLOCK_ROWS;
        for (int64_t i = 0; i < width; i += VL) {
            V sum = v_zero();
            for (int64_t r = r0; r < r0 + n; ++r)
                sum = v_add(sum, v_get(x + r * width, i, width));
            v_put(sums, i, width, v_add(v_get(sums, i, width), sum));
        }
    }
}

void dg_cpu_add_rows(const AddRowsArgs *a)
{
    for (int64_t row = 0; row < a->batch * a->rows; ++row)
        dg_cpu_add(a->y + row * a->width, a->x + row * a->width,
                   a->v + row / a->rows * a->width, a->width);
}

void dg_cpu_add_rows_grad(const AddRowsArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b)
        dg_cpu_add_columns(a->dv + b * a->width, a->dy + b * a->rows * a->width,
                           a->rows, a->width);
}

/* --- group norm --------------------------------------------------------- */

/* Values per channel. */
typedef struct Channels {
    double *sum, *square;
    float *mean, *rstd, *factor; /* factor = rstd w */
    float *c0, *c1;              /* dx = g factor - c0 - (x - mean) c1 */
} Channels;

enum { CHANNEL_FLOATS = 5 };

size_t dg_cpu_group_norm_scratch(int64_t width)
{
    return (size_t)width *
           (2 * sizeof(double) + CHANNEL_FLOATS * sizeof(float));
}

static Channels channels_of(const GroupNormArgs *a)
{
    Channels c = { .sum = a->scratch };

    c.square = c.sum + a->width;
    c.mean = (void *)(c.square + a->width);
    c.rstd = c.mean + a->width;
    c.factor = c.rstd + a->width;
    c.c0 = c.factor + a->width;
    c.c1 = c.c0 + a->width;
    return c;
}

/* Column i of the doubles takes the lanes. */
V_INLINE void add_lanes(double *sums, int64_t i, int64_t width, V v)
{
    const int64_t n = width - i < VL ? width - i : VL;
    float lanes[VL];

    v_store(lanes, v);
    for (int64_t l = 0; l < n; ++l)
        sums[i + l] += lanes[l];
}

/* Sums per channel of x - pivot and of its square, the pivot being the
 * sample's first row: what varies little around a large mean keeps its digits.
 */
static void channel_sums(const GroupNormArgs *a, const float *x,
                         const Channels *c)
{
    memset(c->sum, 0, (size_t)a->width * 2 * sizeof *c->sum);
    for (int64_t r0 = 0; r0 < a->rows; r0 += BLOCK_ROWS) {
        const int64_t end =
            a->rows - r0 < BLOCK_ROWS ? a->rows : r0 + BLOCK_ROWS;
        for (int64_t i = 0; i < a->width; i += VL) {
            const V pivot = v_get(x, i, a->width);
            V sum = v_zero(), square = v_zero();
            for (int64_t r = r0; r < end; ++r) {
                const V d = v_sub(v_get(x + r * a->width, i, a->width), pivot);
                sum = v_add(sum, d);
                square = v_fma(d, d, square);
            }
            add_lanes(c->sum, i, a->width, sum);
            add_lanes(c->square, i, a->width, square);
        }
    }
}

/* Mean and variance of channels first..first+n-1 together. */
static void group_stats(const GroupNormArgs *a, const float *x,
                        const Channels *c, int64_t first, float *mean,
                        float *rstd)
{
    const int64_t n = a->width / a->groups;
    const double rows = (double)a->rows;
    double m = 0, square = 0;

    for (int64_t i = first; i < first + n; ++i) {
        c->sum[i] /= rows;
        m += (double)x[i] + c->sum[i];
    }
    m /= (double)n;
    for (int64_t i = first; i < first + n; ++i) {
        const double off = (double)x[i] + c->sum[i] - m;
        square += c->square[i] / rows - c->sum[i] * c->sum[i] + off * off;
    }
    *mean = (float)m;
    *rstd = (float)(1.0 / sqrt(square / (double)n + (double)a->eps));
}

/* The group's values to each of its channels. */
static void spread(const GroupNormArgs *a, int64_t b, const Channels *c)
{
    const int64_t n = a->width / a->groups;

    for (int64_t i = 0; i < a->width; ++i) {
        const int64_t group = b * a->groups + i / n;
        c->mean[i] = a->mean[group];
        c->rstd[i] = a->rstd[group];
        c->factor[i] = a->rstd[group] * a->w[i];
    }
}

V_INLINE void apply(const GroupNormArgs *a, int64_t b, const Channels *c,
                    const Act act)
{
    const int64_t width = a->width;

    for (int64_t row = b * a->rows; row < (b + 1) * a->rows; ++row) {
        const float *x = a->x + row * width;
        for (int64_t i = 0; i < width; i += VL) {
            const V d = v_sub(v_get(x, i, width), v_get(c->mean, i, width));
            const V v =
                v_fma(d, v_get(c->factor, i, width), v_get(a->b, i, width));
            v_put(a->y + row * width, i, width, act_value(act, v));
        }
    }
}

void dg_cpu_group_norm(const GroupNormArgs *a)
{
    const Channels c = channels_of(a);
    const int64_t n = a->width / a->groups;

    for (int64_t b = 0; b < a->batch; ++b) {
        const float *x = a->x + b * a->rows * a->width;
        channel_sums(a, x, &c);
        for (int64_t g = 0; g < a->groups; ++g)
            group_stats(a, x, &c, g * n, &a->mean[b * a->groups + g],
                        &a->rstd[b * a->groups + g]);
        spread(a, b, &c);
        if (a->act == DG_ACT_SILU)
            apply(a, b, &c, DG_ACT_SILU);
        else
            apply(a, b, &c, DG_ACT_NONE);
    }
}

/* One column of a block of rows: g = dy act'(.) to dx, sums of g, g xhat. */
V_INLINE void grad_column(const GroupNormArgs *a, const Channels *c,
                          const int64_t rows[2], int64_t i, const Act act)
{
    const int64_t width = a->width;
    const V mean = v_get(c->mean, i, width), rstd = v_get(c->rstd, i, width);
    const V factor = v_get(c->factor, i, width), b = v_get(a->b, i, width);
    V sum = v_zero(), product = v_zero();

    for (int64_t row = rows[0]; row < rows[1]; ++row) {
        const V d = v_sub(v_get(a->x + row * width, i, width), mean);
        V g = v_get(a->dy + row * width, i, width), slope;
        if (act != DG_ACT_NONE) {
            act_both(act, v_fma(d, factor, b), &slope);
            g = v_mul(g, slope);
        }
        v_put(a->dx + row * width, i, width, g);
        sum = v_add(sum, g);
        product = v_fma(g, v_mul(d, rstd), product);
    }
    add_lanes(c->sum, i, width, sum);
    add_lanes(c->square, i, width, product);
}

V_INLINE void grad_sums(const GroupNormArgs *a, int64_t b, const Channels *c,
                        const Act act)
{
    const int64_t end = (b + 1) * a->rows;

    memset(c->sum, 0, (size_t)a->width * 2 * sizeof *c->sum);
    for (int64_t r0 = b * a->rows; r0 < end; r0 += BLOCK_ROWS) {
        const int64_t rows[2] = { r0, end - r0 < BLOCK_ROWS ? end
                                                            : r0 + BLOCK_ROWS };
        for (int64_t i = 0; i < a->width; i += VL)
            grad_column(a, c, rows, i, act);
    }
}

/* dx = rstd (g w - mean(g w) - xhat mean(g w xhat)), means over the group */
static void group_means(const GroupNormArgs *a, const Channels *c)
{
    const int64_t n = a->width / a->groups;
    const double count = (double)n * (double)a->rows;

    for (int64_t first = 0; first < a->width; first += n) {
        double g0 = 0, g1 = 0;
        for (int64_t i = first; i < first + n; ++i) {
            g0 += a->w[i] * c->sum[i];
            g1 += a->w[i] * c->square[i];
        }
        for (int64_t i = first; i < first + n; ++i) {
            const double rstd = c->rstd[i];
            c->c0[i] = (float)(rstd * g0 / count);
            c->c1[i] = (float)(rstd * rstd * g1 / count);
        }
    }
}

static void grad_rows(const GroupNormArgs *a, int64_t b, const Channels *c)
{
    const int64_t width = a->width;

    for (int64_t row = b * a->rows; row < (b + 1) * a->rows; ++row) {
        const float *x = a->x + row * width;
        float *dx = a->dx + row * width;
        for (int64_t i = 0; i < width; i += VL) {
            const V d = v_sub(v_get(x, i, width), v_get(c->mean, i, width));
            const V g = v_mul(v_get(dx, i, width), v_get(c->factor, i, width));
            const V rest =
                v_fma(d, v_get(c->c1, i, width), v_get(c->c0, i, width));
            v_put(dx, i, width, v_sub(g, rest));
        }
    }
}

void dg_cpu_group_norm_grad(const GroupNormArgs *a)
{
    const Channels c = channels_of(a);

    for (int64_t b = 0; b < a->batch; ++b) {
        spread(a, b, &c);
        if (a->act == DG_ACT_SILU)
            grad_sums(a, b, &c, DG_ACT_SILU);
        else
            grad_sums(a, b, &c, DG_ACT_NONE);
        for (int64_t i = 0; i < a->width; ++i) {
            if (a->dw != NULL)
                a->dw[i] += (float)c.square[i];
            if (a->db != NULL)
                a->db[i] += (float)c.sum[i];
        }
        group_means(a, &c);
        grad_rows(a, b, &c);
    }
}
