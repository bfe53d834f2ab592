#include "optim/ema.h"

double dg_ema_decay(double decay, int ramp, int64_t updates)
{
    const double n = (double)updates, most = (1 + n) / (10 + n);

    return ramp && most < decay ? most : decay;
}

void dg_ema_update(float *ema, const float *w, int64_t num, double decay)
{
    const float take = (float)(1.0 - decay);

#pragma omp simd
    for (int64_t i = 0; i < num; i++)
        ema[i] += take * (w[i] - ema[i]);
}
