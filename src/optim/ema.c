#include "optim/ema.h"

void dg_ema_update(float *ema, const float *w, int64_t num, double decay)
{
    const float take = (float)(1.0 - decay);

#pragma omp simd
    for (int64_t i = 0; i < num; i++)
        ema[i] += take * (w[i] - ema[i]);
}
