#ifndef DG_OPTIM_EMA_H
#define DG_OPTIM_EMA_H
/*
 * Exponential moving average of the weights:
 *   ema <- ema + (1 - decay) (w - ema)
 * in this form, so that ema == w is an exact fixed point.
 */
#include <stdint.h>

/**
 * ema    [num] f32 in/out
 * w      [num] f32
 * decay  in [0, 1]
 * Elementwise: any partition gives the same bits. Not collective.
 */
void dg_ema_update(float *ema, const float *w, int64_t num, double decay);

#endif
