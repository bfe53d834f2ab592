#ifndef CUDA_EMULATION_NCCL_H
#define CUDA_EMULATION_NCCL_H
/*
 * The calls of NCCL that cuda/comm.cu makes, on MPI_COMM_WORLD. Like the real
 * one it waits in the first call of each algorithm until all ranks are there,
 * unless NCCL_RUNTIME_CONNECT=0 in the environment lets it do so when they join;
 * and its calls fail where the device has.
 */
#include "cuda_runtime.h"

typedef struct ncclComm *ncclComm_t;
typedef enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6
} ncclResult_t;
typedef enum ncclDataType_t {
    ncclInt8 = 0,
    ncclInt64 = 4,
    ncclFloat32 = 7
} ncclDataType_t;
typedef enum ncclRedOp_t { ncclSum = 0 } ncclRedOp_t;
typedef struct ncclUniqueId {
    char internal[128];
} ncclUniqueId;

extern "C" {
const char *ncclGetErrorString(ncclResult_t e);
const char *ncclGetLastError(ncclComm_t c);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id,
                              int rank);
ncclResult_t ncclCommDestroy(ncclComm_t c);
ncclResult_t ncclCommAbort(ncclComm_t c);
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *e);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                           ncclDataType_t type, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s);
ncclResult_t ncclReduce(const void *from, void *to, size_t count,
                        ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t c, cudaStream_t s);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count,
                           ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s);
/** Sums and broadcasts that were asked for so far, by this rank. */
long cuda_emulation_nccl_calls(void);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
}

#endif
