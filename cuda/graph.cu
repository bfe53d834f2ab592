#include "stream.h"

extern "C" {
#include "base/log.h"
}

#include <stdlib.h>
#include <string.h>

/*
 * Steps that are replayed. A step is the host's code of a forward pass. It is
 * walked through each time, but while it is, nothing is queued: launches are
 * only folded into a signature, and what the host hands up is packed. Where a
 * graph with this signature is kept, the pack goes up in one copy and the graph
 * is launched: one call in place of some thousand. Else the step is run as
 * ever, and captured when the signature comes a second time. So a graph can
 * never stand for anything but exactly these launches with these arguments.
 *
 * What the host hands up lands in 'inputs', at places that the signature fixes,
 * and the graph itself moves it to where the step wants it: memory of a step
 * may serve several things one after the other. What differs from step to step
 * and lies on the device, the latents, is copied to 'inputs' before.
 *
 * Two packs of pinned memory alternate: the host is two steps ahead at most.
 */
enum {
    GRAPHS = 32,      /* kept, */
    SEEN = 64,        /* and signatures that came once */
    MOST_MOVED = 128, /* arrays of a kind */
    ALIGN = 256
};

typedef struct Signature {
    uint64_t a, b;
} Signature;

typedef struct Graph {
    Signature is;
    cudaGraphExec_t exec;
} Graph;

struct GraphCache {
    char *inputs; /* device: what is moved, up to moved_bytes, then a pack */
    size_t moved_bytes;
    size_t pack_at, used;
    char *pack[2];     /* [DG_PACK_BYTES], pinned */
    cudaEvent_t up[2]; /* it has been read */
    int turn;
    Signature now; /* of the step in work */
    int unfit;     /* it cannot be replayed */
    int full;      /* the device has no room for more graphs */
    Graph graph[GRAPHS];
    Signature seen[SEEN];
    int num_graphs, num_seen, next_graph, next_seen;
};

/* --- life ---------------------------------------------------------------- */

extern "C" int dg_cuda_replays(CudaStream *s)
{
    struct GraphCache *g = (struct GraphCache *)calloc(1, sizeof *g);
    size_t unused, all = 0;
    cudaError_t e;

    if (g == NULL)
        return dg_fail(DG_ENOMEM, "replayed steps");
    s->graphs = g;
    e = cudaMemGetInfo(&unused, &all);
    g->moved_bytes =
        all >= (size_t)4 << 30 ? DG_MOVED_BYTES_LARGE : DG_MOVED_BYTES;
    if (e == cudaSuccess)
        e = cudaMalloc((void **)&g->inputs, g->moved_bytes + DG_PACK_BYTES);
    for (int i = 0; i < 2 && e == cudaSuccess; ++i) {
        e = cudaMallocHost((void **)&g->pack[i], DG_PACK_BYTES);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&g->up[i], cudaEventDisableTiming);
    }
    if (e == cudaSuccess)
        return DG_OK;
    cudaGetLastError();
    return dg_fail(DG_ENOMEM, "CUDA: %zu bytes for replayed steps: %s",
                   g->moved_bytes + DG_PACK_BYTES, cudaGetErrorString(e));
}

void dg_cuda_graphs_destroy(struct GraphCache *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < g->num_graphs; ++i)
        cudaGraphExecDestroy(g->graph[i].exec);
    for (int i = 0; i < 2; ++i) {
        if (g->up[i] != NULL)
            cudaEventDestroy(g->up[i]);
        cudaFreeHost(g->pack[i]);
    }
    cudaFree(g->inputs);
    free(g);
}

/* --- a step on its way --------------------------------------------------- */

/* two chains of multiply and rotate over whole words */
static void fold(Signature *s, uint64_t x)
{
    s->a = (s->a ^ x) * 0x9e3779b97f4a7c15u;
    s->a ^= s->a >> 29;
    s->b = (s->b + x) * 0xc2b2ae3d27d4eb4fu;
    s->b = s->b << 31 | s->b >> 33;
}

int dg_cuda_walks(CudaStream *s, const void *what, size_t bytes)
{
    if (s->mode == DG_STREAM_RUNS)
        return 0;
    fold(&s->graphs->now, bytes);
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = 0;

        memcpy(&word, (const char *)what + i,
               bytes - i < sizeof word ? bytes - i : sizeof word);
        fold(&s->graphs->now, word);
    }
    return s->mode == DG_STREAM_WALKS;
}

void dg_cuda_pack(CudaStream *s, void *device, const void *host, size_t bytes)
{
    struct GraphCache *g = s->graphs;
    const size_t at = (g->used + ALIGN - 1) / ALIGN * ALIGN;
    const uint64_t what[] = { (uint64_t)(uintptr_t)device, bytes, at };

    if (at + bytes - g->pack_at > DG_PACK_BYTES) {
        g->unfit = 1;
        return;
    }
    memcpy(g->pack[g->turn] + (at - g->pack_at), host, bytes);
    g->used = at + bytes;
    if (!dg_cuda_walks(s, what, sizeof what))
        dg_cuda_note(cudaMemcpyAsync(device, g->inputs + at, bytes,
                                     cudaMemcpyDeviceToDevice, s->stream),
                     "copy of a step's input");
}

static void go_through(CudaStream *s, StreamMode mode, void (*step)(void *),
                       void *user)
{
    struct GraphCache *g = s->graphs;

    g->now = (Signature) { 1, 2 };
    g->used = g->pack_at;
    g->unfit = 0;
    s->mode = mode;
    step(user);
    s->mode = DG_STREAM_RUNS;
}

/* --- graphs -------------------------------------------------------------- */

static int same(Signature x, Signature y)
{
    return x.a == y.a && x.b == y.b;
}

static Graph *find(struct GraphCache *g)
{
    for (int i = 0; i < g->num_graphs; ++i)
        if (same(g->graph[i].is, g->now))
            return &g->graph[i];
    return NULL;
}

/* 1 if the signature came before; else it has now. */
static int came_before(struct GraphCache *g)
{
    for (int i = 0; i < g->num_seen; ++i)
        if (same(g->seen[i], g->now))
            return 1;
    g->seen[g->next_seen] = g->now;
    g->next_seen = (g->next_seen + 1) % SEEN;
    if (g->num_seen < SEEN)
        ++g->num_seen;
    return 0;
}

/* in place of the oldest, where all are taken */
static Graph *keep(struct GraphCache *g, cudaGraphExec_t exec)
{
    Graph *at = &g->graph[g->next_graph];

    if (g->num_graphs < GRAPHS)
        ++g->num_graphs;
    else
        cudaGraphExecDestroy(at->exec);
    g->next_graph = (g->next_graph + 1) % GRAPHS;
    *at = (Graph) { g->now, exec };
    return at;
}

/* On the device: what graphs take there is not planned, so that the driver's
 * room is left for what it needs for certain. */
static cudaError_t place(CudaStream *s, cudaGraphExec_t *exec,
                         cudaGraph_t graph)
{
    size_t unused = 0, all;
    cudaError_t e = cudaGraphInstantiate(exec, graph, 0);

    if (e == cudaSuccess)
        e = cudaGraphUpload(*exec, s->stream);
    if (e == cudaSuccess)
        e = cudaMemGetInfo(&unused, &all);
    if (e == cudaSuccess && unused < DG_LATER_BYTES / 2)
        e = cudaErrorMemoryAllocation;
    if (e == cudaErrorMemoryAllocation) {
        s->graphs->full = 1;
        dg_info("a GPU is full: steps are no longer kept as graphs");
    }
    return e;
}

typedef struct Captured {
    CudaStream *s;
    void (*step)(void *);
    void *user;
} Captured;

static void capture_step(void *user)
{
    const Captured *c = (const Captured *)user;

    go_through(c->s, DG_STREAM_CAPTURES, c->step, c->user);
}

/* NULL where the step cannot be captured: it has not been run then. */
static Graph *capture(CudaStream *s, void (*step)(void *), void *user)
{
    const int failed = s->failed;
    Captured what = { s, step, user };
    cudaGraph_t graph;
    cudaGraphExec_t exec = NULL;
    cudaError_t e = dg_cuda_capture(s, &graph, capture_step, &what);

    if (e == cudaSuccess && !s->graphs->unfit)
        e = place(s, &exec, graph);
    if (graph != NULL)
        cudaGraphDestroy(graph);
    if (e == cudaSuccess && exec != NULL)
        return keep(s->graphs, exec);
    if (exec != NULL)
        cudaGraphExecDestroy(exec);
    cudaGetLastError();
    s->failed = failed; /* the step runs once more */
    return NULL;
}

static void launch(CudaStream *s, const Graph *graph)
{
    struct GraphCache *g = s->graphs;
    const size_t bytes = g->used - g->pack_at;
    const int turn = g->turn;

    if (bytes > 0)
        dg_cuda_upload(g->inputs + g->pack_at, g->pack[turn], bytes);
    dg_cuda_note(cudaEventRecord(g->up[turn], s->stream), "a step's inputs");
    g->turn = !turn;
    dg_cuda_note(cudaGraphLaunch(graph->exec, s->stream), "a replayed step");
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Which of those before it is the same array; its own number if none is. */
static int64_t first_of(const Moving *m, int64_t i)
{
    int64_t j = 0;

    while (m->at[j] != m->at[i])
        ++j;
    return j;
}

/* What these take behind 'at', each once. place [num] out */
static size_t places(size_t *place, const Moving *m, size_t at)
{
    for (int64_t i = 0; i < m->num; ++i) {
        const int64_t first = first_of(m, i);

        place[i] = first < i ? place[first] : at;
        if (first == i)
            at += aligned((size_t)m->count * sizeof(float));
    }
    return at;
}

/* To 'inputs' from 'at' on, where they are already on a way back. The end of them;
 * 'at' if they do not fit, and stay where they are. */
static size_t move(CudaStream *s, const Moving *m, size_t at)
{
    size_t place[MOST_MOVED];
    size_t end;

    if (m->num > MOST_MOVED)
        return at;
    end = places(place, m, at);
    if (end > s->graphs->moved_bytes)
        return at;
    for (int64_t i = 0; i < m->num; ++i) {
        char *to = s->graphs->inputs + place[i];

        /* not twice: what is before it is moved already */
        if (m->at[i] != (const float *)to &&
            (i == 0 || place[i] > place[i - 1]))
            dg_cuda_note(cudaMemcpyAsync(to, m->at[i],
                                         (size_t)m->count * sizeof(float),
                                         cudaMemcpyDeviceToDevice, s->stream),
                         "copy of a step's input");
    }
    for (int64_t i = 0; i < m->num; ++i)
        m->at[i] = (const float *)(s->graphs->inputs + place[i]);
    return end;
}

void dg_cuda_replay(void (*step)(void *), void *user, const Moving *moving,
                    int kinds)
{
    CudaStream *s = dg_cuda_current();
    struct GraphCache *g = s->graphs;
    Graph *graph;
    size_t at = 0;

    if (g != NULL && kinds > 0)
        at = move(s, &moving[0], 0);
    if (g == NULL || (kinds > 0 && moving[0].num > 0 && at == 0)) {
        step(user);
        return;
    }
    for (int k = 1; k < kinds; ++k)
        at = move(s, &moving[k], at);
    g->pack_at = at;
    dg_cuda_link_wait(s, g->up[g->turn]);
    dg_cuda_note(cudaEventSynchronize(g->up[g->turn]), "a step's inputs");
    go_through(s, DG_STREAM_WALKS, step, user);
    graph = g->unfit ? NULL : find(g);
    if (graph == NULL && !g->unfit && !g->full && came_before(g))
        graph = capture(s, step, user);
    if (graph != NULL)
        launch(s, graph);
    else
        step(user);
}
