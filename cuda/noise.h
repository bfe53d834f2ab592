#ifndef DG_CUDA_NOISE_H
#define DG_CUDA_NOISE_H
/* Normals inside of kernels. Internal to cuda. */
#include <cuda_runtime.h>

#define DG_INLINE static __host__ __device__ __forceinline__
#include "base/philox_math.h"

extern "C" {
#include "base/philox.h"
}

/* counter and key of a stream, by value to a kernel */
typedef struct Noise {
    uint32_t ctr[4], key[2];
} Noise;

static inline Noise noise_of(const RngKey *k)
{
    Noise n;

    dg_rng_counter(n.ctr, n.key, k);
    return n;
}

/* elements 4 block .. 4 block + 3 of the stream */
__device__ inline void noise_block(float z[4], const Noise &n, uint32_t block)
{
    uint32_t c[4] = { block, n.ctr[1], n.ctr[2], n.ctr[3] };

    dg_philox_10(c, n.key[0], n.key[1]);
    dg_box_muller(&z[0], &z[1], c[0], c[1]);
    dg_box_muller(&z[2], &z[3], c[2], c[3]);
}

#endif
