#ifndef DG_CPU_SGEMM_H
#define DG_CPU_SGEMM_H
/*
 * The one place that calls the library's matrix product. Always on the
 * calling thread alone: a team would split k and change the bits. Internal
 * to src/cpu.
 */
#include "tensor/backend.h"

/** rows_per_sample is not looked at. Nothing is done for m or n of 0. */
void dg_cpu_sgemm(const GemmArgs *g);

/** t[16,16] = w[16,16]^T, pitches ld_t, ld_w. */
void dg_cpu_transpose16(float *t, int64_t ld_t, const float *w, int64_t ld_w);

#endif
