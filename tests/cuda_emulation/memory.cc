/* Memory, streams and errors of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { GUARD = 256, PAGE = 4096, MAX_KERNELS = 64, DEVICES = 8 };

namespace
{

const unsigned char guard_byte = 0xA5;

/* begins the page before each allocation; a guard ends it */
struct Head {
    size_t bytes, mapped;
    Head *next;
};

Head *heads; /* of all that live */

Head *head_of(void *p)
{
    return (Head *)((char *)p - PAGE);
}

/* --- who may look ------------------------------------------------------- */

int key = -2; /* of device memory; -1: this processor has none */
thread_local int depth, current_device;

void key_make()
{
    if (key == -2)
        key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
}

/* CUDA_EMULATION_DEVICES in the environment says how many there are */
int num_devices()
{
    const char *text = getenv("CUDA_EMULATION_DEVICES");

    return text != nullptr ? atoi(text) : DEVICES;
}

/* and CUDA_EMULATION_MEMORY how many bytes each has */
bool fits(size_t bytes)
{
    const char *text = getenv("CUDA_EMULATION_MEMORY");

    for (const Head *h = heads; h != nullptr; h = h->next)
        bytes += h->bytes;
    return text == nullptr || bytes <= strtoull(text, nullptr, 10);
}

bool is_device(const void *p)
{
    for (const Head *h = heads; h != nullptr; h = h->next)
        if ((const char *)p >= (const char *)h &&
            (const char *)p < (const char *)h + h->mapped)
            return true;
    return false;
}

void check_side(const void *p, bool device, const char *what)
{
    if (is_device(p) == device)
        return;
    fprintf(stderr, "cuda emulation: %s is %s memory\n", what,
            device ? "not device" : "device");
    abort();
}

struct Limit {
    const void *kernel;
    size_t limit;
} limits[MAX_KERNELS];

} // namespace

CudaEmulationOpen::CudaEmulationOpen()
{
    key_make();
    if (depth++ == 0 && key >= 0)
        pkey_set(key, 0);
}

CudaEmulationOpen::~CudaEmulationOpen()
{
    if (--depth == 0 && key >= 0)
        pkey_set(key, PKEY_DISABLE_ACCESS);
}

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
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
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
    *count = num_devices();
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= num_devices())
        return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
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

cudaError_t cudaStreamQuery(cudaStream_t)
{
    return cudaSuccess;
}

int cuda_emulation_device(void)
{
    return current_device;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    const CudaEmulationOpen open;
    const size_t mapped = (2 * PAGE + bytes + GUARD - 1) / PAGE * PAGE;

    if (!fits(bytes))
        return cudaErrorMemoryAllocation;
    char *raw = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (raw == (char *)MAP_FAILED)
        return cudaErrorMemoryAllocation;
    if (key >= 0)
        pkey_mprotect(raw, mapped, PROT_READ | PROT_WRITE, key);
    char *p = raw + PAGE;
    *head_of(p) = Head { bytes, mapped, heads };
    heads = head_of(p);
    memset(p - GUARD, guard_byte, GUARD);
    memset(p, 0xff, bytes);
    memset(p + bytes, guard_byte, GUARD);
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    const CudaEmulationOpen open;

    if (p == nullptr)
        return cudaSuccess;
    const unsigned char *c = (const unsigned char *)p;
    Head *head = head_of(p), **link = &heads;
    for (int i = 0; i < GUARD; ++i)
        if (c[i - GUARD] != guard_byte ||
            c[head->bytes + (size_t)i] != guard_byte) {
            fprintf(stderr, "cuda emulation: written outside of %zu bytes\n",
                    head->bytes);
            abort();
        }
    while (*link != head)
        link = &(*link)->next;
    *link = head->next;
    munmap(head, head->mapped);
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
                            cudaMemcpyKind kind, cudaStream_t)
{
    const CudaEmulationOpen open;

    check_side(to, kind != cudaMemcpyDeviceToHost, "where a copy goes");
    check_side(from, kind != cudaMemcpyHostToDevice, "what a copy reads");
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    const CudaEmulationOpen open;

    check_side(p, true, "what is set");
    memset(p, value, bytes);
    return cudaSuccess;
}
