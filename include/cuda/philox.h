#ifndef DG_CUDA_PHILOX_H
#define DG_CUDA_PHILOX_H
/* Counter-based random numbers on the device: bits as base/philox.h's. */
#include "base/philox.h"

/**
 * num standard normals, elements first..first+num-1 of the stream.
 * out  [num] f32, device
 * Queued on the current stream. Twin of dg_rng_normal().
 */
void dg_cuda_rng_normal(float *out, int64_t first, int64_t num,
                        const RngKey *k);

#endif
