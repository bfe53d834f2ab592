#ifndef DG_CUDA_GRAD_NORM_H
#define DG_CUDA_GRAD_NORM_H
/*
 * The gradient norm on the device, by the sums of optim/grad_norm.h in their
 * order: the same bits. Arrays are device memory.
 */
#include "optim/grad_norm.h"

/** Twin of dg_grad_norm_chunks(). partial [chunks] f64. Queued on the current
 *  stream. */
void dg_cuda_grad_norm_chunks(double *partial, const float *grad, int64_t num);

/**
 * Twin of dg_grad_norm(). Waits.
 * norm     out, host
 * scratch  [dg_grad_norm_num_chunks(num)] f64, device
 * Errors: DG_EDEVICE; *norm is then untouched.
 */
int dg_cuda_grad_norm(double *norm, const float *grad, int64_t num,
                      double *scratch);

#endif
