#include "wide.h"

extern "C" {
#include "cuda/adamw.h"
}

/* A thread takes packs of elements, see each<V>(); no shared memory, blocks of
 * THREADS. The arithmetic is src/optim/adamw.c's. */
template <typename T, int V>
__global__ void adamw_kernel(float *w, float *m, float *v, const float *grad,
                             int64_t num, AdamwStep c)
{
    each<V>(num, [&](auto n, int64_t i) {
        constexpr int N = decltype(n)::value;
        const Pack<T, N> grads = fetch<T, N>(grad, i), old = fetch<T, N>(w, i);
        const Pack<T, N> first = fetch<T, N>(m, i), second = fetch<T, N>(v, i);
        float m1[N], v1[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float g = grads.at(k) * c.grad_scale;
            m1[k] = first.at(k) + c.take1 * (g - first.at(k));
            v1[k] = c.beta2 * second.at(k) + c.take2 * (g * g);
        }
        store<T, N>(m, i, [&](int k) { return m1[k]; });
        store<T, N>(v, i, [&](int k) { return v1[k]; });
        store<T, N>(w, i, [&](int k) {
            const float root = sqrtf(v1[k]) * c.root + c.eps;
            return old.at(k) * c.decay - c.rate * (m1[k] / root);
        });
    });
}

extern "C" void dg_cuda_adamw_update(float *w, float *m, float *v,
                                     const float *grad, int64_t num,
                                     const AdamwStep *s)
{
    DG_LAUNCH_EACH(adamw_kernel, float, aligned(w, m, v, grad), num, w, m, v,
                   grad, num, *s);
}
