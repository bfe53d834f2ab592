#ifndef DG_CUDA_EMA_H
#define DG_CUDA_EMA_H
/* Moving average of weights in device memory. */
#include <stdint.h>

/** ema, w [num] f32, device. Queued on the current stream. Twin of
 *  dg_ema_update(), same bits. */
void dg_cuda_ema_update(float *ema, const float *w, int64_t num, double decay);

#endif
