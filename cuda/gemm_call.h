#ifndef DG_CUDA_GEMM_CALL_H
#define DG_CUDA_GEMM_CALL_H
/*
 * One call of cuBLASLt's product, and what a choice among its algorithms
 * depends on. Row-major products by a column-major library: c^T = op(b)^T
 * op(a)^T, so the library's A is our b, its m our n. Internal to cuda.
 */
#include "device.h"
#include "stream.h"

#include <cublasLt.h>

/* Of one sample. Alignment is a part of it, since kernels are chosen by it: the
 * largest power of two up to 16 that divides the first address, the pitch and
 * the step between samples, so the same whatever the batch begins with. */
typedef struct GemmShape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, adds;
    int32_t type, type_c; /* of the library: of a and b, of c */
    uint32_t align_a, align_b, align_c;
    uint32_t align_bias, align_pre; /* 0: there is none */
} GemmShape;

/* What is done to a sum before it is stored as c: bias is added; with pre that
 * is stored there, as c is, and its GELU in c. NULL: not. */
typedef struct GemmFinish {
    const float *bias;
    float *pre;
} GemmFinish;

/* a product of samples: elements between them */
typedef struct GemmSamples {
    int64_t num, a, b, c;
} GemmSamples;

/* descriptors of one call */
typedef struct GemmCall {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c; /* of our a, b, c */
} GemmCall;

/** Keeps the first failure of the stream. */
void dg_cuda_gemm_note(cublasStatus_t e, const char *what);

/** One sample of this shape; f's addresses are the call's. */
void dg_cuda_gemm_describe(GemmCall *c, const GemmShape *s,
                           const GemmFinish *f);

/** As above, of by->num samples; of one nothing is added. */
void dg_cuda_gemm_describe_samples(GemmCall *c, const GemmShape *s,
                                   const GemmFinish *f, const GemmSamples *by);

/** Queues c = a b + beta c. An algorithm that the library has named may still be
 *  refused, CUBLAS_STATUS_NOT_SUPPORTED: nothing was queued then. */
cublasStatus_t dg_cuda_gemm_multiply(cublasLtHandle_t h, GemmCall *call,
                                     float beta, const float *a, const float *b,
                                     float *c,
                                     const cublasLtMatmulAlgo_t *algo);

/** Bytes of a stored value of this type. */
static inline size_t dg_cuda_gemm_size(int32_t type)
{
    return type == CUDA_R_16BF ? 2 : 4;
}

/** The address of element i, of values of this type; NULL stays NULL. */
template <typename P> P *dg_cuda_gemm_past(P *p, int64_t i, int32_t type)
{
    return p == NULL ? p
                     : (P *)((char *)(uintptr_t)p +
                             i * (int64_t)dg_cuda_gemm_size(type));
}

#endif
