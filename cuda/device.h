#ifndef DG_CUDA_DEVICE_H
#define DG_CUDA_DEVICE_H
/*
 * What kernels share: places, loads and stores, sums in a fixed order.
 *
 * Everything is compiled without contraction (-fmad=false): a multiply-add
 * stands where fmaf() is written, as on the host. Arithmetic is float32.
 *
 * Stored values, activations and weights, are of a type T, float or
 * __nv_bfloat16, the kernel's template argument; they are reached by get<T>(),
 * put<T>() and past<T>() alone, whatever the pointer's declared type (see
 * tensor/backend.h). get() and put() without an argument are of what is always
 * float32: statistics, sums, gradients of parameters. No alignment beyond an
 * element's is asked for. Internal to cuda.
 */
#include <cuda_bf16.h>
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

__device__ inline float widened(float x)
{
    return x;
}
__device__ inline float widened(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
__device__ inline void narrow(float *to, float x)
{
    *to = x;
}
/* to nearest, ties to even */
__device__ inline void narrow(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

template <typename T> __device__ inline float get(const float *p, int64_t i)
{
    return widened(reinterpret_cast<const T *>(p)[i]);
}
template <typename T> __device__ inline void put(float *p, int64_t i, float x)
{
    narrow(reinterpret_cast<T *>(p) + i, x);
}

/* the address of element i; NULL stays NULL */
template <typename T>
__host__ __device__ inline const float *past(const float *p, int64_t i)
{
    return p == NULL ? p
                     : reinterpret_cast<const float *>(
                           reinterpret_cast<const T *>(p) + i);
}
template <typename T>
__host__ __device__ inline float *past(float *p, int64_t i)
{
    return p == NULL ? p
                     : reinterpret_cast<float *>(reinterpret_cast<T *>(p) + i);
}

__device__ inline int at_most(int64_t left, int most)
{
    return left < most ? (int)left : most;
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

/* *least becomes x where that is less: an integer, whose atomic minimum does not
 * depend on the order. Who sees that it is less already leaves it alone. */
__device__ inline void keep_least(unsigned long long *least,
                                  unsigned long long x)
{
    if (x < *least)
        atomicMin(least, x);
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
