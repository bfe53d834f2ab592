#include "kernels.h"

#include "act.h"
#include "micro.h"
#include "sgemm.h"
#include "simd.h"

/*
 * Which path a product takes depends on the rows of ONE sample, never on how
 * many samples there are:
 *  - fewer than FEW_ROWS rows per sample: the row kernels below, one chain of
 *    multiply-adds per element (the library changes its kernel below 16 rows
 *    and again at one row, and is slow there);
 *  - else the library, whose rows were measured to have the same bits for
 *    any row count from FEW_ROWS on (test_cpu_kernels.c repeats that).
 */
enum { FEW_ROWS = 16, ROW_TILE = 4, OUT_TILE = 4 };

/* Weights that fit are transposed first: the library is a quarter faster on
 * an untransposed right side, which more than pays for it. */
enum { PANEL_FLOATS = 65536, PANEL_DEPTH = 4096 };

/* --- few rows, right side transposed: dot products of rows -------------- */

typedef struct Dots {
    int64_t rows, k, n;
    const float *x;
    int64_t ld_x;
    const float *w;
    int64_t ld_w;
    float *y;
    int64_t ld_y;
    int accumulate;
} Dots;

#define DOT_INLINE static inline __attribute__((always_inline))

DOT_INLINE void dots_tile(const Dots *d, int64_t r, int64_t o, const int R,
                          const int O)
{
    V acc[ROW_TILE][OUT_TILE];
    const float *x = d->x + r * d->ld_x, *w = d->w + o * d->ld_w;

    for (int i = 0; i < R; ++i)
        for (int j = 0; j < O; ++j)
            acc[i][j] = v_zero();
    for (int64_t l = 0; l < d->k; l += VL) {
        const int64_t n = d->k - l < VL ? d->k - l : VL;
        V wv[OUT_TILE];
        for (int j = 0; j < O; ++j)
            wv[j] = n == VL ? v_load(w + j * d->ld_w + l)
                            : v_load_n(w + j * d->ld_w + l, n);
        for (int i = 0; i < R; ++i) {
            const V xv = n == VL ? v_load(x + i * d->ld_x + l)
                                 : v_load_n(x + i * d->ld_x + l, n);
            for (int j = 0; j < O; ++j)
                acc[i][j] = v_fma(xv, wv[j], acc[i][j]);
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < O; ++j) {
            float *y = d->y + (r + i) * d->ld_y + o + j;
            *y = (d->accumulate ? *y : 0.0f) + v_sum(acc[i][j]);
        }
}

static void dots(const Dots *d)
{
    int64_t o = 0;

    for (; o + OUT_TILE <= d->n; o += OUT_TILE) {
        int64_t r = 0;
        for (; r + ROW_TILE <= d->rows; r += ROW_TILE)
            dots_tile(d, r, o, ROW_TILE, OUT_TILE);
        for (; r < d->rows; ++r)
            dots_tile(d, r, o, 1, OUT_TILE);
    }
    for (; o < d->n; ++o)
        for (int64_t r = 0; r < d->rows; ++r)
            dots_tile(d, r, o, 1, 1);
}

/* --- few rows, right side as it is -------------------------------------- */

/* y[r, 0..n-1] (+)= x w for the last n < VL columns */
static void rows_tail(const GemmArgs *g, int64_t j, int64_t r)
{
    const int64_t n = g->n - j;
    float *c = g->c + r * g->ldc + j;
    V acc = g->beta != 0.0f ? v_load_n(c, n) : v_zero();

    for (int64_t l = 0; l < g->k; ++l)
        acc = v_fma(v_set(g->a[r * g->lda + l]),
                    v_load_n(g->b + l * g->ldb + j, n), acc);
    v_store_n(c, acc, n);
}

static void rows_plain(const GemmArgs *g)
{
    const int64_t whole = g->n / VL * VL;

    dg_cpu_micro(&(Micro) { .m = g->m,
                            .n = whole,
                            .k = g->k,
                            .a = g->a,
                            .row_a = g->lda,
                            .col_a = 1,
                            .b = g->b,
                            .ld_b = g->ldb,
                            .panel_b = DG_MICRO_PANEL,
                            .c = g->c,
                            .ld_c = g->ldc,
                            .accumulate = g->beta != 0.0f });
    for (int64_t r = 0; whole < g->n && r < g->m; ++r)
        rows_tail(g, whole, r);
}

/* --- the table's entries ------------------------------------------------ */

static void gemm_few(const GemmArgs *g, int64_t per_sample)
{
    if (!g->trans_a && g->trans_b) {
        dots(&(Dots) { g->m, g->k, g->n, g->a, g->lda, g->b, g->ldb, g->c,
                       g->ldc, g->beta != 0.0f });
        return;
    }
    if (!g->trans_a) {
        rows_plain(g);
        return;
    }
    for (int64_t i = 0; i < g->m; i += per_sample) {
        GemmArgs s = *g;
        s.m = g->m - i < per_sample ? g->m - i : per_sample;
        s.a = g->a + i;
        s.c = g->c + i * g->ldc;
        dg_cpu_sgemm(&s);
    }
}

void dg_cpu_gemm(const GemmArgs *g)
{
    const int64_t per = g->rows_per_sample > 0 ? g->rows_per_sample : g->m;

    if (per < FEW_ROWS)
        gemm_few(g, per > 0 ? per : 1);
    else
        dg_cpu_sgemm(g);
}

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

/* y (+)= x w^T for many rows */
static void product(const LinearArgs *a, const float *x, int64_t k,
                    const float *w, float beta)
{
    float panel[PANEL_FLOATS + PANEL_DEPTH * VL] __attribute__((aligned(64)));
    const int64_t width = k > 0 ? PANEL_FLOATS / k / VL * VL : 0;
    GemmArgs g = { .m = a->rows,
                   .n = a->out,
                   .k = k,
                   .lda = k,
                   .ldb = a->ldw,
                   .ldc = a->out,
                   .rows_per_sample = a->rows_per_sample,
                   .beta = beta,
                   .a = x,
                   .b = w,
                   .c = a->y,
                   .trans_b = 1 };

    if (width < VL || a->out > 4 * width) { /* so k <= PANEL_DEPTH */
        dg_cpu_sgemm(&g);
        return;
    }
    g.trans_b = 0;
    g.b = panel;
    for (int64_t o = 0; o < a->out; o += width) {
        g.n = a->out - o < width ? a->out - o : width;
        g.ldb = g.n + VL; /* rows of 2^n bytes would share cache sets */
        g.c = a->y + o;
        transpose(panel, g.ldb, w + o * a->ldw, g.n, k, a->ldw);
        dg_cpu_sgemm(&g);
    }
}

static void product_few(const LinearArgs *a, const float *x, int64_t k,
                        const float *w, int accumulate)
{
    dots(&(Dots) { a->rows, k, a->out, x, k, w, a->ldw, a->y, a->out,
                   accumulate });
}

/* y = act(y + bias), pre = y + bias */
V_INLINE void finish_rows(const LinearArgs *a, const Act act)
{
    for (int64_t r = 0; r < a->rows; ++r) {
        float *y = a->y + r * a->out;
        float *pre = a->pre != NULL ? a->pre + r * a->out : NULL;
        for (int64_t i = 0; i < a->out; i += VL) {
            V v = v_get(y, i, a->out);
            if (a->bias != NULL)
                v = v_add(v, v_get(a->bias, i, a->out));
            if (pre != NULL)
                v_put(pre, i, a->out, v);
            v_put(y, i, a->out, act_value(act, v));
        }
    }
}

static void finish(const LinearArgs *a)
{
    switch (a->act) {
    case DG_ACT_NONE:
        finish_rows(a, DG_ACT_NONE);
        break;
    case DG_ACT_SILU:
        finish_rows(a, DG_ACT_SILU);
        break;
    case DG_ACT_GELU_ERF:
        finish_rows(a, DG_ACT_GELU_ERF);
        break;
    case DG_ACT_GELU_TANH:
        finish_rows(a, DG_ACT_GELU_TANH);
        break;
    case DG_ACT_QUICK_GELU:
        finish_rows(a, DG_ACT_QUICK_GELU);
        break;
    }
}

void dg_cpu_linear(const LinearArgs *a)
{
    const int64_t per = a->rows_per_sample > 0 ? a->rows_per_sample : a->rows;
    const int has2 = a->x2 != NULL && a->in2 > 0;

    if (per < FEW_ROWS) {
        product_few(a, a->x, a->in, a->w, 0);
        if (has2)
            product_few(a, a->x2, a->in2, a->w + a->in, 1);
    } else {
        product(a, a->x, a->in, a->w, 0.0f);
        if (has2)
            product(a, a->x2, a->in2, a->w + a->in, 1.0f);
    }
    if (a->bias != NULL || a->act != DG_ACT_NONE || a->pre != NULL)
        finish(a);
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
