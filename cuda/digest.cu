#include "device.h"
#include "stream.h"

/*
 * What memory holds, as one number: the sum over all words of a mixture of word
 * and place. Sums of integers have no order. Blocks of THREADS; each leaves its
 * part, and one block adds the parts. Shared: the threads' sums, static.
 */
enum { MOST_PARTS = 1024 };

__device__ inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* to *to, by all threads of a block */
__device__ inline void block_sum(uint64_t *to, uint64_t x)
{
    __shared__ uint64_t sums[THREADS];

    sums[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        *to = sums[0];
}

__global__ void digest_kernel(uint64_t *part, const uint32_t *at, int64_t words)
{
    uint64_t sum = 0;

    for (int64_t i = first_index(); i < words; i += index_step())
        sum += mixed((uint64_t)i << 32 | at[i]);
    block_sum(part + blockIdx.x, sum);
}

__global__ void digest_sum_kernel(uint64_t *to, const uint64_t *part, int num)
{
    uint64_t sum = 0;

    for (int i = (int)threadIdx.x; i < num; i += THREADS)
        sum += part[i];
    block_sum(to, sum);
}

uint64_t dg_cuda_digest(const void *at, size_t bytes)
{
    CudaStream *s = dg_cuda_current();
    const int64_t words = (int64_t)(bytes / sizeof(uint32_t));
    const int64_t blocks = (words + THREADS - 1) / THREADS;
    const int num = (int)(blocks < MOST_PARTS ? blocks : (int64_t)MOST_PARTS);
    uint64_t *parts = (uint64_t *)s->workspace;

    DG_LAUNCH(digest_kernel, dim3((unsigned)num), THREADS, 0, parts,
              (const uint32_t *)at, words);
    DG_LAUNCH(digest_sum_kernel, dim3(1), THREADS, 0, (uint64_t *)s->result,
              parts, num);
    return (uint64_t)dg_cuda_result(s, 0);
}
