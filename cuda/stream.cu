#include "stream.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static thread_local CudaStream *current;
static const ListedKernel *kernels; /* the last of them, before main() */
static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

void dg_cuda_library_hold(void)
{
    pthread_mutex_lock(&library);
}

void dg_cuda_library_release(void)
{
    pthread_mutex_unlock(&library);
}

cudaError_t dg_cuda_capture(CudaStream *s, cudaGraph_t *graph,
                            void (*what)(void *), void *user)
{
    *graph = NULL;
    pthread_mutex_lock(&s->captures);
    dg_cuda_library_hold();
    cudaError_t e =
        cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal);
    if (e == cudaSuccess) {
        what(user);
        e = cudaStreamEndCapture(s->stream, graph);
    }
    dg_cuda_library_release();
    pthread_mutex_unlock(&s->captures);
    return e;
}

CudaStream *dg_cuda_current(void)
{
    if (current == NULL)
        dg_panic("no CUDA stream in use: dg_cuda_use() comes first");
    return current;
}

void dg_cuda_note_text(const char *what, const char *why)
{
    CudaStream *s = dg_cuda_current();

    if (s->failed)
        return;
    s->failed = 1;
    snprintf(s->text, sizeof s->text, "%s: %s", what, why);
}

void dg_cuda_note(cudaError_t e, const char *what)
{
    if (e != cudaSuccess)
        dg_cuda_note_text(what, cudaGetErrorString(e));
}

/* Nobody may wait while a step is walked or captured. */
static CudaStream *must_run(CudaStream *s)
{
    if (s->mode != DG_STREAM_RUNS)
        dg_panic("a wait or a copy within a step that is replayed");
    return s;
}

size_t dg_cuda_shared_most(void)
{
    int bytes = 0;
    const cudaError_t e =
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                               dg_cuda_current()->device);

    dg_cuda_note(e, "asking for shared memory");
    return bytes > DG_SHARED_PLAIN ? (size_t)bytes : (size_t)DG_SHARED_PLAIN;
}

int64_t dg_cuda_result(CudaStream *s, int64_t fallback)
{
    must_run(s);
    dg_cuda_link_wait(s, NULL);
    *s->result_host = fallback;
    dg_cuda_note(cudaMemcpyAsync(s->result_host, s->result,
                                 sizeof *s->result_host, cudaMemcpyDeviceToHost,
                                 s->stream),
                 "copy of a result");
    const cudaError_t e = cudaStreamSynchronize(s->stream);
    dg_cuda_note(e, "wait for a result");
    return e == cudaSuccess ? *s->result_host : fallback;
}

/* The runtime remembers an error until it is asked, and so do libraries that look
 * for their own: one that the program may go on from has to be forgotten. */
static int device_error(cudaError_t e, const char *what)
{
    cudaGetLastError();
    return dg_fail(e == cudaErrorMemoryAllocation ? DG_ENOMEM : DG_EDEVICE,
                   "CUDA: %s: %s", what, cudaGetErrorString(e));
}

/* No driver, or one of an older CUDA than the program's: 13.0 is 13000 */
static int driver_error(void)
{
    int has = 0, needs = 0;

    cudaDriverGetVersion(&has);
    cudaRuntimeGetVersion(&needs);
    if (has == 0)
        return dg_fail(DG_EDEVICE, "CUDA: no NVIDIA driver is installed");
    return dg_fail(DG_EDEVICE,
                   "CUDA: the driver is too old: it knows CUDA %d.%d, this "
                   "program was built with %d.%d; a newer driver is needed, "
                   "or a program built with the driver's CUDA",
                   has / 1000, has % 1000 / 10, needs / 1000,
                   needs % 1000 / 10);
}

extern "C" int dg_cuda_device_count(int *count)
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);

    if (e != cudaSuccess) {
        cudaGetLastError();
        if (e == cudaErrorInsufficientDriver)
            return driver_error();
        return device_error(e, "looking for GPUs");
    }
    if (n < 1)
        return dg_fail(DG_EDEVICE, "CUDA: no GPU is visible");
    *count = n;
    return DG_OK;
}

extern "C" int dg_cuda_device(CudaDevice *out, int device)
{
    cudaDeviceProp p;
    const cudaError_t e = cudaGetDeviceProperties(&p, device);

    *out = CudaDevice {};
    if (e != cudaSuccess)
        return device_error(e, "asking which GPU it is");
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    memcpy(out->uuid, p.uuid.bytes, sizeof out->uuid);
    out->bus[0] = p.pciDomainID;
    out->bus[1] = p.pciBusID;
    out->bus[2] = p.pciDeviceID;
    return DG_OK;
}

extern "C" int dg_cuda_arithmetic(char *text, size_t bytes, int device)
{
    const size_t library = cublasLtGetVersion();
    cudaDeviceProp p;
    int own;
    const int err = dg_cuda_products_own(&own);
    const cudaError_t e = cudaGetDeviceProperties(&p, device);

    if (err)
        return err;
    if (e != cudaSuccess)
        return device_error(e, "asking which GPU it is");
    snprintf(
        text, bytes,
        "GPU: %s, sm_%d%d, %d processors; CUDA %d.%d, cuBLASLt %zu.%zu.%zu%s",
        p.name, p.major, p.minor, p.multiProcessorCount, CUDART_VERSION / 1000,
        CUDART_VERSION % 1000 / 10, library / 10000, library / 100 % 100,
        library % 100, own ? ", but own products" : "");
    return DG_OK;
}

/* --- kernels ---------------------------------------------------------------- */

ListedKernel::ListedKernel(const void *kernel) : kernel(kernel), next(kernels)
{
    kernels = this;
}

int dg_cuda_load_kernels(void)
{
    cudaFuncAttributes unused;
    cudaError_t e = cudaSuccess;

    for (const ListedKernel *k = kernels; k != NULL && e == cudaSuccess;
         k = k->next)
        e = cudaFuncGetAttributes(&unused, k->kernel);
    return e == cudaSuccess ? DG_OK : device_error(e, "kernels' code");
}

/* --- streams ---------------------------------------------------------------- */

/* what the device gives to a stream; freed by the caller on failure */
static cudaError_t stream_reserve(CudaStream *s)
{
    const size_t bytes = DG_WORKSPACE_FLOATS * sizeof(float);
    cudaError_t e = cudaSetDevice(s->device);

    if (e == cudaSuccess)
        e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&s->after, cudaEventDisableTiming);
    for (int i = 0; i < 2 && e == cudaSuccess; ++i)
        e = cudaEventCreateWithFlags(&s->half[i], cudaEventDisableTiming);
    if (e == cudaSuccess)
        e = cudaMalloc((void **)&s->workspace, bytes);
    if (e == cudaSuccess)
        e = cudaMalloc((void **)&s->result, sizeof *s->result);
    if (e == cudaSuccess)
        e = cudaMallocHost((void **)&s->result_host, sizeof *s->result_host);
    if (e == cudaSuccess)
        e = cudaMallocHost((void **)&s->staging, DG_STAGING_BYTES);
    return e;
}

extern "C" int dg_cuda_stream_create(CudaStream **out, int device)
{
    CudaStream *s = (CudaStream *)calloc(1, sizeof *s);
    int err;

    if (s == NULL)
        return dg_fail(DG_ENOMEM, "CUDA stream");
    s->device = device;
    pthread_mutex_init(&s->captures, NULL);
    const cudaError_t e = stream_reserve(s);
    err = e == cudaSuccess ? dg_cuda_gemm_cache_create(&s->gemm, device)
                           : device_error(e, "a stream and its workspace");
    if (err) {
        dg_cuda_stream_destroy(s);
        return err;
    }
    *out = s;
    return DG_OK;
}

extern "C" void dg_cuda_stream_destroy(CudaStream *s)
{
    if (s == NULL)
        return;
    if (current == s)
        current = NULL;
    cudaSetDevice(s->device);
    if (s->stream != NULL)
        cudaStreamSynchronize(s->stream);
    dg_cuda_link_destroy(s->link);
    dg_cuda_graphs_destroy(s->graphs);
    dg_cuda_attention_close(s->attention);
    dg_cuda_conv_close(s->conv);
    dg_cuda_cudnn_close(s->cudnn);
    dg_cuda_gemm_cache_destroy(s->gemm);
    cudaFreeHost(s->staging);
    cudaFreeHost(s->result_host);
    cudaFree(s->result);
    cudaFree(s->workspace);
    if (s->after != NULL)
        cudaEventDestroy(s->after);
    for (int i = 0; i < 2; ++i)
        if (s->half[i] != NULL)
            cudaEventDestroy(s->half[i]);
    if (s->stream != NULL)
        cudaStreamDestroy(s->stream);
    pthread_mutex_destroy(&s->captures);
    free(s);
}

extern "C" void dg_cuda_use(CudaStream *s)
{
    current = s;
    if (s != NULL)
        dg_cuda_note(cudaSetDevice(s->device), "choosing the device");
}

extern "C" int dg_cuda_wait(void)
{
    CudaStream *s = must_run(dg_cuda_current());

    dg_cuda_link_wait(s, NULL);
    dg_cuda_note(cudaStreamSynchronize(s->stream), "waiting for the device");
    if (!s->failed)
        return DG_OK;
    s->failed = 0;
    return dg_fail(DG_EDEVICE, "CUDA: %s", s->text);
}

extern "C" int dg_cuda_alloc(void **out, size_t bytes)
{
    dg_cuda_current();
    *out = NULL;
    const cudaError_t e = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (e == cudaSuccess)
        return DG_OK;
    cudaGetLastError();
    *out = NULL;
    return dg_fail(DG_ENOMEM, "CUDA: %zu bytes of device memory: %s", bytes,
                   cudaGetErrorString(e));
}

extern "C" int dg_cuda_room(size_t *unused, size_t *all)
{
    const cudaError_t e = cudaMemGetInfo(unused, all);

    return e == cudaSuccess ? DG_OK : device_error(e, "asking for free memory");
}

extern "C" void dg_cuda_free(void *p)
{
    if (p != NULL)
        dg_cuda_note(cudaFree(p), "freeing device memory");
}

extern "C" void dg_cuda_upload(void *device, const void *host, size_t bytes)
{
    dg_cuda_note(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                                 must_run(dg_cuda_current())->stream),
                 "copy to the device");
}

/* A copy to memory that is not pinned waits, but not on every machine. */
extern "C" void dg_cuda_download(void *host, const void *device, size_t bytes)
{
    CudaStream *s = must_run(dg_cuda_current());

    dg_cuda_link_wait(s, NULL);
    dg_cuda_note(
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s->stream),
        "copy from the device");
}

extern "C" int dg_cuda_take(void **out, size_t bytes)
{
    const int err = dg_cuda_alloc(out, bytes);

    if (!err)
        dg_cuda_note(cudaMemsetAsync(*out, 0, bytes, dg_cuda_current()->stream),
                     "clearing memory");
    return err;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

extern "C" void dg_cuda_stage_up(void *device, const void *host, size_t bytes)
{
    CudaStream *s = dg_cuda_current();

    if (s->mode != DG_STREAM_RUNS) {
        dg_cuda_pack(s, device, host, bytes);
        return;
    }
    for (size_t at = 0; at < bytes;) {
        if (s->staged == DG_STAGING_BYTES) {
            dg_cuda_link_wait(s, NULL);
            dg_cuda_note(cudaStreamSynchronize(s->stream),
                         "waiting for copies");
            s->staged = 0;
        }
        const size_t n = least(bytes - at, DG_STAGING_BYTES - s->staged);
        memcpy(s->staging + s->staged, (const char *)host + at, n);
        dg_cuda_upload((char *)device + at, s->staging + s->staged, n);
        s->staged += n;
        at += n;
    }
}

/* Copies upward that are still on their way read the pinned memory before
 * these copies, queued behind them, write it. */
extern "C" int dg_cuda_stage_down(void *host, const void *device, size_t bytes)
{
    CudaStream *s = dg_cuda_current();
    int err = DG_OK;

    for (size_t at = 0; at < bytes && !err;) {
        const size_t n = least(bytes - at, DG_STAGING_BYTES);
        dg_cuda_download(s->staging, (const char *)device + at, n);
        err = dg_cuda_wait();
        s->staged = 0;
        if (!err)
            memcpy((char *)host + at, s->staging, n);
        at += n;
    }
    return err;
}

/* the i-th part on its way to its half */
static void drain_part(CudaStream *s, const void *device, size_t bytes,
                       size_t i)
{
    const size_t half = DG_STAGING_BYTES / 2, at = i * half;

    if (at >= bytes)
        return;
    dg_cuda_download(s->staging + i % 2 * half, (const char *)device + at,
                     least(bytes - at, half));
    dg_cuda_note(cudaEventRecord(s->half[i % 2], s->stream), "copy of a part");
}

extern "C" int dg_cuda_drain(const void *device, size_t bytes, DrainFn take,
                             void *user)
{
    CudaStream *s = must_run(dg_cuda_current());
    const size_t half = DG_STAGING_BYTES / 2;
    int err = DG_OK;

    drain_part(s, device, bytes, 0);
    for (size_t i = 0, at = 0; at < bytes && !err; ++i, at += half) {
        drain_part(s, device, bytes, i + 1);
        dg_cuda_note(cudaEventSynchronize(s->half[i % 2]),
                     "waiting for a part");
        if (!s->failed)
            err = take(user, s->staging + i % 2 * half, at,
                       least(bytes - at, half));
        else
            err = dg_cuda_wait();
    }
    s->staged = 0; /* copies upward came before the first part */
    const int last = dg_cuda_wait(); /* none is on its way after an error */
    return err ? err : last;
}

/* Steps are replayed there where they are here, and attention is the same. */
extern "C" int dg_cuda_side_new(void **out)
{
    const CudaStream *here = dg_cuda_current();
    CudaStream *side = NULL;
    int err = dg_cuda_stream_create(&side, here->device);

    if (!err && here->graphs != NULL)
        err = dg_cuda_replays(side);
    if (!err && here->attention != NULL)
        err = dg_cuda_attention_open(side, 0);
    if (!err)
        *out = side;
    else
        dg_cuda_stream_destroy(side);
    return err;
}

extern "C" void dg_cuda_side_free(void *side)
{
    dg_cuda_stream_destroy((CudaStream *)side);
}

extern "C" void *dg_cuda_side_use(void *side)
{
    CudaStream *before = current;

    dg_cuda_use((CudaStream *)side);
    return before;
}

extern "C" void dg_cuda_side_after(void *side)
{
    CudaStream *s = (CudaStream *)side;

    dg_cuda_note(cudaEventRecord(s->after, dg_cuda_current()->stream),
                 "what another stream waits for");
    pthread_mutex_lock(&s->captures);
    dg_cuda_note(cudaStreamWaitEvent(s->stream, s->after, 0),
                 "a wait for another stream");
    pthread_mutex_unlock(&s->captures);
}
