#ifndef DG_CUDA_DEVICE_H
#define DG_CUDA_DEVICE_H
/*
 * What kernels share: places, loads and stores, sums in a fixed order.
 *
 * Everything is compiled without contraction (-fmad=false): a multiply-add
 * stands where fmaf() is written, as on the host. Arithmetic is float32;
 * get() and put() are the only places that know how a number is stored, so
 * that another storage type is two more overloads. No alignment beyond an
 * element's is asked for. Internal to cuda.
 */
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

extern "C" {
#include "tensor/backend.h"
}

enum { WARP = 32, THREADS = 256, WARPS = THREADS / WARP };

/* dynamic shared memory of every kernel, 16-byte aligned */
extern __shared__ float dg_cuda_shared[];

/* first element of a thread, and the step to its next one, in a 1-D grid */
__device__ inline int64_t first_index(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ inline int64_t index_step(void)
{
    return (int64_t)gridDim.x * blockDim.x;
}

__device__ inline float get(const float *p, int64_t i)
{
    return p[i];
}
__device__ inline void put(float *p, int64_t i, float x)
{
    p[i] = x;
}

/* the same sum in all lanes: halves folded onto each other */
__device__ inline float warp_sum(float x)
{
    for (int half = WARP / 2; half > 0; half /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}

/* The same over groups of 16 lanes. The maximum drops NaN: callers find it
 * through the sums that follow. */
__device__ inline float half_warp_sum(float x)
{
    for (int half = WARP / 4; half > 0; half /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}
__device__ inline float half_warp_max(float x)
{
    for (int half = WARP / 4; half > 0; half /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, half));
    return x;
}

/* the number of the warp in the grid, and their count, of 1-D blocks */
__device__ inline int64_t warp_index(void)
{
    return (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
}
__device__ inline int64_t warp_step(void)
{
    return (int64_t)gridDim.x * WARPS;
}

#endif
