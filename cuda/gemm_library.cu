#include "gemm.h"

#include "stream.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

/*
 * Row-major products by a column-major library: c^T = op(b)^T op(a)^T, so the
 * library's A is our b, its m our n.
 *
 * Batch invariance. The library chooses among kernels whose bits differ, and
 * some split k over blocks. So an algorithm is asked for once per shape of
 * one sample, with no workspace and no reduction scheme (then k cannot be
 * split), and used for every batch: as a strided batch where the algorithm
 * allows it, else sample after sample.
 *
 * Alignment is a part of the shape, since kernels are chosen by it. It is the
 * largest power of two up to 256 that divides the first address, the pitch
 * and the step between samples: the same whatever the batch begins with.
 */
enum { MOST_SHAPES = 1024, MOST_ALIGN = 256 };

typedef struct Shape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, adds, biased;
    int32_t type, type_c; /* of the library: of a and b, of c */
    uint32_t align_a, align_b, align_c;
} Shape;

typedef struct Known {
    Shape shape;
    cublasLtMatmulAlgo_t algo;
} Known;

struct GemmCache {
    cublasLtHandle_t handle;
    int num;
    Known known[MOST_SHAPES];
};

/* descriptors of one call */
typedef struct Call {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c; /* of our a, b, c */
} Call;

/* --- life ---------------------------------------------------------------- */

int dg_cuda_gemm_cache_create(struct GemmCache **out)
{
    struct GemmCache *c = (struct GemmCache *)calloc(1, sizeof *c);

    if (c == NULL)
        return dg_fail(DG_ENOMEM, "matrix products: %zu bytes", sizeof *c);
    const cublasStatus_t e = cublasLtCreate(&c->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        free(c);
        return dg_fail(DG_EDEVICE, "cuBLASLt: %s", cublasLtGetStatusString(e));
    }
    *out = c;
    return DG_OK;
}

void dg_cuda_gemm_cache_destroy(struct GemmCache *c)
{
    if (c == NULL)
        return;
    cublasLtDestroy(c->handle);
    free(c);
}

static void note(cublasStatus_t e, const char *what)
{
    if (e != CUBLAS_STATUS_SUCCESS)
        dg_cuda_note_text(what, cublasLtGetStatusString(e));
}

/* --- descriptors --------------------------------------------------------- */

template <typename T> static cudaDataType_t type_of(void);
template <> cudaDataType_t type_of<float>(void)
{
    return CUDA_R_32F;
}
template <> cudaDataType_t type_of<__nv_bfloat16>(void)
{
    return CUDA_R_16BF;
}

/* a stored matrix of rows x cols, row-major, pitch ld */
template <typename T>
static void layout(cublasLtMatrixLayoutOpaque_t *l, int64_t rows, int64_t cols,
                   int64_t ld)
{
    note(cublasLtMatrixLayoutInit(l, type_of<T>(), (uint64_t)cols,
                                  (uint64_t)rows, ld),
         "gemm layout");
}

static void layout_batch(cublasLtMatrixLayoutOpaque_t *l, int64_t batch,
                         int64_t stride)
{
    const int32_t count = (int32_t)batch;

    note(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                          &count, sizeof count),
         "gemm batch");
    note(cublasLtMatrixLayoutSetAttribute(
             l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
             sizeof stride),
         "gemm batch");
}

/* what is done to a sum before it is stored: bias added to each row */
static void add_bias(Call *c, const float *bias)
{
    const int32_t epilogue = CUBLASLT_EPILOGUE_BIAS;

    note(cublasLtMatmulDescSetAttribute(&c->product,
                                        CUBLASLT_MATMUL_DESC_EPILOGUE,
                                        &epilogue, sizeof epilogue),
         "gemm bias");
    note(cublasLtMatmulDescSetAttribute(&c->product,
                                        CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                        &bias, sizeof bias),
         "gemm bias");
}

template <typename T, typename C>
static void call_of(Call *c, const GemmArgs *g, const float *bias)
{
    const int32_t trans_a = g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t trans_b = g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;

    note(cublasLtMatmulDescInit(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
         "gemm descriptor");
    note(cublasLtMatmulDescSetAttribute(&c->product,
                                        CUBLASLT_MATMUL_DESC_TRANSA, &trans_b,
                                        sizeof trans_b),
         "gemm descriptor");
    note(cublasLtMatmulDescSetAttribute(&c->product,
                                        CUBLASLT_MATMUL_DESC_TRANSB, &trans_a,
                                        sizeof trans_a),
         "gemm descriptor");
    if (bias != NULL)
        add_bias(c, bias);
    layout<T>(&c->a, g->trans_a ? g->k : g->m, g->trans_a ? g->m : g->k,
              g->lda);
    layout<T>(&c->b, g->trans_b ? g->n : g->k, g->trans_b ? g->k : g->n,
              g->ldb);
    layout<C>(&c->c, g->m, g->n, g->ldc);
}

/* --- algorithms ---------------------------------------------------------- */

template <typename T>
static uint32_t alignment(const float *p, int64_t ld, int64_t stride)
{
    const uint64_t all = (uint64_t)(uintptr_t)p |
                         (uint64_t)(ld | stride) * sizeof(T) | MOST_ALIGN;

    return (uint32_t)(all & (~all + 1)); /* its lowest bit */
}

static void prefer(cublasLtMatmulPreferenceOpaque_t *p, const Shape *s)
{
    const uint64_t workspace = 0;
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attr;
        uint32_t value;
    } rows[] = {
        { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, s->align_b },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, s->align_a },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, s->align_c },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, s->align_c },
    };

    note(cublasLtMatmulPreferenceInit(p), "gemm preference");
    note(cublasLtMatmulPreferenceSetAttribute(
             p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
             sizeof workspace),
         "gemm preference");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
        note(cublasLtMatmulPreferenceSetAttribute(
                 p, rows[i].attr, &rows[i].value, sizeof rows[i].value),
             "gemm preference");
}

/* The algorithm for one sample of this shape; NULL if the library has none. */
static const cublasLtMatmulAlgo_t *algorithm(struct GemmCache *cache, Call *c,
                                             const Shape *shape)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;

    for (int i = 0; i < cache->num; ++i)
        if (memcmp(&cache->known[i].shape, shape, sizeof *shape) == 0)
            return &cache->known[i].algo;
    if (cache->num == MOST_SHAPES) {
        dg_cuda_note_text("gemm", "more shapes than are kept");
        return NULL;
    }
    prefer(&preference, shape);
    note(cublasLtMatmulAlgoGetHeuristic(cache->handle, &c->product, &c->b,
                                        &c->a, &c->c, &c->c, &preference, 1,
                                        &result, &found),
         "gemm heuristic");
    if (found < 1 || result.state != CUBLAS_STATUS_SUCCESS)
        return NULL;
    Known *k = &cache->known[cache->num++];
    k->shape = *shape;
    k->algo = result.algo;
    return &k->algo;
}

static void multiply(const struct GemmCache *cache, Call *c, const GemmArgs *g,
                     const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1.0f;

    note(cublasLtMatmul(cache->handle, &c->product, &one, g->b, &c->b, g->a,
                        &c->a, &g->beta, g->c, &c->c, g->c, &c->c, algo, NULL,
                        0, dg_cuda_current()->stream),
         "gemm");
}

/* 1 within a step that is only walked; strides [4], the batch first */
static int walks(const Shape *s, const GemmArgs *g, const float *bias,
                 const int64_t *strides)
{
    CudaStream *stream = dg_cuda_current();
    const void *const where[] = { g->a, g->b, g->c, bias };

    dg_cuda_walks(stream, s, sizeof *s);
    dg_cuda_walks(stream, where, sizeof where);
    dg_cuda_walks(stream, strides, 4 * sizeof *strides);
    return dg_cuda_walks(stream, &g->beta, sizeof g->beta);
}

template <typename T, typename C>
void dg_cuda_products(const GemmArgs *g, const float *bias, int64_t batch,
                      int64_t stride_a, int64_t stride_b, int64_t stride_c)
{
    struct GemmCache *cache = dg_cuda_current()->gemm;
    cublasLtMatmulHeuristicResult_t checked;
    Shape s;
    Call call;

    if (g->m < 1 || g->n < 1 || batch < 1)
        return;
    memset(&s, 0, sizeof s); /* compared as bytes */
    s.m = g->m, s.n = g->n, s.k = g->k;
    s.lda = g->lda, s.ldb = g->ldb, s.ldc = g->ldc;
    s.trans_a = g->trans_a, s.trans_b = g->trans_b;
    s.adds = g->beta != 0.0f, s.biased = bias != NULL;
    s.type = type_of<T>(), s.type_c = type_of<C>();
    s.align_a = alignment<T>(g->a, g->lda, stride_a);
    s.align_b = alignment<T>(g->b, g->ldb, stride_b);
    s.align_c = alignment<C>(g->c, g->ldc, stride_c);
    call_of<T, C>(&call, g, bias);
    const cublasLtMatmulAlgo_t *algo = algorithm(cache, &call, &s);
    if (algo == NULL) {
        dg_cuda_note_text("gemm", "the library has no algorithm");
        return;
    }
    const int64_t strides[] = { batch, stride_a, stride_b, stride_c };
    if (walks(&s, g, bias, strides))
        return;
    if (batch > 1) {
        layout_batch(&call.a, batch, stride_a);
        layout_batch(&call.b, batch, stride_b);
        layout_batch(&call.c, batch, stride_c);
        if (cublasLtMatmulAlgoCheck(cache->handle, &call.product, &call.b,
                                    &call.a, &call.c, &call.c, algo,
                                    &checked) == CUBLAS_STATUS_SUCCESS &&
            checked.workspaceSize == 0) {
            multiply(cache, &call, g, algo);
            return;
        }
        call_of<T, C>(&call, g, bias);
    }
    for (int64_t i = 0; i < batch; ++i) {
        GemmArgs one = *g;
        one.a = past<T>(one.a, i * stride_a);
        one.b = past<T>(one.b, i * stride_b);
        one.c = past<C>(one.c, i * stride_c);
        multiply(cache, &call, &one, algo);
    }
}

#define PRODUCTS(T, C)                                                         \
    template void dg_cuda_products<T, C>(const GemmArgs *g, const float *bias, \
                                         int64_t batch, int64_t stride_a,      \
                                         int64_t stride_b, int64_t stride_c);

PRODUCTS(float, float)
PRODUCTS(__nv_bfloat16, __nv_bfloat16)
PRODUCTS(__nv_bfloat16, float)
