#ifndef DG_CUDA_OBJECTIVE_H
#define DG_CUDA_OBJECTIVE_H
/* The gradient seed on the device. */
#include "grpo/objective.h"

/**
 * d loss / d u of a term, policy and KL part in one pass.
 * grad_u and x's arrays: device memory, [D] f32
 * Queued on the current stream. Twin of dg_objective_seed(), same bits.
 */
void dg_cuda_objective_seed(float *grad_u, const ObjectiveTerm *term,
                            const SdeStep *s, const ObjectiveTensors *x,
                            int64_t D);

#endif
