#ifndef DG_CPU_CPU_H
#define DG_CPU_CPU_H
/* The kernels on the host's processor: tensor/backend.h's table. */
#include "tensor/backend.h"

/**
 * The cpu table (static, never freed). Every kernel runs on the calling
 * thread alone; threads may call at the same time on their own data.
 * Not collective. No errors.
 */
const Backend *dg_backend_cpu(void);

#endif
