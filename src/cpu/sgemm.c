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

typedef float Row __attribute__((vector_size(64)));
typedef int32_t Order __attribute__((vector_size(64)));

/* y = rows i and i + 8 of x interleaved */
V_INLINE void interleave(Row *y, const Row *x)
{
    const Order low = {
        0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
    };
    const Order high = { 8,  24, 9,  25, 10, 26, 11, 27,
                         12, 28, 13, 29, 14, 30, 15, 31 };

    for (int i = 0; i < 8; ++i) {
        y[2 * i] = __builtin_shuffle(x[i], x[i + 8], low);
        y[2 * i + 1] = __builtin_shuffle(x[i], x[i + 8], high);
    }
}

/* Four rounds of interleaving rows i and i + 8 are a transposition. */
void dg_cpu_transpose16(float *t, int64_t ld_t, const float *w, int64_t ld_w)
{
    Row x[16], y[16];

    for (int i = 0; i < 16; ++i)
        memcpy(&x[i], w + i * ld_w, sizeof x[i]);
    interleave(y, x);
    interleave(x, y);
    interleave(y, x);
    interleave(x, y);
    for (int i = 0; i < 16; ++i)
        memcpy(t + i * ld_t, &x[i], sizeof x[i]);
}
