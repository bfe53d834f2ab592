#ifndef DG_CUDA_ADAMW8_H
#define DG_CUDA_ADAMW8_H
/* AdamW with moments in 8 bits on flat ranges of device memory. */
#include "optim/adamw8.h"

/**
 * Moments from their codes, weights, and the moments' codes again in one pass.
 * All arrays are device memory, else as dg_adamw8_update() has them. Queued on
 * the current stream. Twin of dg_adamw8_update(), same bits.
 */
void dg_cuda_adamw8_update(float *w, const Moments8 *x, const float *grad,
                           int64_t first, int64_t num, const AdamwStep *s);

#endif
