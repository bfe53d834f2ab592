#ifndef DG_CUDA_SDE_H
#define DG_CUDA_SDE_H
/*
 * Denoising steps on the device: twins of diffusion/sde.h, the same bits from
 * the same numbers. One sample of D elements per call; all arrays are device
 * memory, [D] f32. Queued on the current stream. Not collective.
 */
#include "base/philox.h"
#include "diffusion/sde.h"

/** Twin of dg_sde_next(). */
void dg_cuda_sde_next(float *z_next, const SdeStep *s, const float *z,
                      const float *u, const float *noise, int64_t D);

/** dg_cuda_sde_next() with the noise of key, which is never stored:
 *  elements 0..D-1 of dg_rng_normal(). */
void dg_cuda_sde_draw(float *z_next, const SdeStep *s, const float *z,
                      const float *u, const RngKey *key, int64_t D);

/** Twin of dg_sde_log_prob(). log_prob: one f32 on the device. */
void dg_cuda_sde_log_prob(float *log_prob, const SdeStep *s, const float *z,
                          const float *u, const float *z_next, int64_t D);

/** Twin of dg_sde_x0(). */
void dg_cuda_sde_x0(float *x0, const SdeStep *s, const float *z, const float *u,
                    int64_t D);

/** Twin of dg_sde_kl(). kl: one f64 on the device. */
void dg_cuda_sde_kl(double *kl, const SdeStep *s, const float *u,
                    const float *u_ref, int64_t D);

#endif
