#ifndef DG_CPU_CPU_H
#define DG_CPU_CPU_H
/* The kernels on the host's processor: tensor/backend.h's table. */
#include "tensor/backend.h"

#include <stddef.h>

/**
 * The cpu table (static, never freed). Every kernel runs on the calling
 * thread alone; threads may call at the same time on their own data.
 * Not collective. No errors.
 */
const Backend *dg_backend_cpu(void);

/**
 * What the bits of these kernels depend on besides the program's text: compiler
 * and library, and the width of vectors that each uses. Where the texts of two
 * machines are equal, so are their bits.
 * text  [bytes] out, one line, cut where it is longer
 * Not collective. No errors.
 */
void dg_cpu_arithmetic(char *text, size_t bytes);

#endif
