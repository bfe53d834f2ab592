#ifndef DG_CUDA_GEMM_H
#define DG_CUDA_GEMM_H
/*
 * The one place that calls the library's matrix product. Internal to cuda.
 */
#include "device.h"

enum { DG_FEW_ROWS = 16 };

/** dg_cuda_gemm() of a and b stored as T into a c stored as C, which is
 *  rounded once. bias [n], stored as C, is added to each row; or NULL. */
template <typename T, typename C>
void dg_cuda_gemm_to(const GemmArgs *g, const float *bias);

/**
 * Products of 'batch' samples by one algorithm, chosen for ONE sample of
 * g->m rows and kept: the bits of a sample do not depend on batch. Pointers
 * move by stride_a, stride_b, stride_c elements per sample.
 * a and b are stored as T, c and bias as C; sums are float32.
 */
template <typename T, typename C>
void dg_cuda_products(const GemmArgs *g, const float *bias, int64_t batch,
                      int64_t stride_a, int64_t stride_b, int64_t stride_c);

/** The same by the kernels of gemm_own.h, which dg_cuda_products() leaves to them
 *  where the library has no algorithm for one sample's shape. k >= 1. */
template <typename T, typename C>
void dg_cuda_own_products(const GemmArgs *g, const float *bias, int64_t batch,
                          int64_t stride_a, int64_t stride_b, int64_t stride_c);

/**
 * The same of values stored as bfloat16, by one right side, with
 *   pre = sums + bias,  c = GELU of it, tanh form
 * from the library's epilogue, pre [as c] never NULL. Its tanh is the
 * hardware's, coarse beside float32 and fine beside bfloat16.
 * Returns 0, and nothing was done, where the library has none for this shape.
 */
int dg_cuda_gelu_products(const GemmArgs *g, const float *bias, float *pre,
                          int64_t batch, int64_t stride_a, int64_t stride_c);

/** dbias [out] += the sums of dy [batch, rows, out] over rows, sample after
 *  sample; NULL: nothing. Uses the stream's workspace. */
template <typename T>
void dg_cuda_bias_grad(float *dbias, const float *dy, int64_t batch,
                       int64_t rows, int64_t out);

#endif
