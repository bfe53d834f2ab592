#include "lanes.h"
#include "noise.h"
#include "stream.h"

extern "C" {
#include "cuda/sde.h"
}

/*
 * Elementwise kernels: a thread takes elements first_index(), + index_step()
 * .. of one sample; no shared memory, blocks of THREADS. Sums: one block a
 * sample, see lanes.h. The arithmetic is src/diffusion/sde.c's.
 */

/* out = cz z + cu u, + std noise where there is any */
__global__ void sde_next_kernel(float *out, SdeStep s, const float *z,
                                const float *u, const float *noise, int64_t D)
{
    for (int64_t i = first_index(); i < D; i += index_step()) {
        const float mean = s.mean_z * get(z, i) + s.mean_u * get(u, i);
        put(out, i, s.stochastic ? mean + s.std * get(noise, i) : mean);
    }
}

/* A thread takes blocks of four elements, whose noise is of one counter. */
__global__ void sde_draw_kernel(float *out, SdeStep s, const float *z,
                                const float *u, Noise n, int64_t D)
{
    for (int64_t b = first_index(); 4 * b < D; b += index_step()) {
        float noise[4];
        noise_block(noise, n, (uint32_t)b);
        for (int64_t i = 4 * b; i < 4 * b + 4 && i < D; ++i) {
            const float mean = s.mean_z * get(z, i) + s.mean_u * get(u, i);
            put(out, i, mean + s.std * noise[i - 4 * b]);
        }
    }
}

extern "C" void dg_cuda_sde_next(float *z_next, const SdeStep *s,
                                 const float *z, const float *u,
                                 const float *noise, int64_t D)
{
    DG_LAUNCH(sde_next_kernel, dg_blocks(D, THREADS), THREADS, 0, z_next, *s, z,
              u, noise, D);
}

extern "C" void dg_cuda_sde_draw(float *z_next, const SdeStep *s,
                                 const float *z, const float *u,
                                 const RngKey *key, int64_t D)
{
    if (!s->stochastic) {
        dg_cuda_sde_next(z_next, s, z, u, NULL, D);
        return;
    }
    DG_LAUNCH(sde_draw_kernel, dg_blocks((D + 3) / 4, THREADS), THREADS, 0,
              z_next, *s, z, u, noise_of(key), D);
}

/* z_next - mu */
struct StepError {
    const float *z, *u, *z_next;
    float cz, cu;

    __device__ double at(int64_t i) const
    {
        const float mu = cz * get(z, i) + cu * get(u, i);
        return (double)(get(z_next, i) - mu);
    }
};

/* One block, as lanes_squares() wants it; thread 0 writes. */
__global__ void sde_log_prob_kernel(float *log_prob, SdeStep s, StepError e,
                                    int64_t D)
{
    const double mean = lanes_squares(e, D) / (double)D;

    if (threadIdx.x == 0)
        *log_prob = (float)(s.offset - 0.5 * s.precision * mean);
}

extern "C" void dg_cuda_sde_log_prob(float *log_prob, const SdeStep *s,
                                     const float *z, const float *u,
                                     const float *z_next, int64_t D)
{
    const StepError e = { z, u, z_next, s->mean_z, s->mean_u };

    if (s->stochastic)
        DG_LAUNCH(sde_log_prob_kernel, 1, THREADS, 0, log_prob, *s, e, D);
    else
        dg_cuda_note(cudaMemsetAsync(log_prob, 0, sizeof *log_prob,
                                     dg_cuda_current()->stream),
                     "log-density of a deterministic step");
}

__global__ void sde_x0_kernel(float *x0, float cz, float cu, const float *z,
                              const float *u, int64_t D)
{
    for (int64_t i = first_index(); i < D; i += index_step())
        put(x0, i, cz * get(z, i) + cu * get(u, i));
}

extern "C" void dg_cuda_sde_x0(float *x0, const SdeStep *s, const float *z,
                               const float *u, int64_t D)
{
    DG_LAUNCH(sde_x0_kernel, dg_blocks(D, THREADS), THREADS, 0, x0, s->x0_z,
              s->x0_u, z, u, D);
}

struct Difference {
    const float *u, *u_ref;

    __device__ double at(int64_t i) const
    {
        return (double)(get(u, i) - get(u_ref, i));
    }
};

/* One block; thread 0 writes. */
__global__ void sde_kl_kernel(double *kl, double factor, Difference d,
                              int64_t D)
{
    const double mean = lanes_squares(d, D) / (double)D;

    if (threadIdx.x == 0)
        *kl = factor * mean;
}

extern "C" void dg_cuda_sde_kl(double *kl, const SdeStep *s, const float *u,
                               const float *u_ref, int64_t D)
{
    const double k = s->mean_u;
    const Difference d = { u, u_ref };

    DG_LAUNCH(sde_kl_kernel, 1, THREADS, 0, kl, 0.5 * s->inv_var * k * k, d, D);
}
