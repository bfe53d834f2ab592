#include "device.h"
#include "stream.h"

extern "C" {
#include "cuda/adamw.h"
}

/* A thread takes elements first_index(), + index_step() ..; no shared memory,
 * blocks of THREADS. The arithmetic is src/optim/adamw.c's. */
__global__ void adamw_kernel(float *w, float *m, float *v, const float *grad,
                             int64_t num, AdamwStep c)
{
    for (int64_t i = first_index(); i < num; i += index_step()) {
        const float g = get(grad, i) * c.grad_scale;
        const float m1 = m[i] + c.take1 * (g - m[i]);
        const float v1 = c.beta2 * v[i] + c.take2 * (g * g);

        m[i] = m1;
        v[i] = v1;
        w[i] = w[i] * c.decay - c.rate * (m1 / (sqrtf(v1) * c.root + c.eps));
    }
}

extern "C" void dg_cuda_adamw_update(float *w, float *m, float *v,
                                     const float *grad, int64_t num,
                                     const AdamwStep *s)
{
    DG_LAUNCH(adamw_kernel, dg_blocks(num, THREADS), THREADS, 0, w, m, v, grad,
              num, *s);
}
