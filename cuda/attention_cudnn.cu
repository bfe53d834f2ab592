#include "cudnn_stream.h"
#include "device.h"

extern "C" {
#include "base/log.h"
#include "cuda/attention_cudnn.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DG_CUDNN
/*
 * A call is one sample's: all of its heads forward, and backward as many at a
 * time as the room has dS for. So what a sample's bits depend on is its own
 * shape, the library's version and the model of the GPU, not the batch.
 */
enum { MOST_SHAPES = 64, MOST_WHY = 300 };

/* what a choice depends on */
typedef struct Shape {
    int64_t heads, d, sq, sk;
    int64_t causal, biased; /* which the library is not asked for */
} Shape;

typedef struct Known {
    Shape shape;
    CudnnPlan *forward, *backward; /* both, or none */
    int64_t group;                 /* heads of a call backward */
    int tried[2]; /* whether the bits of both repeat, as they came first */
} Known;

struct AttentionLibrary {
    struct StreamCudnn *cudnn; /* without room: no way back here */
    int num;
    Known known[MOST_SHAPES];
};

/* --- life ---------------------------------------------------------------- */

int dg_cuda_attention_open(CudaStream *s, int back)
{
    struct AttentionLibrary *a;
    const int err = dg_cuda_cudnn_open(s, "run.attention", back);

    if (err)
        return err;
    a = (struct AttentionLibrary *)calloc(1, sizeof *a);
    if (a == NULL)
        return dg_fail(DG_ENOMEM, "attention by cuDNN");
    a->cudnn = s->cudnn;
    s->attention = a;
    return DG_OK;
}

extern "C" int dg_cuda_attention_library(CudaStream *s, char *version,
                                         size_t bytes)
{
    const int err = dg_cuda_attention_open(s, 1);

    if (!err)
        snprintf(version, bytes, "%s", dg_cudnn_version(s->cudnn->library));
    return err;
}

void dg_cuda_attention_close(struct AttentionLibrary *a)
{
    if (a == NULL)
        return;
    for (int i = 0; i < a->num; ++i) {
        dg_cudnn_plan_free(a->known[i].forward);
        dg_cudnn_plan_free(a->known[i].backward);
    }
    free(a);
}

/* --- what the library is asked ------------------------------------------- */

/* Half of the workspace is the library's, the other has what is not kept. */
enum { HALF_FLOATS = DG_WORKSPACE_FLOATS / 2 };

/* All heads backward at a time, which some devices need no room for; else as
 * many as it has dS for. */
static void ask_backward(const struct AttentionLibrary *a, Known *k, char *why)
{
    const Shape *s = &k->shape;
    const size_t head = (size_t)s->sq * (size_t)s->sk * 2; /* of dS */

    for (int64_t g = s->heads; g > 0 && k->backward == NULL; --g) {
        const CudnnShape some = { g, s->heads, s->d, s->sq, s->sk };

        if (s->heads % g != 0 ||
            (g < s->heads && (size_t)g * head > DG_CUDNN_ROOM))
            continue;
        dg_cudnn_backward(&k->backward, a->cudnn->library, &some, DG_CUDNN_ROOM,
                          why, MOST_WHY);
        k->group = g;
    }
}

/*
 * Half a tile of keys beside whole ones, and one query: the library's backward
 * for Hopper takes the rest of such a tile for scores of 0, and where a row's log
 * sum exp is below -88 its gradient is not a number (seen by others up to 9.26:
 * NVIDIA/cudnn-frontend issues 628 and 1072).
 */
static int spoiled(const struct AttentionLibrary *a, const Shape *s)
{
    return a->cudnn->major == 9 && (s->sk % 128 == 64 || s->sq == 1);
}

/* NULL: the library may be asked */
static const char *not_asked(const struct AttentionLibrary *a, const Shape *s)
{
    return s->causal                        ? "it is causal"
           : s->biased                      ? "it has a bias"
           : s->d % 8 != 0                  ? "d is no multiple of 8"
           : s->heads * s->sq > HALF_FLOATS ? "too many queries"
           : spoiled(a, s)
               ? "on Hopper its gradient can be NaN for such a shape"
               : NULL;
}

static void ask(const struct AttentionLibrary *a, Known *k, char *why)
{
    const Shape *s = &k->shape;
    const CudnnShape all = { s->heads, s->heads, s->d, s->sq, s->sk };
    const char *no = not_asked(a, s);

    if (no != NULL) {
        snprintf(why, MOST_WHY, "%s", no);
        return;
    }
    dg_cudnn_forward(&k->forward, a->cudnn->library, &all,
                     HALF_FLOATS * sizeof(float), why, MOST_WHY);
    if (k->forward != NULL)
        ask_backward(a, k, why);
    if (k->backward == NULL) {
        dg_cudnn_plan_free(k->forward);
        k->forward = NULL;
    }
}

static void tell(const Known *k, const char *why)
{
    const Shape *s = &k->shape;

    if (k->forward == NULL)
        dg_info("attention of %lld x %lld, %lld queries, %lld keys: own "
                "kernels, not cuDNN's: %s",
                (long long)s->heads, (long long)s->d, (long long)s->sq,
                (long long)s->sk, why);
    else
        dg_info("attention of %lld x %lld, %lld queries, %lld keys: cuDNN's "
                "engine %lld, backward %lld, %lld heads at a time",
                (long long)s->heads, (long long)s->d, (long long)s->sq,
                (long long)s->sk, (long long)dg_cudnn_engine(k->forward),
                (long long)dg_cudnn_engine(k->backward), (long long)k->group);
}

/* NULL: own kernels */
static Known *known(CudaStream *s, const AttentionArgs *a)
{
    struct AttentionLibrary *l = s->attention;
    const Shape shape = { a->heads, a->d,      a->sq,
                          a->sk,    a->causal, a->bias != NULL };
    char why[MOST_WHY] = "";

    for (int i = 0; i < l->num; ++i)
        if (memcmp(&l->known[i].shape, &shape, sizeof shape) == 0)
            return l->known[i].forward != NULL ? &l->known[i] : NULL;
    if (l->num == MOST_SHAPES) {
        dg_cuda_note_text("attention", "more shapes than are kept");
        return NULL;
    }
    if (s->mode == DG_STREAM_CAPTURES)
        dg_panic("attention that is captured has not been walked");
    Known *k = &l->known[l->num++];
    *k = Known { shape, NULL, NULL, 0, {} };
    dg_cuda_link_quiet(s); /* plans may load kernels, and first calls */
    dg_cuda_library_hold();
    ask(l, k, why);
    dg_cuda_library_release();
    tell(k, why);
    return k->forward != NULL ? k : NULL;
}

/* Places that own kernels on tensor cores would take too. */
static int aligned(const AttentionArgs *a)
{
    const void *all[] = { a->q, a->k, a->v, a->o, a->d_o, a->dq, a->dk, a->dv };
    uintptr_t bits = 0;

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        bits |= (uintptr_t)all[i];
    return bits % 16 == 0;
}

/* --- calls --------------------------------------------------------------- */

static void *past_bf16(const float *p, int64_t elements)
{
    return (char *)p + 2 * elements;
}

static void run(CudaStream *s, const CudnnPlan *p, void *const *given,
                void *workspace)
{
    dg_cuda_link_launches(s);

    const char *why = dg_cudnn_run(p, given, workspace);
    if (why != NULL)
        dg_cuda_note_text("attention by cuDNN", why);
}

/* 1 within a step that is only walked */
static int walks(CudaStream *s, const Known *k, const AttentionArgs *a)
{
    const void *const where[] = { a->q,   a->k,  a->v,  a->o,  a->lse,
                                  a->d_o, a->dq, a->dk, a->dv, k };
    const int64_t sizes[] = { a->batch, a->d_o != NULL };

    dg_cuda_walks(s, where, sizeof where);
    dg_cuda_walks(s, sizes, sizeof sizes);
    return dg_cuda_walks(s, &a->scale, sizeof a->scale);
}

static void forward(CudaStream *s, const Known *k, const AttentionArgs *a)
{
    const int64_t q = a->heads * a->sq * a->d, kv = a->heads * a->sk * a->d;
    float scale = a->scale;

    for (int64_t b = 0; b < a->batch; ++b) {
        void *given[DG_CUDNN_GIVEN] = {};

        given[DG_CUDNN_Q] = past_bf16(a->q, b * q);
        given[DG_CUDNN_K] = past_bf16(a->k, b * kv);
        given[DG_CUDNN_V] = past_bf16(a->v, b * kv);
        given[DG_CUDNN_O] = past_bf16(a->o, b * q);
        given[DG_CUDNN_LSE] = a->lse != NULL ? a->lse + b * a->heads * a->sq
                                             : s->workspace + HALF_FLOATS;
        given[DG_CUDNN_SCALE] = &scale;
        run(s, k->forward, given, s->workspace);
    }
}

/* heads h and on of sample b */
static void run_back(CudaStream *s, const Known *k, const AttentionArgs *a,
                     int64_t b, int64_t h)
{
    const int64_t q = (b * a->sq * a->heads + h) * a->d;
    const int64_t kv = (b * a->sk * a->heads + h) * a->d;
    float scale = a->scale, one = 1.0f;
    void *given[DG_CUDNN_GIVEN] = {};

    given[DG_CUDNN_Q] = past_bf16(a->q, q);
    given[DG_CUDNN_K] = past_bf16(a->k, kv);
    given[DG_CUDNN_V] = past_bf16(a->v, kv);
    given[DG_CUDNN_O] = past_bf16(a->o, q);
    given[DG_CUDNN_LSE] = a->lse + (b * a->heads + h) * a->sq;
    given[DG_CUDNN_SCALE] = &scale;
    given[DG_CUDNN_DO] = past_bf16(a->d_o, q);
    given[DG_CUDNN_DQ] = past_bf16(a->dq, q);
    given[DG_CUDNN_DK] = past_bf16(a->dk, kv);
    given[DG_CUDNN_DV] = past_bf16(a->dv, kv);
    given[DG_CUDNN_DELTA] = s->workspace;
    given[DG_CUDNN_ONE] = &one;
    run(s, k->backward, given, s->cudnn->room);
}

static void backward(CudaStream *s, const Known *k, const AttentionArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t h = 0; h < a->heads; h += k->group)
            run_back(s, k, a, b, h);
}

/* --- whether bits repeat -------------------------------------------------- */

/* of the results; waits */
static uint64_t digest(const AttentionArgs *a, int back)
{
    const int64_t rows = a->batch * a->heads * a->sq;
    const size_t q = (size_t)(rows * a->d) * 2;
    const size_t kv = (size_t)(a->batch * a->heads * a->sk * a->d) * 2;

    if (back)
        return dg_cuda_digest(a->dq, q) ^ 3 * dg_cuda_digest(a->dk, kv) ^
               5 * dg_cuda_digest(a->dv, kv);
    if (a->lse == NULL)
        return dg_cuda_digest(a->o, q);
    return dg_cuda_digest(a->o, q) ^
           3 * dg_cuda_digest(a->lse, (size_t)rows * sizeof(float));
}

/*
 * A shape's first call, which is never captured, is done twice: the library's
 * notes do not say all of what its kernels do. Bits that differ end the run, since
 * what ranks see of chance need not be the same, and own kernels on some of them
 * alone would be worse.
 */
static void try_out(CudaStream *s, Known *k, const AttentionArgs *a, int back)
{
    void (*const call)(CudaStream *, const Known *, const AttentionArgs *) =
        back ? backward : forward;
    uint64_t first;

    if (!k->tried[back])
        dg_cuda_link_quiet(s);
    call(s, k, a);
    if (k->tried[back] || s->mode != DG_STREAM_RUNS)
        return;
    k->tried[back] = 1;
    first = digest(a, back);
    call(s, k, a);
    if (digest(a, back) != first)
        dg_cuda_note_text(back ? "attention by cuDNN, backward"
                               : "attention by cuDNN",
                          "the same call twice has given other bits: use "
                          "run.attention = \"own\" on this GPU");
}

extern "C" int dg_cuda_attention_cudnn(const AttentionArgs *a)
{
    CudaStream *s = dg_cuda_current();

    if (s->attention == NULL || !aligned(a))
        return 0;
    Known *its = known(s, a);
    if (its == NULL)
        return 0;
    if (!walks(s, its, a))
        try_out(s, its, a, 0);
    return 1;
}

extern "C" int dg_cuda_attention_cudnn_grad(const AttentionArgs *a)
{
    CudaStream *s = dg_cuda_current();

    if (s->attention == NULL || !aligned(a) || a->dbias != NULL)
        return 0;
    Known *its = known(s, a);
    if (its == NULL)
        return 0;
    if (s->cudnn->room == NULL)
        dg_panic("a way back of attention on a side stream");
    if (!walks(s, its, a))
        try_out(s, its, a, 1);
    return 1;
}
#else
int dg_cuda_attention_open(CudaStream *s, int back)
{
    return dg_cuda_cudnn_open(s, "run.attention", back);
}

extern "C" int dg_cuda_attention_library(CudaStream *s, char *version,
                                         size_t bytes)
{
    (void)version, (void)bytes;
    return dg_cuda_attention_open(s, 1);
}

void dg_cuda_attention_close(struct AttentionLibrary *a)
{
    (void)a;
}

extern "C" int dg_cuda_attention_cudnn(const AttentionArgs *a)
{
    (void)a;
    return 0;
}

extern "C" int dg_cuda_attention_cudnn_grad(const AttentionArgs *a)
{
    (void)a;
    return 0;
}
#endif
