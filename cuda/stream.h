#ifndef DG_CUDA_STREAM_H
#define DG_CUDA_STREAM_H
/*
 * What runs on the current stream, and how. Every launch of cuda/ goes
 * through DG_LAUNCH, every call of a library through stream.cu or gemm.cu.
 * Internal to cuda.
 */
#include <cuda_runtime.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include <tuple>

extern "C" {
#include "base/error.h"
#include "cuda/cuda.h"
}

enum {
    DG_WORKSPACE_FLOATS = 4 << 20, /* of a stream; for partial sums */
    DG_STAGING_BYTES = 8 << 20,
    /* where steps are replayed: of what moves, on devices of 4 GiB or more three
     * conditions of FLUX.1, and of what the host hands up */
    DG_MOVED_BYTES = 8 << 20,
    DG_MOVED_BYTES_LARGE = 32 << 20,
    DG_PACK_BYTES = 8 << 20,
    /* Of the device, by another stream: these, and its result, for which the
     * driver takes some of its pages. */
    DG_SIDE_BYTES = DG_WORKSPACE_FLOATS * (int)sizeof(float) +
                    DG_MOVED_BYTES_LARGE + DG_PACK_BYTES + (2 << 20),
    /* What the plan leaves to the driver. A kernel's code goes to the device when
     * it is first launched, own ones and the library's, with what its stack needs;
     * graphs take some kilobytes a launch, and stop at half of this. */
    DG_LATER_BYTES = 512 << 20,
    DG_SHARED_PLAIN = 48 * 1024 /* bytes a block gets without asking */
};

struct GemmCache;
struct CudaLink;
struct GraphCache;
struct StreamCudnn;
struct AttentionLibrary;
struct ConvLibrary;

/* what becomes of launches: they are queued, noted only, or both into a graph */
typedef enum StreamMode {
    DG_STREAM_RUNS,
    DG_STREAM_WALKS,
    DG_STREAM_CAPTURES
} StreamMode;

struct CudaStream {
    int device;
    cudaStream_t stream;
    cudaEvent_t after;      /* what another stream has to do first */
    cudaEvent_t half[2];    /* that half of the pinned memory has been filled */
    struct GemmCache *gemm; /* library handle and algorithms, gemm.cu */
    struct CudaLink *link;  /* to the other ranks' streams, comm.cu; or NULL */
    struct GraphCache *graphs; /* of replayed steps, graph.cu; or NULL */
    struct StreamCudnn *cudnn; /* cudnn_stream.cu; or NULL, and so below */
    struct AttentionLibrary *attention; /* attention_cudnn.cu */
    struct ConvLibrary *conv;           /* conv_cudnn.cu */
    StreamMode mode;
    /* held while a step is captured: until then no other thread may make the
     * stream wait (dg_cuda_side_after()), which would spoil the capture */
    pthread_mutex_t captures;
    float *workspace; /* [DG_WORKSPACE_FLOATS], device */
    int64_t *result;  /* one number, device; and where it arrives */
    int64_t *result_host;
    char *staging; /* [DG_STAGING_BYTES], pinned, */
    size_t staged; /* of which so many may be on their way up */
    int failed;
    char text[200]; /* of the first failure */
};

/** The calling thread's current stream; panics without one. */
CudaStream *dg_cuda_current(void);

/** Keeps the first failure; what: kernel or call. */
void dg_cuda_note(cudaError_t e, const char *what);
void dg_cuda_note_text(const char *what, const char *why);

/** Bytes of shared memory a block of the current stream's device may ask for. */
size_t dg_cuda_shared_most(void);

/** The stream's result number, after waiting; fallback if that failed. */
int64_t dg_cuda_result(CudaStream *s, int64_t fallback);

/** What lies at device memory of whole words, as one number; another for other
 *  contents, but for chance. Waits; takes the stream's result and the workspace's
 *  first 8 KB. Not within a step that is replayed. */
uint64_t dg_cuda_digest(const void *at, size_t bytes);

/**
 * While a step is captured the library is asked nothing about algorithms: of
 * CUDA 13.3 it then answers with an internal error, to the thread that captures
 * at least. Held by whoever captures, and by whoever asks.
 */
void dg_cuda_library_hold(void);
void dg_cuda_library_release(void);

/**
 * What what() queues on the stream becomes a graph, and is not run; no other
 * thread's captures or questions to a library meanwhile.
 * *graph  out: to be destroyed; NULL on error
 */
cudaError_t dg_cuda_capture(CudaStream *s, cudaGraph_t *graph,
                            void (*what)(void *), void *user);

int dg_cuda_gemm_cache_create(struct GemmCache **out, int device);
void dg_cuda_gemm_cache_destroy(struct GemmCache *c);
/** Whether DANCEGRPO_PRODUCTS wants own kernels in the library's place: "own", or
 *  "library". Errors: DG_EINVAL. */
int dg_cuda_products_own(int *own);

/** Before the host waits for a stream, or where there is one for an event on it:
 *  it may wait for other ranks. */
void dg_cuda_link_wait(CudaStream *s, cudaEvent_t event);

/** Before a launch, or a library's call: where it is queued the host is never as far
 *  ahead of the device that the launch itself would wait. */
void dg_cuda_link_launches(CudaStream *s);

/**
 * Before a library may bring code to the device that was not there: the driver may
 * wait then for all that runs, on this device, where nobody could tell it that
 * another rank has failed. Nothing of the link's is on its way afterwards.
 */
void dg_cuda_link_quiet(CudaStream *s);

/**
 * The same of all own kernels, before ranks wait for each other on devices: their
 * code is brought to the current stream's. Errors: DG_ENOMEM, DG_EDEVICE.
 */
int dg_cuda_load_kernels(void);

/** NULL is allowed. */
void dg_cuda_link_destroy(struct CudaLink *link);
void dg_cuda_graphs_destroy(struct GraphCache *g);
void dg_cuda_cudnn_close(struct StreamCudnn *c);
void dg_cuda_attention_close(struct AttentionLibrary *a);
void dg_cuda_conv_close(struct ConvLibrary *l);

/** dg_cuda_attention_library(); back: with room for a way back. */
int dg_cuda_attention_open(CudaStream *s, int back);

/**
 * What is about to be queued, for a step's signature: kernel and arguments.
 * Returns 1 where the step is walked only: it is not to be queued.
 */
int dg_cuda_walks(CudaStream *s, const void *what, size_t bytes);

/** A copy upward within a step that does not run at once. */
void dg_cuda_pack(CudaStream *s, void *device, const void *host, size_t bytes);

/* What lies between members is whatever was there before: no argument, though
 * a signature would see it. Older compilers leave it, and steps that are alike
 * may then not look it. */
template <typename T> void dg_cuda_clear_between(T *value)
{
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(value);
#endif
#endif
    (void)value;
}

/* dg_cuda_walks() of a launch */
template <typename... P>
int dg_cuda_launch_walks(CudaStream *s, void (*kernel)(P...), dim3 grid,
                         dim3 block, size_t shared, std::tuple<P...> &values)
{
    const uint64_t sizes[] = { (uint64_t)(uintptr_t)kernel,
                               grid.x,
                               grid.y,
                               grid.z,
                               block.x,
                               block.y,
                               block.z,
                               shared };
    int walks = dg_cuda_walks(s, sizes, sizeof sizes);

    std::apply(
        [&](auto &...v) {
            (dg_cuda_clear_between(&v), ...);
            ((walks = dg_cuda_walks(s, &v, sizeof v)), ...);
        },
        values);
    return walks;
}

/* A grid with a dim of 0 is no work. Arguments are converted to the kernel's
 * parameters as in a call. */
template <typename... P, typename... A>
void dg_cuda_launch(const char *name, void (*kernel)(P...), dim3 grid,
                    dim3 block, size_t shared, const A &...args)
{
    std::tuple<P...> values(args...);
    CudaStream *s = dg_cuda_current();

    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return;
    if (s->mode != DG_STREAM_RUNS &&
        dg_cuda_launch_walks(s, kernel, grid, block, shared, values))
        return;
    dg_cuda_link_launches(s);
    if (shared > DG_SHARED_PLAIN)
        dg_cuda_note(cudaFuncSetAttribute(
                         kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)shared),
                     name);
    std::apply(
        [&](auto &...v) {
            void *list[] = { (void *)&v... };
            dg_cuda_note(
                cudaLaunchKernel(kernel, grid, block, list, shared, s->stream),
                name);
        },
        values);
}

/* A kernel that the program launches somewhere: all are listed before main(). */
struct ListedKernel {
    explicit ListedKernel(const void *kernel);
    const void *kernel;
    const ListedKernel *next;
};
template <auto kernel> struct Listed {
    static ListedKernel here;
};
template <auto kernel> ListedKernel Listed<kernel>::here((const void *)kernel);

template <auto kernel> auto dg_cuda_listed(void)
{
    (void)&Listed<kernel>::here;
    return kernel;
}

/** DG_LAUNCH(kernel, grid, block, bytes of shared memory, arguments ...) */
#define DG_LAUNCH(kernel, grid, block, shared, ...)                        \
    dg_cuda_launch(#kernel, dg_cuda_listed<kernel>(), grid, block, shared, \
                   __VA_ARGS__)

/* Tests take less, so that what is small has several grids. */
#ifndef DG_MOST_BLOCKS
#define DG_MOST_BLOCKS (1 << 20)
#endif
#ifndef DG_MOST_SIDE /* what a grid has in y and in z */
#define DG_MOST_SIDE 65535
#endif

/** Blocks of 'threads' that cover count elements once; at most DG_MOST_BLOCKS,
 *  kernels go on by the whole grid. */
static inline dim3 dg_blocks(int64_t count, int threads)
{
    const int64_t blocks = (count + threads - 1) / threads;

    return dim3((unsigned)(blocks < DG_MOST_BLOCKS ? blocks : DG_MOST_BLOCKS));
}

/** The same in y or z of a grid. */
static inline unsigned dg_side(int64_t blocks)
{
    return (unsigned)(blocks < DG_MOST_SIDE ? blocks : DG_MOST_SIDE);
}

#endif
