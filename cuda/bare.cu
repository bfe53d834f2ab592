#include "gemm.h"
#include "stream.h"

#include <cublasLt.h>
#include <math.h>
#include <stdlib.h>

extern "C" {
#include "cuda/bare.h"
}

/* Row-major by a column-major library, as in gemm_library.cu: c^T = b^T a^T. */
enum { MOST_SIZES = 256 };

typedef struct Size {
    int64_t m, n, k;
    cublasLtMatmulAlgo_t algo;
} Size;

struct CudaBare {
    CudaArithmetic how;
    cublasLtHandle_t handle;
    cudaDataType_t stored;
    cublasComputeType_t computed;
    cudaEvent_t start, stop;
    int num;
    Size size[MOST_SIZES];
};

static void note(cublasStatus_t e, const char *what)
{
    if (e != CUBLAS_STATUS_SUCCESS)
        dg_cuda_note_text(what, cublasLtGetStatusString(e));
}

extern "C" int dg_cuda_bare_create(CudaBare **out, CudaArithmetic how)
{
    CudaBare *b = (CudaBare *)calloc(1, sizeof *b);

    if (b == NULL)
        return dg_fail(DG_ENOMEM, "bare products");
    b->how = how;
    b->stored = how == DG_CUDA_BFLOAT16 ? CUDA_R_16BF : CUDA_R_32F;
    b->computed =
        how == DG_CUDA_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasStatus_t e = cublasLtCreate(&b->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        free(b);
        return dg_fail(DG_EDEVICE, "cuBLASLt: %s", cublasLtGetStatusString(e));
    }
    dg_cuda_note(cudaEventCreate(&b->start), "clock");
    dg_cuda_note(cudaEventCreate(&b->stop), "clock");
    *out = b;
    return DG_OK;
}

extern "C" void dg_cuda_bare_destroy(CudaBare *b)
{
    if (b == NULL)
        return;
    cudaEventDestroy(b->start);
    cudaEventDestroy(b->stop);
    cublasLtDestroy(b->handle);
    free(b);
}

/* descriptors of one call */
typedef struct BareCall {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c;
} BareCall;

static void describe(BareCall *call, const CudaBare *b, const Size *s)
{
    const struct {
        cublasLtMatrixLayoutOpaque_t *layout;
        int64_t rows, columns;
    } all[] = { { &call->a, s->m, s->k },
                { &call->b, s->k, s->n },
                { &call->c, s->m, s->n } };

    note(cublasLtMatmulDescInit(&call->product, b->computed, CUDA_R_32F),
         "bare product");
    for (int i = 0; i < 3; ++i)
        note(cublasLtMatrixLayoutInit(all[i].layout, b->stored,
                                      (uint64_t)all[i].columns,
                                      (uint64_t)all[i].rows, all[i].columns),
             "bare product");
}

/* The kept choice for this size, or a new one; NULL: there is none. */
static const Size *size_of(CudaBare *b, const Size *wanted, BareCall *call)
{
    const uint64_t workspace = DG_WORKSPACE_FLOATS * sizeof(float);
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;

    for (int i = 0; i < b->num; ++i)
        if (b->size[i].m == wanted->m && b->size[i].n == wanted->n &&
            b->size[i].k == wanted->k)
            return &b->size[i];
    if (b->num == MOST_SIZES) {
        dg_cuda_note_text("bare product", "more sizes than are kept");
        return NULL;
    }
    note(cublasLtMatmulPreferenceInit(&preference), "bare product");
    note(cublasLtMatmulPreferenceSetAttribute(
             &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
             sizeof workspace),
         "bare product");
    note(cublasLtMatmulAlgoGetHeuristic(b->handle, &call->product, &call->b,
                                        &call->a, &call->c, &call->c,
                                        &preference, 1, &result, &found),
         "bare product");
    if (found < 1 || result.state != CUBLAS_STATUS_SUCCESS) {
        dg_cuda_note_text("bare product", "the library has no algorithm");
        return NULL;
    }
    Size *s = &b->size[b->num++];
    *s = *wanted;
    s->algo = result.algo;
    return s;
}

/* 1: it was one of these kernels' */
static int own_product(CudaArithmetic how, const GemmArgs *g)
{
    if (how == DG_CUDA_OWN_FLOAT32)
        dg_cuda_own_products<float, float>(g, NULL, 1, 0, 0, 0);
    else if (how == DG_CUDA_OWN_BFLOAT16)
        dg_cuda_own_products<__nv_bfloat16, __nv_bfloat16>(g, NULL, 1, 0, 0, 0);
    return how >= DG_CUDA_OWN_FLOAT32;
}

extern "C" void dg_cuda_bare_product(void *bare, float *c, const float *a,
                                     const float *b, int64_t m, int64_t n,
                                     int64_t k)
{
    CudaBare *mine = (CudaBare *)bare;
    const float one = 1.0f, zero = 0.0f;
    CudaStream *s = dg_cuda_current();
    const Size wanted = { m, n, k, {} };
    GemmArgs g = {};
    BareCall call;

    g.m = m, g.n = n, g.k = k;
    g.lda = k, g.ldb = g.ldc = n;
    g.a = a, g.b = b, g.c = c;
    if (own_product(mine->how, &g))
        return;
    describe(&call, mine, &wanted);
    const Size *size = size_of(mine, &wanted, &call);
    if (size == NULL)
        return;
    note(cublasLtMatmul(mine->handle, &call.product, &one, b, &call.b, a,
                        &call.a, &zero, c, &call.c, c, &call.c, &size->algo,
                        s->workspace, DG_WORKSPACE_FLOATS * sizeof(float),
                        s->stream),
         "bare product");
}

extern "C" void dg_cuda_bare_start(void *bare)
{
    dg_cuda_note(
        cudaEventRecord(((CudaBare *)bare)->start, dg_cuda_current()->stream),
        "clock");
}

extern "C" double dg_cuda_bare_stop(void *bare)
{
    CudaBare *b = (CudaBare *)bare;
    float milliseconds = NAN;

    dg_cuda_note(cudaEventRecord(b->stop, dg_cuda_current()->stream), "clock");
    if (dg_cuda_wait() != DG_OK)
        return NAN;
    const cudaError_t e =
        cudaEventElapsedTime(&milliseconds, b->start, b->stop);
    if (e != cudaSuccess) {
        dg_fail(DG_EDEVICE, "CUDA: clock: %s", cudaGetErrorString(e));
        return NAN;
    }
    return 1e-3 * (double)milliseconds;
}
