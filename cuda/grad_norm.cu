#include "device.h"
#include "stream.h"

#include <math.h>

extern "C" {
#include "base/lanes.h"
#include "cuda/grad_norm.h"
}

enum { FOLD = 2 * THREADS }; /* chunk sums of a block; a power of two */

/*
 * DG_LANES threads take a chunk, one a lane of base/lanes.h, and fold as it
 * says; the lanes of other chunks keep the memory busy meanwhile. No shared
 * memory, blocks of THREADS.
 */
__global__ void grad_norm_chunks_kernel(double *partial, const float *grad,
                                        int64_t num, int64_t chunks)
{
    const int lane = (int)threadIdx.x % DG_LANES;

    /* the lanes of a warp go on together: it has two chunks or one and none */
    for (int64_t i = first_index() / WARP * (WARP / DG_LANES); i < chunks;
         i += index_step() / DG_LANES) {
        const int64_t c = i + threadIdx.x % WARP / DG_LANES;
        const int64_t at = c * DG_GRAD_NORM_CHUNK, left = num - at;
        const int n = left < DG_GRAD_NORM_CHUNK ? (int)(left > 0 ? left : 0)
                                                : (int)DG_GRAD_NORM_CHUNK;
        double sum = 0.0;
#pragma unroll 8
        for (int j = lane; j < n; j += DG_LANES) {
            const double x = (double)get(grad, at + j);
            sum += x * x;
        }
        for (int half = DG_LANES / 2; half > 0; half /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, half);
        if (lane == 0 && c < chunks)
            partial[c] = sum;
    }
}

/*
 * The tree of dg_grad_norm_fold(): neighbours at distance 1, 2, 4 ... A block
 * folds FOLD values that lie stride apart, a thread a pair; the next launch
 * folds what the blocks left. No shared memory beyond the barrier.
 */
__global__ void grad_norm_fold_kernel(double *partial, int64_t chunks,
                                      int64_t stride)
{
    const int64_t first = (int64_t)blockIdx.x * FOLD * stride;

    for (int64_t step = 1; step < FOLD; step *= 2) {
        const int64_t i = first + (int64_t)threadIdx.x * 2 * step * stride;
        if ((int64_t)threadIdx.x * 2 * step < FOLD &&
            i + step * stride < chunks)
            partial[i] += partial[i + step * stride];
        __syncthreads();
    }
}

extern "C" void dg_cuda_grad_norm_chunks(double *partial, const float *grad,
                                         int64_t num)
{
    const int64_t chunks = dg_grad_norm_num_chunks(num);

    DG_LAUNCH(grad_norm_chunks_kernel, dg_blocks(chunks * DG_LANES, THREADS),
              THREADS, 0, partial, grad, num, chunks);
}

extern "C" int dg_cuda_grad_norm(double *norm, const float *grad, int64_t num,
                                 double *scratch)
{
    const int64_t chunks = dg_grad_norm_num_chunks(num);
    double sum = 0.0;
    int err;

    dg_cuda_grad_norm_chunks(scratch, grad, num);
    for (int64_t stride = 1; stride < chunks; stride *= FOLD) {
        const int64_t reach = FOLD * stride;
        DG_LAUNCH(grad_norm_fold_kernel,
                  dim3((unsigned)((chunks + reach - 1) / reach)), THREADS, 0,
                  scratch, chunks, stride);
    }
    if (chunks > 0)
        dg_cuda_download(&sum, scratch, sizeof sum);
    err = dg_cuda_wait();
    if (!err)
        *norm = sqrt(sum);
    return err;
}
