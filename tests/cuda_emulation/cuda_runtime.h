#ifndef CUDA_EMULATION_RUNTIME_H
#define CUDA_EMULATION_RUNTIME_H
/*
 * The part of the CUDA runtime that cuda/ uses, on the host, so that kernels
 * run in the tests of machines without a GPU. The .cu files compile as plain
 * C++ against this folder.
 *
 * Blocks run one after the other. A block's threads are fibres: each runs
 * until it waits for its warp or its block, then the next one runs. What
 * would be undefined on a device (threads that miss a barrier, a launch
 * beyond the limits of sm_80) ends the program with a message. Device memory
 * is host memory between guard bytes, poisoned with NaN; so is dynamic shared
 * memory before each block. cuda_emulation_order() turns the order of blocks
 * and threads round: results that change were a race.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <utility>

/* ThreadSanitizer follows a thread of the host by its stack, and fibres have
 * others: what runs on those is not its. */
#ifdef __SANITIZE_THREAD__
#define __global__ __attribute__((no_sanitize("thread")))
#define __device__ __attribute__((no_sanitize("thread")))
#else
#define __global__
#define __device__
#endif
#define __host__
#define __forceinline__ inline
#define __shared__      thread_local
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};

struct uint4 {
    unsigned x, y, z, w;
};

#define CUDART_VERSION 13000

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1)
        : x(x), y(y), z(z)
    {
    }
};

extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719
} cudaError_t;

typedef enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
} cudaMemcpyKind;

enum { cudaStreamNonBlocking = 1 };
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

typedef struct CUstream_st *cudaStream_t;

const char *cudaGetErrorString(cudaError_t e);
cudaError_t cudaGetLastError(void);
/** e, which the calling thread's next cudaGetLastError() gives too: as on a
 *  device also of a stream that is only not ready. */
cudaError_t cuda_emulation_says(cudaError_t e);
/** The same without forgetting it: what libraries take for their own error. */
cudaError_t cuda_emulation_last(void);
cudaError_t cudaGetDeviceCount(int *count);

typedef struct cudaUUID_t {
    char bytes[16];
} cudaUUID_t;
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int pciBusID, pciDeviceID, pciDomainID;
    int major, minor, multiProcessorCount;
};
/** CUDA_EMULATION_NAME in the environment is the model's name. Of the emulated GPU that CUDA_VISIBLE_DEVICES has at this place: a list of
 *  numbers, the only ones that there are; "3:1" is a part of GPU 3 (MIG). */
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaSetDevice(int device);
/* of shared memory alone: what a block has on sm_80, or
 * CUDA_EMULATION_SHARED bytes of it where the environment says so */
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);

/* fn is the host's: it may not call CUDA; not after a device has failed */
#define CUDART_CB
typedef void (*cudaHostFn_t)(void *user);
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *user);

/*
 * --- streams: what is queued is done when somebody waits for it, not before.
 *
 * So work that another stream, or the host, should have waited for and has not
 * is not there yet. With CUDA_EMULATION_STREAMS="early" in the environment all
 * streams but the first do what is queued at once, and the first is the one
 * that is late: what they should have waited for is not there. The host's side
 * of a copy is read and written when the stream gets there, pinned or not: real
 * ones may take memory that is not pinned along at once, or wait, and on some
 * machines do neither. Such memory that changes before it is read ends the
 * program.
 */

typedef struct CUevent_st *cudaEvent_t;
enum { cudaEventDisableTiming = 2 };

cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
/* by the processor's clock */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from,
                                 cudaEvent_t to);

/** 1 where a call is to be kept by the next function and not to be done: a
 *  stream captures, or nobody drains one yet. */
int cuda_emulation_defers(cudaStream_t s);
/** Adds to what is captured, or to the stream that was asked about last. */
void cuda_emulation_keep(std::function<cudaError_t()> call);
void cuda_emulation_queue(cudaStream_t s, std::function<cudaError_t()> call);
/** Does what is queued, on one stream or all; or drops it. */
void cuda_emulation_drain(cudaStream_t s);
void cuda_emulation_drain_all(void);
void cuda_emulation_forget(cudaStream_t s);
/** No stream gets ready any more. */
void cuda_emulation_stick(void);

/* --- graphs: what is captured is kept as closures, and called in order ---- */

typedef struct CudaGraph *cudaGraph_t;
typedef struct CudaGraph *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/** 1 while this thread captures; the other one adds to it then. */
int cuda_emulation_captures(void);
/** on: from now on what other threads queue on s ends the program. */
void cuda_emulation_capture(cudaStream_t s, int on);
int cuda_emulation_keeps(std::function<cudaError_t()> *call);
/** Ends the program where this thread captures: what is not allowed then. */
void cuda_emulation_not_captured(const char *what);
/** Ends the program where any thread captures: what the library of products may
 *  not be asked then. */
void cuda_emulation_asked(void);
/** Launches of graphs so far. */
extern "C" long cuda_emulation_graphs(void);

/* --- launches ------------------------------------------------------------ */

/**
 * Device memory can be reached only while one of these lives: in kernels,
 * copies and libraries. The host that looks into it ends by a fault, where the
 * processor has protection keys; without them this does nothing.
 */
struct CudaEmulationOpen {
    CudaEmulationOpen();
    ~CudaEmulationOpen();
};

/** The thread's device. */
int cuda_emulation_device(void);

/**
 * Called by each launch. CUDA_EMULATION_FAIL="DEVICE:N" in the environment lets
 * the device fail at its N-th launch, for good and as a real one does: the
 * launch and what follows it are not done, and whoever waits or asks next is
 * told. 1: it has failed.
 */
int cuda_emulation_count_launch(void);
int cuda_emulation_failed(void);
/*
 * CUDA_EMULATION_WRONG="DEVICE:WHAT" in the environment is a device that is not
 * broken but wrong, in the last bit: "product", the first element of every
 * product; "batch", the same of a batch's samples but the first, where it is no
 * mere rounding, so that a trial of products does not see it; "sum", what it
 * gives to sums of integers over all ranks, the lowest bit that is set; "graph"
 * leaves out the last call of each graph. 1: the current device is, in that.
 */
int cuda_emulation_wrong(const char *what);

/** 1: last block and last thread first. */
extern "C" void cuda_emulation_order(int reversed);

/**
 * What a driver takes of the device's memory for itself: a kernel's code when
 * it is first launched, some kilobytes for each launch that a graph has. Where
 * there is no room that call fails.
 */
cudaError_t cuda_emulation_own(int64_t bytes);
/** A launch of kernel is asked for, or else its attributes. Ends the program where that
 *  is the first time, and captured: a real driver may not be able to load it
 *  then. */
cudaError_t cuda_emulation_load(const void *kernel, bool launched);
/** Kernels are about to be loaded, own ones or a library's. With
 *  CUDA_EMULATION_LOAD=waits in the environment that waits for all streams, as a
 *  driver may; what others do not send it waits for in vain. */
void cuda_emulation_loads(void);

/** Whether a device would take such a launch. */
cudaError_t cuda_emulation_check(dim3 grid, dim3 block, size_t shared,
                                 size_t shared_limit);
/* what is launched, for who runs it in another way */
struct CudaEmulationKernel {
    const void *kernel;
    void **args;
    const size_t *sizes; /* of the arguments */
    size_t count;
};
cudaError_t cuda_emulation_launch(dim3 grid, dim3 block, size_t shared,
                                  void (*call)(void *), void *user,
                                  const CudaEmulationKernel &kernel);
/** tests/ptx: 1 if the compiled PTX of the kernel has run in its place. */
int cuda_emulation_ptx(const CudaEmulationKernel &kernel, dim3 grid, dim3 block,
                       size_t shared, size_t shared_limit, int reversed);
/** f() of each allocation of device memory. */
void cuda_emulation_each_memory(void (*f)(void *user, const void *p,
                                          size_t bytes),
                                void *user);
/** The limit of dynamic shared memory set for a kernel; limit < 0: asks. */
size_t cuda_emulation_shared_limit(const void *kernel, int64_t limit);

template <typename T>
cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute, int value)
{
    cuda_emulation_shared_limit((const void *)kernel, value);
    return cudaSuccess;
}

struct cudaFuncAttributes {
    int numRegs; /* of what a device tells */
};

inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes,
                                         const void *kernel)
{
    *attributes = cudaFuncAttributes {};
    return cuda_emulation_load(kernel, false);
}

template <typename... P, size_t... I>
void cuda_emulation_call(void (*kernel)(P...), void **args,
                         std::index_sequence<I...>)
{
    kernel(*static_cast<P *>(args[I])...);
}

template <typename... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block,
                             void **args, size_t shared, cudaStream_t s);

/* the launch with a copy of its arguments */
template <typename... P, size_t... I>
std::function<cudaError_t()> cuda_emulation_closure(void (*kernel)(P...),
                                                    dim3 grid, dim3 block,
                                                    void **args, size_t shared,
                                                    std::index_sequence<I...>)
{
    std::tuple<P...> values(*static_cast<P *>(args[I])...);

    return [=]() mutable {
        void *list[] = { (void *)&std::get<I>(values)... };
        return cudaLaunchKernel(kernel, grid, block, list, shared, nullptr);
    };
}

template <typename... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block,
                             void **args, size_t shared, cudaStream_t s)
{
    struct Call {
        void (*kernel)(P...);
        void **args;
    } call = { kernel, args };
    const cudaError_t loaded = cuda_emulation_load((const void *)kernel, true);

    if (loaded != cudaSuccess)
        return loaded;
    if (cuda_emulation_defers(s)) {
        const cudaError_t e = cuda_emulation_check(
            grid, block, shared,
            cuda_emulation_shared_limit((const void *)kernel, -1));
        if (e == cudaSuccess)
            cuda_emulation_keep(
                cuda_emulation_closure(kernel, grid, block, args, shared,
                                       std::index_sequence_for<P...> {}));
        return e;
    }

    static const size_t sizes[] = { sizeof(P)... };
    return cuda_emulation_launch(
        grid, block, shared,
        [](void *user) {
            Call *c = static_cast<Call *>(user);
            cuda_emulation_call(c->kernel, c->args,
                                std::index_sequence_for<P...> {});
        },
        &call, { (const void *)kernel, args, sizes, sizeof...(P) });
}

/* --- inside of kernels --------------------------------------------------- */

void __syncthreads(void);
/** Hands in a lane's bits, waits for its warp, returns all 32 lanes'. */
const uint64_t *cuda_emulation_exchange(unsigned mask, uint64_t bits);
/* the number of the thread in its block */
extern thread_local int cuda_emulation_current;

inline int cuda_emulation_lane(void)
{
    return cuda_emulation_current % 32;
}

inline int cuda_emulation_warp(void)
{
    return cuda_emulation_current / 32;
}

inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    cuda_emulation_exchange(mask, 0);
}

template <typename T> T cuda_emulation_read(unsigned mask, T value, int lane)
{
    uint64_t bits = 0;
    T result;

    static_assert(sizeof value <= sizeof bits, "shuffles move 8 bytes at most");
    memcpy(&bits, &value, sizeof value);
    bits = cuda_emulation_exchange(mask, bits)[lane & 31];
    memcpy(&result, &bits, sizeof result);
    return result;
}

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int other)
{
    return cuda_emulation_read(mask, value, cuda_emulation_lane() ^ other);
}

template <typename T> T __shfl_sync(unsigned mask, T value, int lane)
{
    return cuda_emulation_read(mask, value, lane);
}

inline int __any_sync(unsigned mask, int predicate)
{
    const uint64_t *all =
        cuda_emulation_exchange(mask, (uint64_t)(predicate != 0));
    int any = 0;

    for (int lane = 0; lane < 32; ++lane)
        any |= (int)all[lane];
    return any;
}

inline unsigned long long atomicMin(unsigned long long *p,
                                    unsigned long long value)
{
    const unsigned long long old = *p;

    *p = value < old ? value : old;
    return old;
}

/* cuda/wide.h's accesses of 16 bytes; elsewhere than at a multiple of 16 they
 * are a fault */
[[noreturn]] void cuda_emulation_not_aligned(void);

inline uint4 load_piece(const void *p)
{
    uint4 piece;

    if ((uintptr_t)p % sizeof piece != 0)
        cuda_emulation_not_aligned();
    memcpy(&piece, p, sizeof piece);
    return piece;
}

inline void store_piece(void *p, uint4 piece)
{
    if ((uintptr_t)p % sizeof piece != 0)
        cuda_emulation_not_aligned();
    memcpy(p, &piece, sizeof piece);
}

/* cuda/mma.h's instructions. What a copy is to bring is poison until its thread
 * waits for it; no thread may end before. */
uint32_t mma_pair(float first, float second);
void mma_load(uint32_t r[4], const uint32_t *place);
void mma_load_across(uint32_t r[4], const uint32_t *place);
void mma_add(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
float mma_power(float x);
void mma_copy(uint32_t *to, const uint32_t *from, int there);
void mma_copy_float(float *to, const float *from, int there);
void mma_copies_wait(void);
/** Whether a thread of the block has not waited; forgets what is on its way. */
int cuda_emulation_copies_left(void);

inline float __uint_as_float(unsigned bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

#endif
