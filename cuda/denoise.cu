#include "lanes.h"
#include "stream.h"

extern "C" {
#include "cuda/denoise.h"
}

/* A thread takes elements first_index(), + index_step() ..; no shared memory,
 * blocks of THREADS. The arithmetic is src/diffusion/denoise.c's. */
__global__ void denoise_spoil_kernel(float *z, float *target, DenoiseLevel l,
                                     int64_t D)
{
    for (int64_t i = first_index(); i < D; i += index_step()) {
        const float clean = get(z, i), noise = get(target, i);

        put(z, i, l.keep * clean + l.spoil * noise);
        if (l.velocity)
            put(target, i, noise - clean);
    }
}

extern "C" void dg_cuda_denoise_spoil(float *z, float *target,
                                      const DenoiseLevel *l, int64_t D)
{
    DG_LAUNCH(denoise_spoil_kernel, dg_blocks(D, THREADS), THREADS, 0, z,
              target, *l, D);
}

/* u - target; the gradient is written on the way */
struct DenoiseTerm {
    float *grad;
    const float *u, *target;
    float scale;

    __device__ double at(int64_t i) const
    {
        const float d = get(u, i) - get(target, i);

        put(grad, i, scale * d);
        return (double)d;
    }
};

/* One block, as lanes_squares() wants it; thread 0 writes the sum. */
__global__ void denoise_error_kernel(double *error, DenoiseTerm t, int64_t D)
{
    const double sum = lanes_squares(t, D);

    if (threadIdx.x == 0)
        *error = sum;
}

extern "C" void dg_cuda_denoise_error(double *error, float *grad,
                                      const float *u, const float *target,
                                      float scale, int64_t D)
{
    const DenoiseTerm t = { grad, u, target, scale };

    DG_LAUNCH(denoise_error_kernel, 1, THREADS, 0, error, t, D);
}
