#include "wide.h"

extern "C" {
#include "cuda/ema.h"
}

/* A thread takes packs of elements, see each<V>(); no shared memory, blocks of
 * THREADS. */
template <typename T, int V>
__global__ void ema_kernel(float *ema, const float *w, int64_t num, float take)
{
    each<V>(num, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> e = fetch<T, N>(ema, i), x = fetch<T, N>(w, i);
        store<T, N>(ema, i, [&](int k) {
            return e.at(k) + take * (x.at(k) - e.at(k));
        });
    });
}

extern "C" void dg_cuda_ema_update(float *ema, const float *w, int64_t num,
                                   double decay)
{
    DG_LAUNCH_EACH(ema_kernel, float, aligned(ema, w), num, ema, w, num,
                   (float)(1.0 - decay));
}
