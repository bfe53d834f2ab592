#include "gemm.h"

#include "gemm_own.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/log.h"
}

/*
 * Row-major products by a column-major library: c^T = op(b)^T op(a)^T, so the
 * library's A is our b, its m our n.
 *
 * Batch invariance. The library chooses among kernels whose bits differ, and
 * some split k over blocks. So an algorithm is asked for once per shape of
 * one sample, with no workspace and no reduction scheme (then k cannot be
 * split), and used for every batch: as a strided batch where the algorithm
 * allows it, else sample after sample. Both are asked when a shape, or a batch
 * of it, comes first, and never while a step is captured.
 *
 * Alignment is a part of the shape, since kernels are chosen by it. It is the
 * largest power of two up to 256 that divides the first address, the pitch
 * and the step between samples: the same whatever the batch begins with. Of
 * bias and of what an epilogue stores besides c the library reads it from the
 * address that the heuristic is shown, so it is shown the alignment itself.
 *
 * Where the library has none for a shape, or is not to be asked, products are
 * those of gemm_own.h: that too is one sample's shape's, whatever the batch.
 */
enum { MOST_SHAPES = 1024, MOST_BATCHES = 4096, MOST_ALIGN = 256 };

typedef struct Shape {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, adds;
    int32_t type, type_c; /* of the library: of a and b, of c */
    uint32_t align_a, align_b, align_c;
    uint32_t align_bias, align_pre; /* 0: there is none */
} Shape;

typedef struct Known {
    Shape shape;
    int found; /* 0: the library has none */
    cublasLtMatmulAlgo_t algo;
} Known;

/* What is done to a sum before it is stored as c: bias is added; with pre that
 * is stored there, as c is, and its GELU in c. NULL: not. */
typedef struct Finish {
    const float *bias;
    float *pre;
} Finish;

/* a product of samples: elements between them */
typedef struct Samples {
    int64_t num, a, b, c;
} Samples;

/* whether an algorithm takes these samples in one call */
typedef struct Batch {
    const cublasLtMatmulAlgo_t *algo; /* of a Known */
    Samples by;
    int fits;
} Batch;

struct GemmCache {
    cublasLtHandle_t handle;
    int own; /* it is not asked */
    int num, num_batches;
    Known known[MOST_SHAPES];
    Batch batch[MOST_BATCHES];
};

/* descriptors of one call */
typedef struct Call {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, c; /* of our a, b, c */
} Call;

/* --- life ---------------------------------------------------------------- */

/* The library lets its environment put other arithmetic in the place of float32's. */
static int check_environment(void)
{
    static const char *const names[] = { "NVIDIA_TF32_OVERRIDE",
                                         "CUBLAS_EMULATE_SINGLE_PRECISION" };

    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
        const char *text = getenv(names[i]);

        if (text != NULL && text[0] != '\0' && strcmp(text, "0") != 0)
            return dg_fail(DG_EINVAL,
                           "%s = %s in the environment: products of float32 "
                           "would be others; 0 or nothing is allowed",
                           names[i], text);
    }
    return DG_OK;
}

/* DANCEGRPO_PRODUCTS in the environment, for measuring and for tests */
int dg_cuda_products_own(int *own)
{
    const char *text = getenv("DANCEGRPO_PRODUCTS");

    *own = text != NULL && strcmp(text, "own") == 0;
    if (text == NULL || *own || strcmp(text, "library") == 0)
        return DG_OK;
    return dg_fail(DG_EINVAL,
                   "DANCEGRPO_PRODUCTS = %s in the environment: library or own",
                   text);
}

int dg_cuda_gemm_cache_create(struct GemmCache **out)
{
    struct GemmCache *c;
    int own = 0;
    int err = check_environment();

    if (!err)
        err = dg_cuda_products_own(&own);
    if (err)
        return err;
    c = (struct GemmCache *)calloc(1, sizeof *c);
    if (c == NULL)
        return dg_fail(DG_ENOMEM, "matrix products: %zu bytes", sizeof *c);
    const cublasStatus_t e = cublasLtCreate(&c->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        free(c);
        return dg_fail(DG_EDEVICE, "cuBLASLt: %s", cublasLtGetStatusString(e));
    }
    c->own = own;
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

static void set(Call *c, cublasLtMatmulDescAttributes_t attr, const void *value,
                size_t bytes)
{
    note(cublasLtMatmulDescSetAttribute(&c->product, attr, value, bytes),
         "gemm descriptor");
}

static void finish_with(Call *c, const Finish *f, int64_t ld)
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

template <typename T, typename C>
static void call_of(Call *c, const GemmArgs *g, const Finish *f)
{
    const int32_t trans_a = g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t trans_b = g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;

    note(cublasLtMatmulDescInit(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
         "gemm descriptor");
    set(c, CUBLASLT_MATMUL_DESC_TRANSA, &trans_b, sizeof trans_b);
    set(c, CUBLASLT_MATMUL_DESC_TRANSB, &trans_a, sizeof trans_a);
    finish_with(c, f, g->ldc);
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

/* Before a question to the library. */
static void begin_question(void)
{
    if (dg_cuda_current()->mode == DG_STREAM_CAPTURES)
        dg_panic("a product that is captured has not been walked");
    dg_cuda_library_hold();
}

/* Told once for sizes, however operands are stored; with an epilogue it is no
 * news. 's' is the newest. */
static void tell_none(const struct GemmCache *cache, const Shape *s)
{
    int told = s->align_pre != 0;

    for (int i = 0; i + 1 < cache->num && !told; ++i) {
        const Known *k = &cache->known[i];
        told = !k->found && k->shape.align_pre == 0 && k->shape.m == s->m &&
               k->shape.n == s->n && k->shape.k == s->k &&
               k->shape.type == s->type;
    }
    if (!told)
        dg_warn("cuBLASLt has no algorithm that leaves k whole for products "
                "[%lld, %lld] x [%lld, %lld] of %s: a kernel of this project "
                "computes them, slower",
                (long long)s->m, (long long)s->k, (long long)s->k,
                (long long)s->n,
                s->type == CUDA_R_16BF ? "bfloat16" : "float32");
}

/* The algorithm for one sample of this shape; NULL if the library has none.
 * The call is that of one sample. */
static const cublasLtMatmulAlgo_t *algorithm(struct GemmCache *cache, Call *c,
                                             const Shape *shape)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t result;
    const Finish shown = { (const float *)(uintptr_t)shape->align_bias,
                           (float *)(uintptr_t)shape->align_pre };
    int found = 0;

    for (int i = 0; i < cache->num; ++i)
        if (memcmp(&cache->known[i].shape, shape, sizeof *shape) == 0)
            return cache->known[i].found ? &cache->known[i].algo : NULL;
    if (cache->num == MOST_SHAPES) {
        dg_cuda_note_text("gemm", "more shapes than are kept");
        return NULL;
    }
    prefer(&preference, shape);
    finish_with(c, &shown, shape->ldc);
    begin_question();
    const cublasStatus_t e = cublasLtMatmulAlgoGetHeuristic(
        cache->handle, &c->product, &c->b, &c->a, &c->c, &c->c, &preference, 1,
        &result, &found);
    dg_cuda_library_release();
    /* what it says of an epilogue that does not take this pitch */
    const int refused = e == CUBLAS_STATUS_NOT_SUPPORTED ||
                        (e == CUBLAS_STATUS_INVALID_VALUE && shape->align_pre);
    if (!refused)
        note(e, "gemm heuristic");
    Known *k = &cache->known[cache->num++];
    k->shape = *shape;
    k->found = e == CUBLAS_STATUS_SUCCESS && found > 0 &&
               result.state == CUBLAS_STATUS_SUCCESS;
    if (k->found)
        k->algo = result.algo;
    else
        tell_none(cache, shape);
    return k->found ? &k->algo : NULL;
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

/* 1 within a step that is only walked */
static int walks(const Shape *s, const GemmArgs *g, const Finish *f,
                 const Samples *by)
{
    CudaStream *stream = dg_cuda_current();
    const void *const where[] = { g->a, g->b, g->c, f->bias, f->pre };

    dg_cuda_walks(stream, s, sizeof *s);
    dg_cuda_walks(stream, where, sizeof where);
    dg_cuda_walks(stream, by, sizeof *by);
    return dg_cuda_walks(stream, &g->beta, sizeof g->beta);
}

template <typename T, typename C>
static void shape_of(Shape *s, const GemmArgs *g, const Finish *f,
                     const Samples *by)
{
    memset(s, 0, sizeof *s); /* compared as bytes */
    s->m = g->m, s->n = g->n, s->k = g->k;
    s->lda = g->lda, s->ldb = g->ldb, s->ldc = g->ldc;
    s->trans_a = g->trans_a, s->trans_b = g->trans_b;
    s->adds = g->beta != 0.0f;
    s->type = type_of<T>(), s->type_c = type_of<C>();
    s->align_a = alignment<T>(g->a, g->lda, by->a);
    s->align_b = alignment<T>(g->b, g->ldb, by->b);
    s->align_c = alignment<C>(g->c, g->ldc, by->c);
    if (f->bias != NULL)
        s->align_bias = alignment<C>(f->bias, 0, 0);
    if (f->pre != NULL)
        s->align_pre = alignment<C>(f->pre, g->ldc, by->c);
}

/* Descriptors of one sample become those of all. */
static void describe_batch(Call *c, const Finish *f, const Samples *by)
{
    layout_batch(&c->a, by->num, by->a);
    layout_batch(&c->b, by->num, by->b);
    layout_batch(&c->c, by->num, by->c);
    if (f->pre != NULL) /* the bias is one for all: its step stays 0 */
        set(c, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, &by->c,
            sizeof by->c);
}

static int check_batch(const struct GemmCache *cache, Call *c,
                       const cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t checked;

    begin_question();
    const cublasStatus_t e = cublasLtMatmulAlgoCheck(
        cache->handle, &c->product, &c->b, &c->a, &c->c, &c->c, algo, &checked);
    dg_cuda_library_release();
    return e == CUBLAS_STATUS_SUCCESS && checked.workspaceSize == 0;
}

/* 1 where the algorithm takes all samples in one call, for which c is then
 * described. */
static int fits_batch(struct GemmCache *cache, Call *c, const Finish *f,
                      const Samples *by, const cublasLtMatmulAlgo_t *algo)
{
    if (by->num < 2)
        return 0;
    describe_batch(c, f, by);
    for (int i = 0; i < cache->num_batches; ++i)
        if (cache->batch[i].algo == algo &&
            memcmp(&cache->batch[i].by, by, sizeof *by) == 0)
            return cache->batch[i].fits;
    if (cache->num_batches == MOST_BATCHES) {
        dg_cuda_note_text("gemm", "more batches than are kept");
        return 0;
    }
    const int fits = check_batch(cache, c, algo);
    cache->batch[cache->num_batches++] = Batch { algo, *by, fits };
    return fits;
}

/* 0: the library has no algorithm, nothing was done */
template <typename T, typename C>
static int products(const GemmArgs *g, const Finish *f, const Samples *by)
{
    struct GemmCache *cache = dg_cuda_current()->gemm;
    Shape s;
    Call call;

    if (g->m < 1 || g->n < 1 || by->num < 1)
        return 1;
    if (cache->own)
        return 0;
    shape_of<T, C>(&s, g, f, by);
    call_of<T, C>(&call, g, f);
    const cublasLtMatmulAlgo_t *algo = algorithm(cache, &call, &s);
    if (algo == NULL)
        return 0;
    call_of<T, C>(&call, g, f);
    const int at_once = fits_batch(cache, &call, f, by, algo);
    if (walks(&s, g, f, by))
        return 1;
    if (at_once) {
        multiply(cache, &call, g, algo);
        return 1;
    }
    for (int64_t i = 0; i < by->num; ++i) {
        GemmArgs one = *g;
        Finish last = *f;
        one.a = past<T>(one.a, i * by->a);
        one.b = past<T>(one.b, i * by->b);
        one.c = past<C>(one.c, i * by->c);
        if (last.pre != NULL)
            last.pre = past<C>(last.pre, i * by->c);
        call_of<T, C>(&call, &one, &last);
        multiply(cache, &call, &one, algo);
    }
    return 1;
}

template <typename T, typename C>
static void own(const Product *p, int ta, int tb);
template <> void own<float, float>(const Product *p, int ta, int tb)
{
    dg_cuda_product_plain(p, ta, tb);
}
template <>
void own<__nv_bfloat16, __nv_bfloat16>(const Product *p, int ta, int tb)
{
    dg_cuda_product_mma<__nv_bfloat16>(p, ta, tb);
}
template <> void own<__nv_bfloat16, float>(const Product *p, int ta, int tb)
{
    dg_cuda_product_mma<float>(p, ta, tb);
}

template <typename T, typename C>
void dg_cuda_own_products(const GemmArgs *g, const float *bias,
                          const int64_t batch, int64_t stride_a,
                          int64_t stride_b, int64_t stride_c)
{
    Product p = {};

    p.m = g->m, p.n = g->n, p.k = g->k;
    p.lda = g->lda, p.ldb = g->ldb, p.ldc = g->ldc;
    p.batch = batch;
    p.step_a = stride_a, p.step_b = stride_b, p.step_c = stride_c;
    p.a = g->a, p.b = g->b, p.bias = bias, p.c = g->c;
    p.adds = g->beta != 0.0f;
    own<T, C>(&p, g->trans_a, g->trans_b);
}

template <typename T, typename C>
void dg_cuda_products(const GemmArgs *g, const float *bias, int64_t batch,
                      int64_t stride_a, int64_t stride_b, int64_t stride_c)
{
    const Finish f = { bias, NULL };
    const Samples by = { batch, stride_a, stride_b, stride_c };

    if (!products<T, C>(g, &f, &by))
        dg_cuda_own_products<T, C>(g, bias, batch, stride_a, stride_b,
                                   stride_c);
}

int dg_cuda_gelu_products(const GemmArgs *g, const float *bias, float *pre,
                          int64_t batch, int64_t stride_a, int64_t stride_c)
{
    const Finish f = { bias, pre };
    const Samples by = { batch, stride_a, 0, stride_c };

    return products<__nv_bfloat16, __nv_bfloat16>(g, &f, &by);
}

#define PRODUCTS(T, C)                                                         \
    template void dg_cuda_products<T, C>(const GemmArgs *g, const float *bias, \
                                         int64_t batch, int64_t stride_a,      \
                                         int64_t stride_b, int64_t stride_c);  \
    template void dg_cuda_own_products<T, C>(                                  \
        const GemmArgs *g, const float *bias, int64_t batch, int64_t stride_a, \
        int64_t stride_b, int64_t stride_c);

PRODUCTS(float, float)
PRODUCTS(__nv_bfloat16, __nv_bfloat16)
PRODUCTS(__nv_bfloat16, float)
