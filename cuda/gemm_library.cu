#include "gemm.h"

#include "gemm_own.h"
#include "gemm_trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "base/log.h"
}

/*
 * Batch invariance. The library chooses among kernels whose bits differ, and
 * some split k over blocks. So an algorithm is asked for once per shape of
 * one sample, with no workspace and no reduction scheme (then k cannot be
 * split), and used for every batch: as a strided batch where the algorithm
 * allows it, else sample after sample. Both are asked when a shape, or a batch
 * of it, comes first, and never while a step is captured.
 *
 * That this keeps a sample's bits stands in no manual. So each is tried, where
 * there is room (gemm_trial.h). Samples whose bits a batch changes go one by one,
 * or as many at a time as change none, which is slower and nothing else. An
 * algorithm whose bits do not repeat ends the run: what ranks see of chance need
 * not be the same, and other algorithms on some of them would be worse.
 *
 * Of bias and of what an epilogue stores besides c the library reads the
 * alignment from the address that the heuristic is shown, so it is shown the
 * alignment itself. No address shows more of itself than 16 bytes, the most
 * that kernels ask for and what all parameters and samples have: where they
 * lie beyond that is other on other numbers of ranks, and with weights lent.
 *
 * Where the library has none for a shape, refuses to run what it has named, or
 * is not to be asked, products are those of gemm_own.h: that too is one
 * sample's shape's, whatever the batch.
 */
enum {
    MOST_SHAPES = 1024,
    MOST_BATCHES = 4096,
    MOST_ALIGN = 16,
    CANDIDATES = 8 /* algorithms that are looked at */
};

typedef struct Known {
    GemmShape shape;
    int found; /* 0: the library has none */
    cublasLtMatmulAlgo_t algo;
} Known;

/* how many of these samples go in one call; 1: each by itself */
typedef struct Batch {
    const cublasLtMatmulAlgo_t *algo; /* of a Known */
    GemmSamples by;
    int64_t at_once;
} Batch;

struct GemmCache {
    cublasLtHandle_t handle;
    int own; /* it is not asked */
    int device;
    int num, num_batches;
    Known known[MOST_SHAPES];
    Batch batch[MOST_BATCHES];
};

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

int dg_cuda_gemm_cache_create(struct GemmCache **out, int device)
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
    c->device = device;
    err = dg_cuda_trial_open(device);
    if (err) {
        cublasLtDestroy(c->handle);
        free(c);
        return err;
    }
    *out = c;
    return DG_OK;
}

void dg_cuda_gemm_cache_destroy(struct GemmCache *c)
{
    if (c == NULL)
        return;
    dg_cuda_trial_close(c->device);
    cublasLtDestroy(c->handle);
    free(c);
}

template <typename T> static cudaDataType_t type_of(void);
template <> cudaDataType_t type_of<float>(void)
{
    return CUDA_R_32F;
}
template <> cudaDataType_t type_of<__nv_bfloat16>(void)
{
    return CUDA_R_16BF;
}

static const char *type_text(const GemmShape *s)
{
    return s->type == CUDA_R_16BF ? "bfloat16" : "float32";
}

/* --- algorithms ---------------------------------------------------------- */

template <typename T>
static uint32_t alignment(const float *p, int64_t ld, int64_t stride)
{
    const uint64_t all = (uint64_t)(uintptr_t)p |
                         (uint64_t)(ld | stride) * sizeof(T) | MOST_ALIGN;

    return (uint32_t)(all & (~all + 1)); /* its lowest bit */
}

static void prefer(cublasLtMatmulPreferenceOpaque_t *p, const GemmShape *s)
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

    dg_cuda_gemm_note(cublasLtMatmulPreferenceInit(p), "gemm preference");
    dg_cuda_gemm_note(cublasLtMatmulPreferenceSetAttribute(
                          p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                          &workspace, sizeof workspace),
                      "gemm preference");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
        dg_cuda_gemm_note(
            cublasLtMatmulPreferenceSetAttribute(
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

static int same_sizes(const GemmShape *x, const GemmShape *y)
{
    return x->m == y->m && x->n == y->n && x->k == y->k && x->type == y->type;
}

/* Told once for sizes, however operands are stored; with an epilogue it is no
 * news. 's' is of the cache. */
static void tell_none(const struct GemmCache *cache, const GemmShape *s)
{
    int told = s->align_pre != 0;

    for (int i = 0; i < cache->num && !told; ++i) {
        const Known *k = &cache->known[i];
        told = !k->found && &k->shape != s && k->shape.align_pre == 0 &&
               same_sizes(&k->shape, s);
    }
    if (!told)
        dg_warn("cuBLASLt has no algorithm that leaves k whole for products "
                "[%lld, %lld] x [%lld, %lld] of %s: a kernel of this project "
                "computes them, slower",
                (long long)s->m, (long long)s->k, (long long)s->k,
                (long long)s->n, type_text(s));
}

/* The candidates in the library's order. Returns their number. */
static int ask(const struct GemmCache *cache, const GemmShape *s,
               cublasLtMatmulHeuristicResult_t *list)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    const GemmFinish shown = { (const float *)(uintptr_t)s->align_bias,
                               (float *)(uintptr_t)s->align_pre };
    GemmCall c;
    int found = 0;

    prefer(&preference, s);
    dg_cuda_gemm_describe(&c, s, &shown);
    begin_question();
    const cublasStatus_t e = cublasLtMatmulAlgoGetHeuristic(
        cache->handle, &c.product, &c.b, &c.a, &c.c, &c.c, &preference,
        CANDIDATES, list, &found);
    dg_cuda_library_release();
    /* what it says of an epilogue that does not take this pitch */
    const int refused = e == CUBLAS_STATUS_NOT_SUPPORTED ||
                        (e == CUBLAS_STATUS_INVALID_VALUE && s->align_pre);
    if (!refused)
        dg_cuda_gemm_note(e, "gemm heuristic");
    return e == CUBLAS_STATUS_SUCCESS ? found : 0;
}

/* By what the algorithm says of itself, where it says so. */
static int leaves_k_whole(const cublasLtMatmulHeuristicResult_t *r)
{
    int32_t parts = 1;
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t bytes;

    cublasLtMatmulAlgoConfigGetAttribute(&r->algo,
                                         CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                         &parts, sizeof parts, &bytes);
    cublasLtMatmulAlgoConfigGetAttribute(&r->algo,
                                         CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                         &scheme, sizeof scheme, &bytes);
    return r->state == CUBLAS_STATUS_SUCCESS && r->workspaceSize == 0 &&
           (parts == 0 || parts == 1) &&
           scheme == CUBLASLT_REDUCTION_SCHEME_NONE;
}

/* 0: the library refuses to run it */
static int try_alone(const struct GemmCache *cache, const Known *k)
{
    const GemmSamples one = { 1, 0, 0, 0 };
    char text[160];

    const GemmTrial t = dg_cuda_trial(cache->handle, &k->shape, &one, &k->algo);
    if (t != DG_TRIAL_DIFFERS)
        return t != DG_TRIAL_REFUSED;
    snprintf(text, sizeof text,
             "[%lld, %lld] x [%lld, %lld] of %s twice has given other bits; "
             "DANCEGRPO_PRODUCTS=own does without the library",
             (long long)k->shape.m, (long long)k->shape.k,
             (long long)k->shape.k, (long long)k->shape.n,
             type_text(&k->shape));
    dg_cuda_note_text("cuBLASLt", text);
    return 1;
}

/* The first candidate that leaves k whole and runs. */
static void choose(struct GemmCache *cache, Known *k)
{
    cublasLtMatmulHeuristicResult_t list[CANDIDATES];
    const int num = ask(cache, &k->shape, list);

    for (int i = 0; i < num && !k->found; ++i)
        if (leaves_k_whole(&list[i])) {
            k->algo = list[i].algo;
            k->found = try_alone(cache, k);
        }
    if (!k->found)
        tell_none(cache, &k->shape);
}

/* What is known of this shape; NULL if the library has no algorithm for one
 * sample of it. */
static Known *known(struct GemmCache *cache, const GemmShape *shape)
{
    for (int i = 0; i < cache->num; ++i)
        if (memcmp(&cache->known[i].shape, shape, sizeof *shape) == 0)
            return cache->known[i].found ? &cache->known[i] : NULL;
    if (cache->num == MOST_SHAPES) {
        dg_cuda_note_text("gemm", "more shapes than are kept");
        return NULL;
    }
    Known *k = &cache->known[cache->num++];
    *k = Known { *shape, 0, {} };
    dg_cuda_link_quiet(dg_cuda_current()); /* its kernel is to be loaded */
    choose(cache, k);
    return k->found ? k : NULL;
}

/* 1 within a step that is only walked */
static int walks(const GemmShape *s, const GemmArgs *g, const GemmFinish *f,
                 const GemmSamples *by)
{
    CudaStream *stream = dg_cuda_current();
    const void *const where[] = { g->a, g->b, g->c, f->bias, f->pre };

    dg_cuda_walks(stream, s, sizeof *s);
    dg_cuda_walks(stream, where, sizeof where);
    dg_cuda_walks(stream, by, sizeof *by);
    return dg_cuda_walks(stream, &g->beta, sizeof g->beta);
}

template <typename T, typename C>
static void shape_of(GemmShape *s, const GemmArgs *g, const GemmFinish *f,
                     const GemmSamples *by)
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

/* whether the library would take them in one call */
static int takes(const struct GemmCache *cache, const GemmShape *s,
                 const GemmSamples *by, const cublasLtMatmulAlgo_t *algo)
{
    const GemmFinish shown = { (const float *)(uintptr_t)s->align_bias,
                               (float *)(uintptr_t)s->align_pre };
    cublasLtMatmulHeuristicResult_t checked;
    GemmCall c;

    dg_cuda_gemm_describe_samples(&c, s, &shown, by);
    begin_question();
    const cublasStatus_t e = cublasLtMatmulAlgoCheck(
        cache->handle, &c.product, &c.b, &c.a, &c.c, &c.c, algo, &checked);
    dg_cuda_library_release();
    return e == CUBLAS_STATUS_SUCCESS && checked.workspaceSize == 0;
}

/* The most samples, equal parts of all, that one call takes and whose bits it
 * keeps. What cannot be tried does not go together: one sample of such sizes
 * keeps a GPU busy. */
static int64_t choose_at_once(const struct GemmCache *cache, const GemmShape *s,
                              const GemmSamples *by,
                              const cublasLtMatmulAlgo_t *algo)
{
    for (int64_t parts = 1; parts < by->num; ++parts) {
        const GemmSamples some = { by->num / parts, by->a, by->b, by->c };

        if (by->num % parts != 0 || !takes(cache, s, &some, algo))
            continue;
        const GemmTrial t = dg_cuda_trial(cache->handle, s, &some, algo);
        if (t == DG_TRIAL_SAME)
            return some.num;
        if (t == DG_TRIAL_DIFFERS)
            dg_warn("cuBLASLt: products [%lld, %lld] x [%lld, %lld] of %s have "
                    "other bits in a batch of %lld: fewer go at once, slower",
                    (long long)s->m, (long long)s->k, (long long)s->k,
                    (long long)s->n, type_text(s), (long long)some.num);
    }
    return 1;
}

static int64_t at_once(struct GemmCache *cache, const GemmShape *s,
                       const GemmSamples *by, const cublasLtMatmulAlgo_t *algo)
{
    if (by->num < 2)
        return 1;
    for (int i = 0; i < cache->num_batches; ++i)
        if (cache->batch[i].algo == algo &&
            memcmp(&cache->batch[i].by, by, sizeof *by) == 0)
            return cache->batch[i].at_once;
    if (cache->num_batches == MOST_BATCHES) {
        dg_cuda_note_text("gemm", "more batches than are kept");
        return 1;
    }
    Batch *b = &cache->batch[cache->num_batches++];
    dg_cuda_link_quiet(dg_cuda_current()); /* as in known() */
    *b = Batch { algo, *by, choose_at_once(cache, s, by, algo) };
    return b->at_once;
}

/* What is too large for a trial is refused when it is first called. */
static int refused(struct GemmCache *cache, Known *k, cublasStatus_t e)
{
    if (e != CUBLAS_STATUS_NOT_SUPPORTED)
        return 0;
    k->found = 0;
    tell_none(cache, &k->shape);
    return 1;
}

/* 0: the library has no algorithm, nothing was done */
template <typename T, typename C>
static int products(const GemmArgs *g, const GemmFinish *f,
                    const GemmSamples *by)
{
    struct GemmCache *cache = dg_cuda_current()->gemm;
    GemmSamples some = *by;
    GemmShape s;

    if (g->m < 1 || g->n < 1 || by->num < 1)
        return 1;
    if (cache->own)
        return 0;
    shape_of<T, C>(&s, g, f, by);
    Known *k = known(cache, &s);
    if (k == NULL)
        return 0;
    some.num = at_once(cache, &s, by, &k->algo);
    if (walks(&s, g, f, by))
        return 1;
    for (int64_t i = 0; i < by->num; i += some.num) {
        const GemmFinish its = { f->bias, past<C>(f->pre, i * by->c) };
        GemmCall call;

        dg_cuda_gemm_describe_samples(&call, &s, &its, &some);
        const cublasStatus_t e = dg_cuda_gemm_multiply(
            cache->handle, &call, g->beta, past<T>(g->a, i * by->a),
            past<T>(g->b, i * by->b), past<C>(g->c, i * by->c), &k->algo);
        if (i == 0 && refused(cache, k, e))
            return 0;
        dg_cuda_gemm_note(e, "gemm");
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
    const GemmFinish f = { bias, NULL };
    const GemmSamples by = { batch, stride_a, stride_b, stride_c };

    if (!products<T, C>(g, &f, &by))
        dg_cuda_own_products<T, C>(g, bias, batch, stride_a, stride_b,
                                   stride_c);
}

int dg_cuda_gelu_products(const GemmArgs *g, const float *bias, float *pre,
                          int64_t batch, int64_t stride_a, int64_t stride_c)
{
    const GemmFinish f = { bias, pre };
    const GemmSamples by = { batch, stride_a, 0, stride_c };

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
