/* Events of cuda_runtime.h. */
#include "cuda_runtime.h"

#include <stdlib.h>
#include <time.h>

struct CUevent_st {
    timespec at;
};

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = (cudaEvent_t)calloc(1, sizeof **e);
    return *e != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    return cudaEventCreate(e);
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    cuda_emulation_not_captured("a wait");
    return cuda_emulation_failed() ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from,
                                 cudaEvent_t to)
{
    *milliseconds = (float)(1e3 * (double)(to->at.tv_sec - from->at.tv_sec) +
                            1e-6 * (double)(to->at.tv_nsec - from->at.tv_nsec));
    return cudaSuccess;
}
