#include "sgemm.h"

#include "simd.h"

#include "base/error.h"

#include <dnnl.h>
#include <omp.h>

void dg_cpu_sgemm(const GemmArgs *g)
{
    const int threads = omp_get_max_threads();
    dnnl_status_t status;

    if (g->m == 0 || g->n == 0)
        return;
    if (threads != 1)
        omp_set_num_threads(1);
    status = dnnl_sgemm(g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', g->m,
                        g->n, g->k, 1.0f, g->a, g->lda, g->b, g->ldb, g->beta,
                        g->c, g->ldc);
    if (threads != 1)
        omp_set_num_threads(threads);
    if (status != dnnl_success)
        dg_panic("dnnl_sgemm: status %d for m %lld n %lld k %lld", (int)status,
                 (long long)g->m, (long long)g->n, (long long)g->k);
}

#if defined(__AVX512F__)

typedef float Row __attribute__((vector_size(64)));
typedef int32_t Order __attribute__((vector_size(64)));

/* a and b interleaved by one or two elements inside each quarter */
#define LOW1 \
    ((Order) { 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29 })
#define HIGH1 \
    ((Order) { 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31 })
#define LOW2 \
    ((Order) { 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29 })
#define HIGH2 \
    ((Order) { 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31 })
/* quarters 0 1 of a and b; 2 3; then 0 2 and 1 3 */
#define HALF0 \
    ((Order) { 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23 })
#define HALF1 \
    ((Order) { 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31 })
#define EVEN \
    ((Order) { 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27 })
#define ODD \
    ((Order) { 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31 })

#else

typedef V8 Row;

/* a and b interleaved inside each half, by one or two elements; then their
 * lower halves side by side, and their upper ones */
#define LOW1  ((I8) { 0, 8, 1, 9, 4, 12, 5, 13 })
#define HIGH1 ((I8) { 2, 10, 3, 11, 6, 14, 7, 15 })
#define LOW2  ((I8) { 0, 1, 8, 9, 4, 5, 12, 13 })
#define HIGH2 ((I8) { 2, 3, 10, 11, 6, 7, 14, 15 })
#define HALF0 ((I8) { 0, 1, 2, 3, 8, 9, 10, 11 })
#define HALF1 ((I8) { 4, 5, 6, 7, 12, 13, 14, 15 })

#endif

/* Four rows: q[c] holds columns c, c + 4, ..., a quarter (a half of eight
 * lanes) each. */
V_INLINE void turn_rows(Row q[4], const float *w, int64_t ld)
{
    Row r[4], t[4];

#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        memcpy(&r[i], w + i * ld, sizeof r[i]);
    t[0] = __builtin_shuffle(r[0], r[1], LOW1);
    t[1] = __builtin_shuffle(r[0], r[1], HIGH1);
    t[2] = __builtin_shuffle(r[2], r[3], LOW1);
    t[3] = __builtin_shuffle(r[2], r[3], HIGH1);
    q[0] = __builtin_shuffle(t[0], t[2], LOW2);
    q[1] = __builtin_shuffle(t[0], t[2], HIGH2);
    q[2] = __builtin_shuffle(t[1], t[3], LOW2);
    q[3] = __builtin_shuffle(t[1], t[3], HIGH2);
}

#if defined(__AVX512F__)

void dg_cpu_transpose16(float *t, int64_t ld_t, const float *w, int64_t ld_w)
{
    Row q[4][4];

#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g)
        turn_rows(q[g], w + 4 * g * ld_w, ld_w);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        const Row a = __builtin_shuffle(q[0][c], q[1][c], HALF0);
        const Row b = __builtin_shuffle(q[2][c], q[3][c], HALF0);
        const Row d = __builtin_shuffle(q[0][c], q[1][c], HALF1);
        const Row e = __builtin_shuffle(q[2][c], q[3][c], HALF1);
        const Row out[4] = { __builtin_shuffle(a, b, EVEN),
                             __builtin_shuffle(a, b, ODD),
                             __builtin_shuffle(d, e, EVEN),
                             __builtin_shuffle(d, e, ODD) };
#pragma GCC unroll 4
        for (int l = 0; l < 4; ++l)
            memcpy(t + (4 * l + c) * ld_t, &out[l], sizeof out[l]);
    }
}

#else

V_INLINE void transpose8(float *t, int64_t ld_t, const float *w, int64_t ld_w)
{
    Row q[2][4];

    turn_rows(q[0], w, ld_w);
    turn_rows(q[1], w + 4 * ld_w, ld_w);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        const Row low = __builtin_shuffle(q[0][c], q[1][c], HALF0);
        const Row high = __builtin_shuffle(q[0][c], q[1][c], HALF1);
        memcpy(t + c * ld_t, &low, sizeof low);
        memcpy(t + (c + 4) * ld_t, &high, sizeof high);
    }
}

void dg_cpu_transpose16(float *t, int64_t ld_t, const float *w, int64_t ld_w)
{
    for (int64_t i = 0; i < 16; i += 8)
        for (int64_t j = 0; j < 16; j += 8)
            transpose8(t + j * ld_t + i, ld_t, w + i * ld_w + j, ld_w);
}

#endif
