#include "gemm_call.h"

void dg_cuda_gemm_note(cublasStatus_t e, const char *what)
{
    if (e != CUBLAS_STATUS_SUCCESS)
        dg_cuda_note_text(what, cublasLtGetStatusString(e));
}

/* a stored matrix of rows x cols, row-major, pitch ld */
static void layout(cublasLtMatrixLayoutOpaque_t *l, int32_t type, int64_t rows,
                   int64_t cols, int64_t ld)
{
    dg_cuda_gemm_note(cublasLtMatrixLayoutInit(l, (cudaDataType_t)type,
                                               (uint64_t)cols, (uint64_t)rows,
                                               ld),
                      "gemm layout");
}

static void set(GemmCall *c, cublasLtMatmulDescAttributes_t attr,
                const void *value, size_t bytes)
{
    dg_cuda_gemm_note(
        cublasLtMatmulDescSetAttribute(&c->product, attr, value, bytes),
        "gemm descriptor");
}

static void finish_with(GemmCall *c, const GemmFinish *f, int64_t ld)
{
    const int32_t epilogue = f->pre == NULL    ? CUBLASLT_EPILOGUE_BIAS
                             : f->bias != NULL ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                               : CUBLASLT_EPILOGUE_GELU_AUX;

    if (f->pre == NULL && f->bias == NULL)
        return;
    set(c, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (f->bias != NULL)
        set(c, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &f->bias, sizeof f->bias);
    if (f->pre == NULL)
        return;
    set(c, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &f->pre, sizeof f->pre);
    set(c, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld);
}

void dg_cuda_gemm_describe(GemmCall *c, const GemmShape *s, const GemmFinish *f)
{
    const int32_t trans_a = s->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t trans_b = s->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;

    dg_cuda_gemm_note(
        cublasLtMatmulDescInit(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "gemm descriptor");
    set(c, CUBLASLT_MATMUL_DESC_TRANSA, &trans_b, sizeof trans_b);
    set(c, CUBLASLT_MATMUL_DESC_TRANSB, &trans_a, sizeof trans_a);
    finish_with(c, f, s->ldc);
    layout(&c->a, s->type, s->trans_a ? s->k : s->m, s->trans_a ? s->m : s->k,
           s->lda);
    layout(&c->b, s->type, s->trans_b ? s->n : s->k, s->trans_b ? s->k : s->n,
           s->ldb);
    layout(&c->c, s->type_c, s->m, s->n, s->ldc);
}

static void layout_batch(cublasLtMatrixLayoutOpaque_t *l, int64_t num,
                         int64_t step)
{
    const int32_t count = (int32_t)num;

    dg_cuda_gemm_note(
        cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                         &count, sizeof count),
        "gemm batch");
    dg_cuda_gemm_note(
        cublasLtMatrixLayoutSetAttribute(
            l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step),
        "gemm batch");
}

void dg_cuda_gemm_describe_samples(GemmCall *c, const GemmShape *s,
                                   const GemmFinish *f, const GemmSamples *by)
{
    dg_cuda_gemm_describe(c, s, f);
    if (by->num < 2)
        return;
    layout_batch(&c->a, by->num, by->a);
    layout_batch(&c->b, by->num, by->b);
    layout_batch(&c->c, by->num, by->c);
    if (f->pre != NULL) /* the bias is one for all: its step stays 0 */
        set(c, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, &by->c,
            sizeof by->c);
}

cublasStatus_t dg_cuda_gemm_multiply(cublasLtHandle_t h, GemmCall *call,
                                     float beta, const float *a, const float *b,
                                     float *c, const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1.0f;
    CudaStream *s = dg_cuda_current();

    dg_cuda_link_launches(s);
    return cublasLtMatmul(h, &call->product, &one, b, &call->b, a, &call->a,
                          &beta, c, &call->c, c, &call->c, algo, NULL, 0,
                          s->stream);
}
