#ifndef DG_CUDA_DENOISE_H
#define DG_CUDA_DENOISE_H
/* Twins of diffusion/denoise.h on the device, the same bits. All arrays are
 * device memory. Queued on the current stream. Not collective. */
#include "diffusion/denoise.h"

/** Twin of dg_denoise_spoil(). */
void dg_cuda_denoise_spoil(float *z, float *target, const DenoiseLevel *l,
                           int64_t D);

/** Twin of dg_denoise_error(). error: one f64 on the device. */
void dg_cuda_denoise_error(double *error, float *grad, const float *u,
                           const float *target, float scale, int64_t D);

#endif
