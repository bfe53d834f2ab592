#ifndef DG_CUDA_CUDA_H
#define DG_CUDA_CUDA_H
/*
 * The kernels on an NVIDIA GPU: tensor/backend.h's table, and what it runs
 * on. All data pointers of the table's arguments are device memory, ids of
 * an embedding too.
 *
 * The table's functions have no argument for a stream. Each thread has a
 * *current* stream instead, set by dg_cuda_use(); every kernel and every
 * function of include/cuda is queued there, in order. A stream is used by one
 * thread at a time. Calls return before the device is done, except where a
 * contract says "waits".
 *
 * Kernels do not fail in the caller's sight: the first failure is kept by the
 * stream, later work is still queued, and dg_cuda_wait() reports it.
 */
#include "tensor/backend.h"

#include <stddef.h>
#include <stdint.h>

typedef struct CudaStream CudaStream;

/**
 * The cuda table (static, never freed). Kernels run on the calling thread's
 * current stream; without one they panic. first_nonfinite waits. None needs
 * scratch: attention_scratch is 0.
 * Not collective. No errors.
 */
const Backend *dg_backend_cuda(void);

/** GPUs of this process. Errors: DG_EDEVICE without driver or GPU. */
int dg_cuda_device_count(int *count);

/** Which GPU a device of this process is: processes may number them otherwise,
 *  or see one each, where a scheduler hands them out (CUDA_VISIBLE_DEVICES). */
typedef struct CudaDevice {
    char name[64];
    uint8_t uuid[16]; /* of a part of a GPU (MIG): that part's own */
    int32_t bus[3];   /* PCI domain, bus, device; one GPU's parts share them */
} CudaDevice;

/** device  0 <= device < dg_cuda_device_count(). Errors: DG_EDEVICE. */
int dg_cuda_device(CudaDevice *out, int device);

/** dg_cpu_arithmetic() of a GPU: its model, for which the library chooses, and
 *  libraries. text [bytes] out. Errors: DG_EDEVICE. */
int dg_cuda_arithmetic(char *text, size_t bytes, int device);

/**
 * A stream of work on a device, with its library handle and a workspace of
 * fixed size: kernels allocate nothing. All streams of a device share 64 MB in
 * which the library's products are tried (cuda/gemm_trial.h).
 * device  0 <= device < dg_cuda_device_count()
 * Not collective. Errors: DG_EDEVICE, DG_ENOMEM.
 */
int dg_cuda_stream_create(CudaStream **out, int device);
/** From now on its steps are replayed as CUDA graphs, to the same bits, and so
 *  are those of its side streams. Errors: DG_ENOMEM for 16 MB. */
int dg_cuda_replays(CudaStream *s);
/** Waits, then frees; NULL is allowed. No thread may use it any more. */
void dg_cuda_stream_destroy(CudaStream *s);

/** Makes s (borrowed) the calling thread's current stream and its device the
 *  thread's device; NULL: none. */
void dg_cuda_use(CudaStream *s);

/**
 * Waits until all that was queued on the current stream is done.
 * Errors: DG_EDEVICE, naming the first kernel or call that failed since the
 * last wait; the record is then cleared.
 */
int dg_cuda_wait(void);

/** Device memory, 256-byte aligned, contents undefined, on the current
 *  stream's device. Errors: DG_ENOMEM; *out is then NULL. */
int dg_cuda_alloc(void **out, size_t bytes);
/** Bytes of the current stream's device that nobody has taken, and all of
 *  its bytes. Errors: DG_EDEVICE. */
int dg_cuda_room(size_t *unused, size_t *all);
/** NULL is allowed. Waits for the device. */
void dg_cuda_free(void *p);

/** Queued copies; the host's side may be used again after dg_cuda_wait(). */
void dg_cuda_upload(void *device, const void *host, size_t bytes);
void dg_cuda_download(void *host, const void *device, size_t bytes);

/** The table's copies: through the stream's pinned memory, so that any host
 *  memory will do. Upward the host's side may be written again at once;
 *  downward waits. Errors: as dg_cuda_wait(). */
void dg_cuda_stage_up(void *device, const void *host, size_t bytes);
int dg_cuda_stage_down(void *host, const void *device, size_t bytes);

/** The table's drain(), by the two halves of the pinned memory in turn. Errors:
 *  as dg_cuda_wait(); take()'s. */
int dg_cuda_drain(const void *device, size_t bytes, DrainFn take, void *user);

/** The table's side streams: dg_cuda_stream_create() on the current stream's
 *  device, and so on. */
int dg_cuda_side_new(void **out);
void dg_cuda_side_free(void *side);
void *dg_cuda_side_use(void *side);
void dg_cuda_side_after(void *side);

/** dg_cuda_alloc(), zeroed. */
int dg_cuda_take(void **out, size_t bytes);

#endif
