#include "conv_turn.h"
#include "cudnn_stream.h"
#include "device.h"

extern "C" {
#include "base/log.h"
#include "cuda/conv_cudnn.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if DG_CUDNN
/*
 * The library wants weights tap by tap and a zoomed map as it is seen, and gives
 * gradients as float32 in places of their own: conv_turn.cu has what is around its
 * calls, in the stream's room. Weights are turned once for a call's batch, the
 * rest is a sample's.
 */
enum { MOST_SHAPES = 256, MOST_WHY = 300, MOST_TAPS = 64 };

/* what a choice depends on; zoomed and cut: the map is copied first */
typedef struct Shape {
    CudnnConv seen;
    int64_t copied;
} Shape;

typedef struct Known {
    Shape shape;
    CudnnPlan *plan[DG_CUDNN_WAYS];
    int asked[DG_CUDNN_WAYS], tried[DG_CUDNN_WAYS];
} Known;

struct ConvLibrary {
    int num;
    Known known[MOST_SHAPES];
};

/* --- life ---------------------------------------------------------------- */

extern "C" int dg_cuda_conv_library(CudaStream *s, char *version, size_t bytes)
{
    const int err = dg_cuda_cudnn_open(s, "run.convolution", 1);

    if (err)
        return err;
    s->conv = (struct ConvLibrary *)calloc(1, sizeof *s->conv);
    if (s->conv == NULL)
        return dg_fail(DG_ENOMEM, "convolutions by cuDNN");
    snprintf(version, bytes, "%s", dg_cudnn_version(s->cudnn->library));
    return DG_OK;
}

void dg_cuda_conv_close(struct ConvLibrary *l)
{
    for (int i = 0; l != NULL && i < l->num; ++i)
        for (int way = 0; way < DG_CUDNN_WAYS; ++way)
            dg_cudnn_plan_free(l->known[i].plan[way]);
    free(l);
}

/* --- the room -------------------------------------------------------------- */

/* Bytes, one behind the other: the map as it is seen, turned weights, a gradient
 * as float32; the rest is the library's. */
typedef struct Room {
    size_t map, weights, sums;
} Room;

static size_t rounded(int64_t bytes)
{
    return ((size_t)bytes + 255) & ~(size_t)255;
}

static size_t taken(const Room *r)
{
    return r->map + r->weights + r->sums;
}

static int64_t taps_of(const CudnnConv *c)
{
    return c->kernel_h * c->kernel_w;
}

static Room room_of(const Shape *s, CudnnWay way)
{
    const CudnnConv *c = &s->seen;
    const int64_t map = c->h * c->w * c->in;
    const int64_t weights = c->out * c->in * taps_of(c);
    Room r = {};

    if (s->copied && way != DG_CUDNN_DX_SUMS)
        r.map = rounded(2 * map);
    if (way != DG_CUDNN_DW_SUMS && taps_of(c) > 1)
        r.weights = rounded(2 * weights);
    if (way == DG_CUDNN_DX_SUMS)
        r.sums = rounded(4 * map);
    if (way == DG_CUDNN_DW_SUMS)
        r.sums = rounded(4 * weights);
    return r;
}

/* --- what the library is asked ------------------------------------------- */

/* NULL: it may be asked */
static const char *not_asked(const Shape *s, CudnnWay way)
{
    const CudnnConv *c = &s->seen;
    const Room r = room_of(s, way);

    return c->in % 4 != 0 || c->out % 4 != 0 ? "channels are no multiple of 4"
           : taps_of(c) > MOST_TAPS          ? "too many taps"
           : taken(&r) > DG_CUDNN_ROOM       ? "it has no room"
                                             : NULL;
}

static void ask(CudaStream *s, Known *k, CudnnWay way, char *why)
{
    const char *no = not_asked(&k->shape, way);
    const Room r = room_of(&k->shape, way);

    if (no != NULL) {
        snprintf(why, MOST_WHY, "%s", no);
        return;
    }
    dg_cuda_link_quiet(s); /* a plan may load kernels */
    dg_cuda_library_hold();
    dg_cudnn_conv(&k->plan[way], s->cudnn->library, &k->shape.seen, way,
                  DG_CUDNN_ROOM - taken(&r), why, MOST_WHY);
    dg_cuda_library_release();
}

/* Own kernels are told of in each way; the library's are what was asked for. */
static void tell(const Known *k, CudnnWay way, const char *why)
{
    static const char *const names[DG_CUDNN_WAYS] = {
        "", "", ", gradient of the map", ", gradient of the map",
        ", gradient of the weights"
    };
    const CudnnConv *c = &k->shape.seen;
    char text[160];

    snprintf(text, sizeof text,
             "convolution of %lld x %lld x %lld to %lld x %lld x %lld, %lld x "
             "%lld taps%s",
             (long long)c->h, (long long)c->w, (long long)c->in,
             (long long)c->out_h, (long long)c->out_w, (long long)c->out,
             (long long)c->kernel_h, (long long)c->kernel_w, names[way]);
    if (k->plan[way] == NULL)
        dg_info("%s: own kernels, not cuDNN's: %s", text, why);
    else if (way == DG_CUDNN_BIASED || way == DG_CUDNN_BARE)
        dg_info("%s: cuDNN's engine %lld", text,
                (long long)dg_cudnn_engine(k->plan[way]));
}

static Shape shape_of(const ConvArgs *a)
{
    Shape s = {};

    s.copied = a->zoom != 1 || a->cut_h != 0 || a->cut_w != 0;
    s.seen = CudnnConv { a->zoom * a->h - a->cut_h,
                         a->zoom * a->w - a->cut_w,
                         a->in,
                         a->out_h,
                         a->out_w,
                         a->out,
                         a->kernel_h,
                         a->kernel_w,
                         a->stride,
                         a->top,
                         a->left };
    return s;
}

static Known *find(struct ConvLibrary *l, const Shape *shape)
{
    for (int i = 0; i < l->num; ++i)
        if (memcmp(&l->known[i].shape, shape, sizeof *shape) == 0)
            return &l->known[i];
    if (l->num == MOST_SHAPES)
        return NULL;
    l->known[l->num].shape = *shape;
    return &l->known[l->num++];
}

/* NULL: own kernels */
static Known *known(CudaStream *s, const ConvArgs *a, CudnnWay way)
{
    const Shape shape = shape_of(a);
    Known *k = find(s->conv, &shape);
    char why[MOST_WHY] = "";

    if (k == NULL) {
        dg_cuda_note_text("convolution", "more shapes than are kept");
        return NULL;
    }
    if (!k->asked[way]) {
        if (s->mode == DG_STREAM_CAPTURES)
            dg_panic("a convolution that is captured has not been walked");
        k->asked[way] = 1;
        ask(s, k, way, why);
        tell(k, way, why);
    }
    return k->plan[way] != NULL ? k : NULL;
}

/* Where samples begin, which the library is told to be aligned. */
static int aligned(const ConvArgs *a)
{
    const void *all[] = { a->x, a->weight, a->bias, a->y, a->dy, a->dx };
    uintptr_t bits = (uintptr_t)(2 * a->h * a->w * a->in) |
                     (uintptr_t)(2 * a->out_h * a->out_w * a->out);

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        bits |= (uintptr_t)all[i];
    return bits % 16 == 0;
}

/* --- calls --------------------------------------------------------------- */

/* One sample's; 'written' is what comes of it. */
typedef struct Call {
    const CudnnPlan *plan;
    void *given[DG_CUDNN_GIVEN];
    void *workspace, *written;
    size_t bytes;
} Call;

static void note(const char *why)
{
    if (why != NULL)
        dg_cuda_note_text("convolution by cuDNN", why);
}

/* 1 within a step that is only walked */
static int walks(CudaStream *s, const Call *c)
{
    dg_cuda_walks(s, &c->plan, sizeof c->plan);
    return dg_cuda_walks(s, c->given, sizeof c->given);
}

static void run(CudaStream *s, const Call *c)
{
    if (walks(s, c))
        return;
    dg_cuda_link_launches(s);
    note(dg_cudnn_run(c->plan, c->given, c->workspace));
}

/* --- a first call is tried ------------------------------------------------- */

typedef struct Tried {
    const Call *call;
    const char *why; /* what the library says; NULL: it is queued */
} Tried;

static void queue(void *user)
{
    Tried *t = (Tried *)user;

    t->why = dg_cudnn_run(t->call->plan, t->call->given, t->call->workspace);
}

/* The call as a graph, once. */
static cudaError_t run_graph(CudaStream *s, const Call *c)
{
    Tried tried = { c, NULL };
    cudaGraph_t graph;
    cudaGraphExec_t exec = NULL;
    cudaError_t e = dg_cuda_capture(s, &graph, queue, &tried);

    if (e == cudaSuccess && tried.why != NULL)
        e = cudaErrorInvalidValue;
    if (e == cudaSuccess)
        e = cudaGraphInstantiate(&exec, graph, 0);
    if (e == cudaSuccess)
        e = cudaGraphLaunch(exec, s->stream);
    if (e == cudaSuccess)
        e = cudaStreamSynchronize(s->stream);
    if (exec != NULL)
        cudaGraphExecDestroy(exec);
    if (graph != NULL)
        cudaGraphDestroy(graph);
    cudaGetLastError();
    return e;
}

/* What a call leaves where nothing was, as one number. Waits. */
static uint64_t outcome(CudaStream *s, const Call *c, int as_graph)
{
    dg_cuda_note(cudaMemsetAsync(c->written, 0xff, c->bytes, s->stream),
                 "a trial's place");
    if (!as_graph)
        note(dg_cudnn_run(c->plan, c->given, c->workspace));
    else if (run_graph(s, c) != cudaSuccess)
        note("this GPU cannot keep its call in a graph: use run.convolution = "
             "\"own\", or parallel.graphs = false");
    return dg_cuda_digest(c->written, c->bytes);
}

/*
 * A shape's first call, which is never captured, is done twice before it counts,
 * and once as a graph where steps are replayed: the library's notes do not say all
 * of what its kernels do. What differs ends the run: own kernels on some ranks
 * alone would be worse.
 */
static void try_out(CudaStream *s, Known *k, CudnnWay way, const Call *c)
{
    if (k->tried[way] || s->mode != DG_STREAM_RUNS)
        return;
    k->tried[way] = 1;
    dg_cuda_link_quiet(s); /* first calls load kernels */

    const uint64_t first = outcome(s, c, 0);
    int same = outcome(s, c, 0) == first;
    if (s->graphs != NULL)
        same &= outcome(s, c, 1) == first;
    if (!same)
        note("the same call twice has given other bits: use run.convolution = "
             "\"own\" on this GPU");
}

/* --- a batch ---------------------------------------------------------------- */

/* a way of a shape, with its places in the room */
typedef struct Work {
    const ConvArgs *a;
    Known *k;
    CudnnWay way;
    char *map, *weights, *sums, *rest;
} Work;

static Work work_of(CudaStream *s, const ConvArgs *a, Known *k, CudnnWay way)
{
    const Room r = room_of(&k->shape, way);
    char *at = s->cudnn->room;

    return Work {
        a, k, way, at, at + r.map, at + r.map + r.weights, at + taken(&r)
    };
}

static const float *sample_of(const float *all, int64_t b, int64_t each)
{
    return past<__nv_bfloat16>(all, b * each);
}

/* the map of sample b as windows see it */
static const float *seen(const Work *w, int64_t b)
{
    const ConvArgs *a = w->a;
    const float *x = sample_of(a->x, b, a->h * a->w * a->in);

    if (!w->k->shape.copied)
        return x;
    dg_cuda_conv_zoom((float *)w->map, x, a);
    return (const float *)w->map;
}

static Call call_of(const Work *w, int64_t b)
{
    const ConvArgs *a = w->a;
    const CudnnConv *c = &w->k->shape.seen;
    const int64_t x = a->h * a->w * a->in, y = a->out_h * a->out_w * a->out;
    const int sums = w->way >= DG_CUDNN_DX_SUMS;
    const int forward = w->way <= DG_CUDNN_BARE;
    Call call = {};

    call.plan = w->k->plan[w->way];
    call.workspace = w->rest;
    call.given[DG_CUDNN_BIAS] = (void *)a->bias;
    call.given[DG_CUDNN_Y] =
        (void *)(forward ? sample_of(a->y, b, y) : sample_of(a->dy, b, y));
    call.given[DG_CUDNN_W] =
        taps_of(c) > 1 ? (void *)w->weights : (void *)a->weight;
    if (w->way == DG_CUDNN_DX || sums) {
        call.written = sums ? w->sums : (char *)sample_of(a->dx, b, x);
        call.given[DG_CUDNN_X] = call.written;
        call.bytes = (size_t)(c->h * c->w * c->in) * (sums ? 4 : 2);
    }
    if (forward) {
        call.given[DG_CUDNN_X] = (void *)seen(w, b);
        call.written = call.given[DG_CUDNN_Y];
        call.bytes = (size_t)y * 2;
    }
    if (w->way == DG_CUDNN_DW_SUMS) {
        call.given[DG_CUDNN_X] = (void *)seen(w, b);
        call.given[DG_CUDNN_W] = w->sums;
        call.bytes = (size_t)(c->out * c->in * taps_of(c)) * 4;
    }
    return call;
}

static void each_sample(CudaStream *s, const Work *w)
{
    const ConvArgs *a = w->a;

    if (w->way != DG_CUDNN_DW_SUMS && taps_of(&w->k->shape.seen) > 1)
        dg_cuda_conv_turn((float *)w->weights, a);
    for (int64_t b = 0; b < a->batch; ++b) {
        const Call c = call_of(w, b);

        try_out(s, w->k, w->way, &c);
        run(s, &c);
        if (w->way == DG_CUDNN_DX_SUMS)
            dg_cuda_conv_pool(
                past<__nv_bfloat16>(a->dx, b * a->h * a->w * a->in),
                (const float *)w->sums, a);
        if (w->way == DG_CUDNN_DW_SUMS)
            dg_cuda_conv_turn_back((const float *)w->sums, a);
    }
}

static int by_cudnn(const ConvArgs *a, CudnnWay way)
{
    CudaStream *s = dg_cuda_current();

    if (s->conv == NULL || !aligned(a))
        return 0;
    Known *k = known(s, a, way);
    if (k == NULL)
        return 0;

    const Work w = work_of(s, a, k, way);
    each_sample(s, &w);
    return 1;
}

extern "C" int dg_cuda_conv_cudnn(const ConvArgs *a)
{
    return by_cudnn(a, a->bias != NULL ? DG_CUDNN_BIASED : DG_CUDNN_BARE);
}

extern "C" int dg_cuda_conv_cudnn_input_grad(const ConvArgs *a)
{
    const int whole = a->zoom == 1 && a->cut_h == 0 && a->cut_w == 0;

    return by_cudnn(a,
                    whole && !a->accumulate ? DG_CUDNN_DX : DG_CUDNN_DX_SUMS);
}

extern "C" int dg_cuda_conv_cudnn_weight_grad(const ConvArgs *a)
{
    return by_cudnn(a, DG_CUDNN_DW_SUMS);
}
#else
extern "C" int dg_cuda_conv_library(CudaStream *s, char *version, size_t bytes)
{
    (void)version, (void)bytes;
    return dg_cuda_cudnn_open(s, "run.convolution", 1);
}

void dg_cuda_conv_close(struct ConvLibrary *l)
{
    (void)l;
}

extern "C" int dg_cuda_conv_cudnn(const ConvArgs *a)
{
    (void)a;
    return 0;
}

extern "C" int dg_cuda_conv_cudnn_input_grad(const ConvArgs *a)
{
    (void)a;
    return 0;
}

extern "C" int dg_cuda_conv_cudnn_weight_grad(const ConvArgs *a)
{
    (void)a;
    return 0;
}
#endif
