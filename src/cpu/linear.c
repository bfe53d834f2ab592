#include "kernels.h"

#include "act.h"
#include "micro.h"
#include "sgemm.h"
#include "simd.h"

/* As in gemm.c: the rows of one sample choose the path. */
enum { FEW_ROWS = 16 };

/*
 * Weights of up to PANELS panels are transposed into panels for micro.c,
 * whose elements are chains of their own: all samples share a panel then,
 * and bias and activation find the product still in cache. Larger weights go
 * to the library as they are, sample after sample.
 */
enum { PANEL_FLOATS = 65536, PANELS = 4, BLOCK_FLOATS = 32768 };

/*
 * 16 rows of w, k columns, to 16 columns of a panel. The next 16 rows are
 * fetched meanwhile, in the order of memory: only that keeps the hardware's
 * own prefetching busy.
 */
static void pack_rows(float *t, const float *w, int64_t k, int64_t ld_w,
                      int more)
{
    const float *next = w + VL * ld_w;
    int64_t l = 0, ahead = 0;

    for (; l + VL <= k; l += VL) {
        for (int i = 0; more && i < VL; ++i) {
            __builtin_prefetch(next + ahead);
            ahead += VL;
            if (ahead >= k) {
                ahead = 0;
                next += ld_w;
            }
        }
        dg_cpu_transpose16(t + l * DG_MICRO_PANEL, DG_MICRO_PANEL, w + l, ld_w);
    }
    for (; l < k; ++l)
        for (int i = 0; i < VL; ++i)
            t[l * DG_MICRO_PANEL + i] = w[i * ld_w + l];
}

/* n rows of w, n a multiple of VL, as panels of columns */
static void pack(float *panels, const float *w, int64_t n, int64_t k,
                 int64_t ld_w)
{
    for (int64_t o = 0; o < n; o += VL)
        pack_rows(panels + o / DG_MICRO_PANEL * DG_MICRO_PANEL * k +
                      o % DG_MICRO_PANEL,
                  w + o * ld_w, k, ld_w, o + VL < n);
}

/* The rows r0 .. r0+rows-1, columns c0 .. c0+columns-1 of y. */
typedef struct Part {
    int64_t r0, rows, c0, columns;
} Part;

/* y = act(y + bias), pre = y + bias for one row of a part */
V_INLINE V finish_at(float *pre, const float *bias, V v, int64_t i, int64_t n,
                     const Act act)
{
    if (bias != NULL)
        v = v_add(v, v_get(bias, i, n));
    if (pre != NULL)
        v_put(pre, i, n, v);
    return act_value(act, v);
}

V_INLINE void finish_row(float *y, float *pre, const float *bias, int64_t n,
                         const Act act)
{
    int64_t i = 0;

    for (; i + 2 * VL <= n; i += 2 * VL) { /* two chains overlap */
        const V v0 = finish_at(pre, bias, v_load(y + i), i, n, act);
        const V v1 = finish_at(pre, bias, v_load(y + i + VL), i + VL, n, act);
        v_store(y + i, v0);
        v_store(y + i + VL, v1);
    }
    for (; i < n; i += VL)
        v_put(y, i, n, finish_at(pre, bias, v_get(y, i, n), i, n, act));
}

V_INLINE void finish_part(const LinearArgs *a, const Part *p, const Act act)
{
    for (int64_t r = p->r0; r < p->r0 + p->rows; ++r) {
        const int64_t at = r * a->out + p->c0;
        finish_row(a->y + at, a->pre != NULL ? a->pre + at : NULL,
                   a->bias != NULL ? a->bias + p->c0 : NULL, p->columns, act);
    }
}

static void finish(const LinearArgs *a, const Part *p)
{
    switch (a->act) {
    case DG_ACT_NONE:
        if (a->bias != NULL || a->pre != NULL)
            finish_part(a, p, DG_ACT_NONE);
        break;
    case DG_ACT_SILU:
        finish_part(a, p, DG_ACT_SILU);
        break;
    case DG_ACT_GELU_ERF:
        finish_part(a, p, DG_ACT_GELU_ERF);
        break;
    case DG_ACT_GELU_TANH:
        finish_part(a, p, DG_ACT_GELU_TANH);
        break;
    case DG_ACT_QUICK_GELU:
        finish_part(a, p, DG_ACT_QUICK_GELU);
        break;
    }
}

/* One range of k: x [rows, k] against w's k columns. */
typedef struct Range {
    const float *x, *w;
    int64_t k;
    int adds, last; /* adds to y; y is complete afterwards */
} Range;

/* The library, a call per sample. */
static void product_library(const LinearArgs *a, const Range *range)
{
    const int64_t per = a->rows_per_sample;
    GemmArgs g = { .trans_b = 1,
                   .n = a->out,
                   .k = range->k,
                   .lda = range->k,
                   .ldb = a->ldw,
                   .ldc = a->out,
                   .beta = range->adds ? 1.0f : 0.0f,
                   .b = range->w };

    for (int64_t r = 0; r < a->rows; r += per) {
        g.m = a->rows - r < per ? a->rows - r : per;
        g.a = range->x + r * range->k;
        g.c = a->y + r * a->out;
        dg_cpu_sgemm(&g);
        if (range->last)
            finish(a, &(Part) { r, g.m, 0, a->out });
    }
}

/* One packed group of columns for all rows, in blocks of rows that stay in
 * cache over the panels. */
static void product_packed(const LinearArgs *a, const Range *range,
                           const float *panels, Part p)
{
    const int64_t fit = BLOCK_FLOATS / range->k / 8 * 8;
    const int64_t block = fit < 8 ? 8 : fit > 128 ? 128 : fit;
    LinearArgs rest = *a; /* what is left to do after the product */

    rest.bias = NULL;
    for (p.r0 = 0; p.r0 < a->rows; p.r0 += block) {
        p.rows = a->rows - p.r0 < block ? a->rows - p.r0 : block;
        dg_cpu_micro(&(Micro) { .m = p.rows,
                                .n = p.columns,
                                .k = range->k,
                                .a = range->x + p.r0 * range->k,
                                .row_a = range->k,
                                .col_a = 1,
                                .b = panels,
                                .ld_b = DG_MICRO_PANEL,
                                .panel_b = range->k * DG_MICRO_PANEL,
                                .c = a->y + p.r0 * a->out + p.c0,
                                .ld_c = a->out,
                                .bias = a->bias ? a->bias + p.c0 : NULL,
                                .accumulate = range->adds });
        if (range->last)
            finish(&rest, &p);
    }
}

/* columns of a packed group, 0 if none fits */
static int64_t group_width(int64_t k)
{
    return k > 0 ? PANEL_FLOATS / k / DG_MICRO_PANEL * DG_MICRO_PANEL : 0;
}

static int packs(const LinearArgs *a, int64_t k)
{
    return a->out % VL == 0 && a->out <= PANELS * group_width(k);
}

static void product(const LinearArgs *a, const Range *range)
{
    float panels[PANEL_FLOATS] __attribute__((aligned(64)));
    const int64_t width = group_width(range->k);
    Part p = { .columns = a->out };

    for (p.c0 = 0; p.c0 < a->out; p.c0 += width) {
        p.columns = a->out - p.c0 < width ? a->out - p.c0 : width;
        pack(panels, range->w + p.c0 * a->ldw, p.columns, range->k, a->ldw);
        product_packed(a, range, panels, p);
    }
}

static void product_few(const LinearArgs *a, const Range *range)
{
    dg_cpu_gemm(&(GemmArgs) { .trans_b = 1,
                              .m = a->rows,
                              .n = a->out,
                              .k = range->k,
                              .lda = range->k,
                              .ldb = a->ldw,
                              .ldc = a->out,
                              .rows_per_sample = a->rows_per_sample,
                              .beta = range->adds ? 1.0f : 0.0f,
                              .a = range->x,
                              .b = range->w,
                              .c = a->y });
    if (range->last)
        finish(a, &(Part) { 0, a->rows, 0, a->out });
}

void dg_cpu_linear(const LinearArgs *given)
{
    LinearArgs a = *given;
    const int two = a.x2 != NULL && a.in2 > 0;
    const Range ranges[2] = { { a.x, a.w, a.in, 0, !two },
                              { a.x2, a.w + a.in, a.in2, 1, 1 } };

    const int packed = packs(&a, a.in) && (!two || packs(&a, a.in2));

    if (a.rows_per_sample <= 0)
        a.rows_per_sample = a.rows;
    for (int i = 0; i <= two; ++i)
        if (a.rows_per_sample < FEW_ROWS)
            product_few(&a, &ranges[i]);
        else if (packed)
            product(&a, &ranges[i]);
        else
            product_library(&a, &ranges[i]);
}

/* dw += dy^T x for few rows: each element takes all rows of all samples in
 * order, which is the sample-after-sample sum without rereading dw. */
static void weight_grad_few(const LinearGradArgs *a)
{
    const int64_t rows = a->batch * a->rows;

    for (int64_t o = 0; o < a->out; ++o)
        for (int64_t i = 0; i < a->in; i += VL) {
            const int64_t n = a->in - i < VL ? a->in - i : VL;
            float *dw = a->dw + o * a->ldw + i;
            V acc = v_load_n(dw, n);
            for (int64_t r = 0; r < rows; ++r)
                acc = v_fma(v_set(a->dy[r * a->out + o]),
                            v_load_n(a->x + r * a->in + i, n), acc);
            v_store_n(dw, acc, n);
        }
}

static void weight_grad(const LinearGradArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b)
        dg_cpu_sgemm(&(GemmArgs) { .trans_a = 1,
                                   .m = a->out,
                                   .n = a->in,
                                   .k = a->rows,
                                   .lda = a->out,
                                   .ldb = a->in,
                                   .ldc = a->ldw,
                                   .beta = 1.0f,
                                   .a = a->dy + b * a->rows * a->out,
                                   .b = a->x + b * a->rows * a->in,
                                   .c = a->dw });
}

void dg_cpu_linear_grad(const LinearGradArgs *a)
{
    if (a->rows < FEW_ROWS)
        weight_grad_few(a);
    else
        weight_grad(a);
    if (a->dbias == NULL)
        return;
    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t i = 0; i < a->out; i += VL) {
            const int64_t n = a->out - i < VL ? a->out - i : VL;
            const float *dy = a->dy + b * a->rows * a->out + i;
            V sum = v_zero();
            for (int64_t r = 0; r < a->rows; ++r)
                sum = v_add(sum, v_load_n(dy + r * a->out, n));
            v_store_n(a->dbias + i, v_add(v_load_n(a->dbias + i, n), sum), n);
        }
}
