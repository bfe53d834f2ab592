#ifndef DG_CPU_KERNELS_H
#define DG_CPU_KERNELS_H
/* The entries of the cpu table, one file per family; contracts stand with
 * the argument structs in tensor/backend.h. Internal to src/cpu. */
#include "tensor/backend.h"

size_t dg_cpu_attention_scratch(int64_t sq, int64_t sk, int64_t d,
                                int backward);
size_t dg_cpu_conv_scratch(const ConvArgs *a);
size_t dg_cpu_group_norm_scratch(int64_t width);

/** dg_cpu_gemm() and so on. */
#define DG_CPU_KERNEL(name, Args) void dg_cpu_##name(const Args *a);
DG_KERNELS(DG_CPU_KERNEL)

/** sums[width] += the rows of x [rows, width], in order of blocks of rows. */
void dg_cpu_add_columns(float *sums, const float *x, int64_t rows,
                        int64_t width);

void dg_cpu_add(float *y, const float *a, const float *b, int64_t count);
void dg_cpu_scale(float *y, const float *x, float alpha, int64_t count);
void dg_cpu_fill(float *y, float value, int64_t count);
int64_t dg_cpu_first_nonfinite(const float *x, int64_t count);

#endif
