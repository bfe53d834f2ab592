#ifndef DG_CUDA_ENGINE_H
#define DG_CUDA_ENGINE_H
/* What training computes outside of the networks, on the device. */
#include "train/engine.h"

/** The cuda table (static, never freed): twins of the host's, queued on the
 *  calling thread's current stream; exact_add and grad_norm wait. */
const Engine *dg_engine_cuda(void);

#endif
