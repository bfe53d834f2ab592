#include "noise.h"

#include "device.h"
#include "stream.h"

extern "C" {
#include "cuda/philox.h"
}

/* A thread takes blocks of four elements; first .. first + num - 1 of them
 * are wanted. No shared memory, blocks of THREADS. */
__global__ void normal_kernel(float *out, int64_t first, int64_t num, Noise n)
{
    const int64_t last = first + num, blocks = (last + 3) / 4 - first / 4;

    for (int64_t i = first_index(); i < blocks; i += index_step()) {
        const int64_t block = first / 4 + i;
        float z[4];
        noise_block(z, n, (uint32_t)block);
        for (int j = 0; j < 4; ++j)
            if (4 * block + j >= first && 4 * block + j < last)
                put(out, 4 * block + j - first, z[j]);
    }
}

extern "C" void dg_cuda_rng_normal(float *out, int64_t first, int64_t num,
                                   const RngKey *k)
{
    if (first < 0 || num < 0 || first + num > (int64_t)4 << 32)
        dg_panic("random numbers: elements %lld + %lld beyond the stream",
                 (long long)first, (long long)num);
    DG_LAUNCH(normal_kernel, dg_blocks(num / 4 + 2, THREADS), THREADS, 0, out,
              first, num, noise_of(k));
}
