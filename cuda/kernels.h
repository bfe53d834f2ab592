#ifndef DG_CUDA_KERNELS_H
#define DG_CUDA_KERNELS_H
/* The entries of the cuda tables, twins of src/cpu/kernels.h; contracts stand
 * with the argument structs in tensor/backend.h. T is how stored values are
 * stored, see device.h. Internal to cuda. */
#include "device.h"

/** What a file of kernels ends with, for each of its entries. */
#define DG_BOTH(entry, Args)                   \
    template void entry<float>(const Args *a); \
    template void entry<__nv_bfloat16>(const Args *a);

/** dg_cuda_gemm<T>() and so on. */
#define DG_CUDA_KERNEL(name, Args) \
    template <typename T> void dg_cuda_##name(const Args *a);
DG_KERNELS(DG_CUDA_KERNEL)

size_t dg_cuda_attention_scratch(int64_t sq, int64_t sk, int64_t d,
                                 int backward);
size_t dg_cuda_conv_scratch(const ConvArgs *a);
size_t dg_cuda_group_norm_scratch(int64_t width);

template <typename T>
void dg_cuda_add(float *y, const float *a, const float *b, int64_t count);
template <typename T>
void dg_cuda_scale(float *y, const float *x, float alpha, int64_t count);
template <typename T> void dg_cuda_fill(float *y, float value, int64_t count);
void dg_cuda_cast(void *to, DType to_type, const void *from, DType from_type,
                  int64_t count);
void dg_cuda_combine(float *u, const float *uncond, const float *cond, double w,
                     int64_t count);
void dg_cuda_replay(void (*step)(void *), void *user, const Moving *moving,
                    int kinds);
void dg_cuda_flag(int64_t *least, int64_t value, const float *x, int64_t count);
template <typename T>
int64_t dg_cuda_first_nonfinite(const float *x, int64_t count);

#endif
