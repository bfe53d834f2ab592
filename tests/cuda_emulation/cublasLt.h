#ifndef CUDA_EMULATION_CUBLASLT_H
#define CUDA_EMULATION_CUBLASLT_H
/*
 * The part of cuBLASLt that cuda/ uses, on plain loops. Like the real one, the
 * heuristic chooses by the whole problem, batch included, and its choices differ
 * in the order of sums and in alignment; it splits k where the preference lets
 * it. So a product that must not depend on its neighbours has to be asked for
 * as carefully here as there. It offers three algorithms, the best first.
 *
 * CUDA_EMULATION_PRODUCTS in the environment, what the real one might do:
 *   split    all but the last algorithm split k, whatever is preferred
 *   few      there is the last one alone
 *   vary     sums have another order in each call
 *   batch N  those of N samples or more in a call have another order
 *   places   what is best depends on addresses' alignment up to 256 bytes
 *   refuse N the first N algorithms are named and then not run
 */
#include "cuda_runtime.h"

/** major * 10000 + minor * 100 + patch */
size_t cublasLtGetVersion(void);

typedef enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
} cublasStatus_t;

typedef enum cudaDataType {
    CUDA_R_32F = 0,
    CUDA_R_16BF = 14
} cudaDataType,
    cudaDataType_t;
typedef enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T } cublasOperation_t;
typedef enum cublasComputeType_t {
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_FAST_TF32 = 77 /* computed in float32 here */
} cublasComputeType_t;

typedef enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER = 11,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD = 12,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE = 13
} cublasLtMatmulDescAttributes_t;

typedef enum cublasLtEpilogue_t {
    CUBLASLT_EPILOGUE_DEFAULT = 1,
    CUBLASLT_EPILOGUE_BIAS = 4,
    CUBLASLT_EPILOGUE_GELU_AUX = 32 | 128,
    CUBLASLT_EPILOGUE_GELU_AUX_BIAS = CUBLASLT_EPILOGUE_GELU_AUX | 4
} cublasLtEpilogue_t;

typedef enum cublasLtMatrixLayoutAttribute_t {
    CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 5,
    CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 6
} cublasLtMatrixLayoutAttribute_t;

typedef enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES = 6,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES = 7,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8
} cublasLtMatmulPreferenceAttributes_t;

enum { CUBLASLT_REDUCTION_SCHEME_NONE = 0 };

typedef enum cublasLtMatmulAlgoConfigAttributes_t {
    CUBLASLT_ALGO_CONFIG_SPLITK_NUM = 2,
    CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME = 3
} cublasLtMatmulAlgoConfigAttributes_t;

typedef struct CublasLt_st *cublasLtHandle_t;

typedef struct cublasLtMatrixLayoutOpaque_t {
    uint64_t rows, cols;
    int64_t ld, stride;
    int32_t batch;
    cudaDataType type;
} cublasLtMatrixLayoutOpaque_t, *cublasLtMatrixLayout_t;

typedef struct cublasLtMatmulDescOpaque_t {
    int32_t trans_a, trans_b, epilogue;
    const void *bias; /* a column, of D's type */
    void *aux;        /* GELU's input, of D's type and size */
    int64_t aux_ld, aux_stride;
} cublasLtMatmulDescOpaque_t, *cublasLtMatmulDesc_t;

typedef struct cublasLtMatmulPreferenceOpaque_t {
    uint64_t workspace;
    uint32_t reduction, align[4];
} cublasLtMatmulPreferenceOpaque_t, *cublasLtMatmulPreference_t;

/* sums of 'chunk' products each are added up, 'split' ranges of k apart;
 * alignment of matrices, and of what an epilogue reads and writes; whether
 * chunks are others each time; whether it does not run */
typedef struct cublasLtMatmulAlgo_t {
    uint32_t chunk, split, align, align_bias, align_aux, varies, refuses;
} cublasLtMatmulAlgo_t;

typedef struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
} cublasLtMatmulHeuristicResult_t;

const char *cublasLtGetStatusString(cublasStatus_t s);
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h);
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h);
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t l,
                                        cudaDataType type, uint64_t rows,
                                        uint64_t cols, int64_t ld);
cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attr,
    const void *value, size_t bytes);
cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t d,
                                      cublasComputeType_t compute,
                                      cudaDataType_t scale);
cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attr,
    const void *value, size_t bytes);
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t p);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t attr,
    const void *value, size_t bytes);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t result, cublasLtMatmulPreference_t p, int wanted,
    cublasLtMatmulHeuristicResult_t results[], int *found);
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t attr,
    void *value, size_t bytes, size_t *written);
cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t result, const cublasLtMatmulAlgo_t *algo,
    cublasLtMatmulHeuristicResult_t *out);
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                              const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta,
                              const void *C, cublasLtMatrixLayout_t c, void *D,
                              cublasLtMatrixLayout_t result,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t s);

#endif
