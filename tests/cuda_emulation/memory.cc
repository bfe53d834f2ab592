/* Memory, streams and errors of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>

enum { GUARD = 256, MAX_KERNELS = 64 };

namespace
{

const unsigned char guard_byte = 0xA5;

/* stands before the first guard of each allocation */
struct Head {
    size_t bytes;
    void *raw;
};

Head *head_of(void *p)
{
    return (Head *)((char *)p - GUARD - sizeof(Head));
}

struct Limit {
    const void *kernel;
    size_t limit;
} limits[MAX_KERNELS];

} // namespace

size_t cuda_emulation_shared_limit(const void *kernel, int64_t limit)
{
    int i = 0;

    while (i < MAX_KERNELS - 1 && limits[i].kernel != nullptr &&
           limits[i].kernel != kernel)
        ++i;
    if (limit >= 0)
        limits[i] = Limit { kernel, (size_t)limit };
    return limits[i].kernel == kernel ? limits[i].limit : 0;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    default:
        return "invalid argument";
    }
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = nullptr;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    char *raw = (char *)malloc(bytes + 3 * GUARD + sizeof(Head));

    if (raw == nullptr)
        return cudaErrorMemoryAllocation;
    const uintptr_t first = (uintptr_t)raw + sizeof(Head) + GUARD;
    char *p = (char *)((first + GUARD - 1) / GUARD * GUARD);
    *head_of(p) = Head { bytes, raw };
    memset(p - GUARD, guard_byte, GUARD);
    memset(p, 0xff, bytes);
    memset(p + bytes, guard_byte, GUARD);
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    const unsigned char *c = (const unsigned char *)p;
    const size_t bytes = head_of(p)->bytes;
    for (int i = 0; i < GUARD; ++i)
        if (c[i - GUARD] != guard_byte || c[bytes + (size_t)i] != guard_byte) {
            fprintf(stderr, "cuda emulation: written outside of %zu bytes\n",
                    bytes);
            abort();
        }
    free(head_of(p)->raw);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    *out = malloc(bytes);
    return *out != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind, cudaStream_t)
{
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    memset(p, value, bytes);
    return cudaSuccess;
}
