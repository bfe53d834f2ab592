#ifndef DG_DIFFUSION_DENOISE_H
#define DG_DIFFUSION_DENOISE_H
/*
 * Pretraining of a denoiser, one sample of D elements: how it is spoilt, and
 * how far its prediction is off.
 *
 *   z = keep x + spoil noise;   target = noise - x (velocity), or noise
 *
 * Source: Liu et al., arXiv:2209.03003 (keep = 1 - sigma, spoil = sigma); Ho
 * et al., arXiv:2006.11239 (keep = sqrt(alpha_bar)). Not collective.
 */
#include <stdint.h>

typedef struct DenoiseLevel {
    float keep, spoil;
    int velocity; /* 1: the target is noise - x; 0: noise */
} DenoiseLevel;

/**
 * z       [D] f32 in: x; out: z
 * target  [D] f32 in: noise, N(0, 1); out: what is to be predicted
 * Twin of dg_cuda_denoise_spoil(), the same bits.
 */
void dg_denoise_spoil(float *z, float *target, const DenoiseLevel *l,
                      int64_t D);

/**
 * error  one f64 out: sum of (u - target)^2, in the order of base/lanes.h
 * grad   [D] f32 out: scale (u - target)
 * Twin of dg_cuda_denoise_error(), the same bits.
 */
void dg_denoise_error(double *error, float *grad, const float *u,
                      const float *target, float scale, int64_t D);

#endif
