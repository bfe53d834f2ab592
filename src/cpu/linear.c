#include "kernels.h"

#include "act.h"
#include "sgemm.h"
#include "simd.h"

/* As in gemm.c: the rows of one sample choose the path. */
enum { FEW_ROWS = 16 };

/* Weights are transposed first, in panels that stay in cache: the library is
 * a quarter faster on an untransposed right side. Weights of more than
 * PANELS panels stay as they are; for them it makes no difference. */
enum { PANEL_FLOATS = 65536, PANEL_DEPTH = 4096, PANELS = 4 };

/* t[k, n] = w[n, k]^T, pitch ld of t */
static void transpose(float *restrict t, int64_t ld, const float *restrict w,
                      int64_t n, int64_t k, int64_t ld_w)
{
    enum { B = 16 };
    int64_t o = 0;

    for (; o + B <= n; o += B) {
        int64_t l = 0;
        for (; l + B <= k; l += B)
            dg_cpu_transpose16(t + l * ld + o, ld, w + o * ld_w + l, ld_w);
        for (; l < k; ++l)
            for (int64_t i = 0; i < B; ++i)
                t[l * ld + o + i] = w[(o + i) * ld_w + l];
    }
    for (; o < n; ++o)
        for (int64_t l = 0; l < k; ++l)
            t[l * ld + o] = w[o * ld_w + l];
}

/* The rows r0 .. r0+rows-1, columns c0 .. c0+columns-1 of y. */
typedef struct Part {
    int64_t r0, rows, c0, columns;
} Part;

/* y = act(y + bias), pre = y + bias for one row of a part */
V_INLINE void finish_row(float *y, float *pre, const float *bias, int64_t n,
                         const Act act)
{
    for (int64_t i = 0; i < n; i += VL) {
        V v = v_get(y, i, n);
        if (bias != NULL)
            v = v_add(v, v_get(bias, i, n));
        if (pre != NULL)
            v_put(pre, i, n, v);
        if (act != DG_ACT_NONE || bias != NULL)
            v_put(y, i, n, act_value(act, v));
    }
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

/* y (+)= x right for all samples, a call each; finished while in cache */
static void samples(const LinearArgs *a, const Range *range, GemmArgs *g,
                    Part *p)
{
    const int64_t per = a->rows_per_sample;

    g->n = p->columns;
    g->k = g->lda = range->k;
    g->ldc = a->out;
    g->beta = range->adds ? 1.0f : 0.0f;
    for (p->r0 = 0; p->r0 < a->rows; p->r0 += per) {
        p->rows = a->rows - p->r0 < per ? a->rows - p->r0 : per;
        g->m = p->rows;
        g->a = range->x + p->r0 * range->k;
        g->c = a->y + p->r0 * a->out + p->c0;
        dg_cpu_sgemm(g);
        if (range->last)
            finish(a, p);
    }
}

static void product(const LinearArgs *a, const Range *range)
{
    float panel[PANEL_FLOATS + PANEL_DEPTH * VL] __attribute__((aligned(64)));
    const int64_t width = range->k > 0 ? PANEL_FLOATS / range->k / VL * VL : 0;
    Part p = { .columns = a->out };
    GemmArgs g = { .trans_b = 1, .b = range->w, .ldb = a->ldw };

    if (a->out > PANELS * width) { /* else k <= PANEL_DEPTH */
        samples(a, range, &g, &p);
        return;
    }
    g.trans_b = 0;
    g.b = panel;
    for (p.c0 = 0; p.c0 < a->out; p.c0 += width) {
        p.columns = a->out - p.c0 < width ? a->out - p.c0 : width;
        g.ldb = p.columns + VL; /* rows of 2^n bytes would share cache sets */
        transpose(panel, g.ldb, range->w + p.c0 * a->ldw, p.columns, range->k,
                  a->ldw);
        samples(a, range, &g, &p);
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

    if (a.rows_per_sample <= 0)
        a.rows_per_sample = a.rows;
    for (int i = 0; i <= two; ++i)
        if (a.rows_per_sample < FEW_ROWS)
            product_few(&a, &ranges[i]);
        else
            product(&a, &ranges[i]);
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
