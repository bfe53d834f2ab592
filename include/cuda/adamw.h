#ifndef DG_CUDA_ADAMW_H
#define DG_CUDA_ADAMW_H
/* AdamW on flat ranges of device memory. */
#include "optim/adamw.h"

/**
 * Moments and weights in one pass.
 * w, m, v  [num] f32 in/out, device; grad [num] f32, device
 * Queued on the current stream. Twin of dg_adamw_update(), same bits.
 */
void dg_cuda_adamw_update(float *w, float *m, float *v, const float *grad,
                          int64_t num, const AdamwStep *s);

#endif
