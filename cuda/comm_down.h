#ifndef DG_CUDA_COMM_DOWN_H
#define DG_CUDA_COMM_DOWN_H
/*
 * Sums between GPUs that are the host's at last: what a stream has made goes
 * down to pinned memory, half after half, and is added there by a thread of the
 * driver. Whoever queues it does not wait. Internal to cuda.
 */
#include <cuda_runtime.h>

struct CudaDown;
struct ExactSend; /* of cuda/comm.h */

/** On the current device. Errors: DG_ENOMEM, DG_EDEVICE. */
int dg_cuda_down_create(struct CudaDown **out);

/** NULL is allowed. What is on its way arrives first, or is not added. */
void dg_cuda_down_destroy(struct CudaDown *d);

/** From now on nothing is added: neither sums nor who adds need be there. */
void dg_cuda_down_drop(struct CudaDown *d);

/** The two ways; all has been added when both have done what is queued. */
cudaStream_t dg_cuda_down_way(const struct CudaDown *d, int i);

/** 1 while one of them, *full, has to be waited for before more is queued. */
int dg_cuda_down_full(const struct CudaDown *d, int *full);

/**
 * x->part, device, comes down once 'side' has made it and is added to x->into;
 * 'side' goes on when it has left the device. Not where
 * dg_cuda_down_full().
 */
void dg_cuda_down_queue(struct CudaDown *d, cudaStream_t side,
                        const struct ExactSend *x);

#endif
