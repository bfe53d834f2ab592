#include "kernels.h"

#include "micro.h"
#include "sgemm.h"
#include "simd.h"

/*
 * Which path a product takes depends on the rows of ONE sample, never on how
 * many samples there are:
 *  - fewer than FEW_ROWS rows per sample: the row kernels below, all samples
 *    at once, since every element is one chain of multiply-adds of its own;
 *  - else the library, sample after sample. It chooses kernels by the number
 *    of rows, and their bits differ (below 16 rows for a transposed right
 *    side; near 200 rows for some k), so samples must not share a call.
 */
enum { FEW_ROWS = 16, ROW_TILE = 4, OUT_TILE = 4 };

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

void dg_cpu_gemm(const GemmArgs *g)
{
    const int64_t per = g->rows_per_sample > 0 ? g->rows_per_sample : g->m;

    if (per < FEW_ROWS && !g->trans_a) {
        if (g->trans_b)
            dots(&(Dots) { g->m, g->k, g->n, g->a, g->lda, g->b, g->ldb, g->c,
                           g->ldc, g->beta != 0.0f });
        else
            rows_plain(g);
        return;
    }
    for (int64_t i = 0; i < g->m; i += per) {
        GemmArgs s = *g;
        s.m = g->m - i < per ? g->m - i : per;
        s.a = g->trans_a ? g->a + i : g->a + i * g->lda;
        s.c = g->c + i * g->ldc;
        dg_cpu_sgemm(&s);
    }
}
