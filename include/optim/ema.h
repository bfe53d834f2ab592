#ifndef DG_OPTIM_EMA_H
#define DG_OPTIM_EMA_H
/*
 * Exponential moving average of the weights:
 *   ema <- ema + (1 - decay) (w - ema)
 * in this form, so that ema == w is an exact fixed point.
 */
#include <stdint.h>

/**
 * The decay of a step of the average after n >= 0 updates of the weights.
 *   ramp: min(decay, (1 + n) / (10 + n)), else decay
 * so that what the weights were at the start is soon forgotten: a decay of 0.9
 * is come to after 80 updates, one of 0.99 after 890.
 * Source: TensorFlow's ExponentialMovingAverage (num_updates), as Flow-GRPO and
 * diffusers have it.
 */
double dg_ema_decay(double decay, int ramp, int64_t updates);

/**
 * ema    [num] f32 in/out
 * w      [num] f32
 * decay  in [0, 1]
 * Elementwise: any partition gives the same bits. Not collective.
 */
void dg_ema_update(float *ema, const float *w, int64_t num, double decay);

#endif
