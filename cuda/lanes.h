#ifndef DG_CUDA_LANES_H
#define DG_CUDA_LANES_H
/*
 * Sums in double in the order of base/lanes.h, so that host and device agree
 * bit for bit: element i goes to lane i mod 16, each lane adds in rising i.
 * A block brings LANE_TILE elements at a time to shared memory; its first
 * threads, one a lane, add them from there. The chain of a lane is what the
 * order demands; the tile keeps it from waiting for memory. Internal to cuda.
 */
#include "device.h"

extern "C" {
#include "base/lanes.h"
}

enum { LANE_TILE = 2048 };

/*
 * Sum of squares of Term::at(i), i < count, by one block of THREADS; the
 * result is thread 0's. All threads call. Shared: LANE_TILE doubles, static.
 */
template <typename Term>
__device__ double lanes_squares(const Term &term, int64_t count)
{
    __shared__ double tile[LANE_TILE];
    const int me = (int)threadIdx.x;
    double sum = 0.0;

    for (int64_t at = 0; at < count; at += LANE_TILE) {
        const int n = count - at < LANE_TILE ? (int)(count - at) : LANE_TILE;
        for (int i = me; i < n; i += THREADS) {
            const double x = term.at(at + i);
            tile[i] = x * x;
        }
        __syncthreads();
        for (int i = me; me < DG_LANES && i < n; i += DG_LANES)
            sum += tile[i];
        __syncthreads();
    }
    if (me < DG_LANES)
        tile[me] = sum;
    for (int half = DG_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (me < half)
            tile[me] += tile[me + half];
    }
    return tile[0]; /* thread 0 wrote it last */
}

#endif
