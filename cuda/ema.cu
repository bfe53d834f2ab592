#include "device.h"
#include "stream.h"

extern "C" {
#include "cuda/ema.h"
}

/* A thread takes elements first_index(), + index_step() ..; no shared memory,
 * blocks of THREADS. */
__global__ void ema_kernel(float *ema, const float *w, int64_t num, float take)
{
    for (int64_t i = first_index(); i < num; i += index_step())
        ema[i] += take * (get(w, i) - ema[i]);
}

extern "C" void dg_cuda_ema_update(float *ema, const float *w, int64_t num,
                                   double decay)
{
    DG_LAUNCH(ema_kernel, dg_blocks(num, THREADS), THREADS, 0, ema, w, num,
              (float)(1.0 - decay));
}
