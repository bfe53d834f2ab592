#include "lanes.h"
#include "stream.h"

#include <math.h>

extern "C" {
#include "cuda/grad_norm.h"
}

enum { FOLD = 2 * THREADS }; /* chunk sums of a block; a power of two */

struct Values {
    const float *x;

    __device__ double at(int64_t i) const
    {
        return (double)get(x, i);
    }
};

/* A block takes chunk blockIdx.x, + gridDim.x ..; see lanes_squares(). */
__global__ void grad_norm_chunks_kernel(double *partial, const float *grad,
                                        int64_t num, int64_t chunks)
{
    for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
        const int64_t at = c * DG_GRAD_NORM_CHUNK, left = num - at;
        const Values v = { grad + at };
        const double sum = lanes_squares(
            v, left < DG_GRAD_NORM_CHUNK ? left : (int64_t)DG_GRAD_NORM_CHUNK);
        if (threadIdx.x == 0)
            partial[c] = sum;
        __syncthreads(); /* the next chunk writes over the sums' place */
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

    DG_LAUNCH(grad_norm_chunks_kernel, dg_blocks(chunks, 1), THREADS, 0,
              partial, grad, num, chunks);
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
