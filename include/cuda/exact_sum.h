#ifndef DG_CUDA_EXACT_SUM_H
#define DG_CUDA_EXACT_SUM_H
/*
 * Sums of gradients that do not depend on order, on the device: twins of
 * parallel/exact_sum.h with the same bits. The buffer of an ExactSum and the
 * gradients are device memory; the struct itself stays on the host.
 * Queued on the current stream. Not collective.
 */
#include "parallel/exact_sum.h"

/** Twin of dg_exact_init(): buffer has dg_exact_bytes() on the device. */
int dg_cuda_exact_init(ExactSum *s, void *buffer, int64_t num, int exact,
                       int scale_bits, int64_t max_items);

/** Back to zero. */
void dg_cuda_exact_clear(ExactSum *s);

/**
 * Adds one item's gradient g [num] f32. Waits.
 * bad  out, may be NULL: index of the first element not allowed, else -1
 * Errors: as dg_exact_add(), the sum being untouched then; DG_EDEVICE.
 */
int dg_cuda_exact_add(ExactSum *s, const float *g, int64_t *bad);

/** Twin of dg_exact_check(). Waits. */
int dg_cuda_exact_check(const ExactSum *s, const float *g, int64_t *bad);

/** into += from. Errors: as dg_exact_merge(). */
int dg_cuda_exact_merge(ExactSum *into, const ExactSum *from);

/**
 * Twin of dg_exact_allreduce(), from GPU to GPU. Waits. Collective.
 * done  out: 0 where the ranks' streams are not joined (cuda/comm.h); nothing
 *       was done then
 * Errors: as dg_exact_allreduce(); DG_EDEVICE, agreed.
 */
int dg_cuda_exact_allreduce(const Comm *c, ExactSum *s, int *done);

/** Twin of dg_exact_sum_to(), in the same way. */
int dg_cuda_exact_sum_to(const Comm *c, ExactSum *s, int root, int *done);

/** Starts the sum of a part over all ranks beside the kernels (cuda/comm.h),
 *  once what was queued so far is done. Errors: DG_EDEVICE. */
int dg_cuda_exact_send(const Comm *c, const ExactSend *what);
/** Adds elements first .. of a gradient to a part of a sum; what is not
 *  allowed is left out, and the first such index noted in *bad, device, if
 *  that is less, as unsigned. Items are not counted. */
void dg_cuda_exact_add_part(ExactSum *part, const float *g, int64_t first,
                            int64_t *bad);

/** out [num] f32 = sum / divisor. Twin of dg_exact_read(). */
void dg_cuda_exact_read(const ExactSum *s, float *out, double divisor);

#endif
