#include "train/team.h"

#include "base/error.h"
#include "base/memory.h"
#include "team_bucket.h"
#include "train/pool.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* NULL: the host's memory */
static const Backend *sums_on(const TeamOpts *o)
{
    return o->offload ? NULL : o->backend;
}

static Shard shard_of(const TeamOpts *o)
{
    Shard s;

    if (o->shard.size > 0)
        return o->shard;
    dg_shard_outline(&s, 0, 1, DG_SHARD_NONE, o->num_grads, 1);
    return s;
}

/* Elements of the sum of a worker. */
static int64_t num_sums(const TeamOpts *o, int worker)
{
    const Shard s = shard_of(o);

    if (!dg_shard_rounds(&s))
        return o->num_grads;
    return worker == 0 ? s.num : 0;
}

/* Sums of a round go through a place of their own: with no other rank they are
 * where they belong at once. */
static int sums_travel(const TeamOpts *o)
{
    const Shard s = shard_of(o);

    return dg_shard_rounds(&s) && s.size > 1;
}

/* Floats of a worker's gradient. */
static size_t room_of(const TeamOpts *o)
{
    return (size_t)(o->num_room > 0 ? o->num_room : o->num_grads);
}

static int64_t piece_of(const TeamOpts *o)
{
    const int64_t piece = o->piece > 0 ? o->piece : DG_TEAM_PIECE;

    return piece < o->num_grads ? piece : o->num_grads;
}

/* Where they are on their way to other ranks. */
static const Backend *bucket_on(const TeamOpts *o)
{
    return o->sends ? o->backend : sums_on(o);
}

static int new_sum(ExactSum *s, void **buffer, const TeamOpts *o,
                   const Backend *on, int64_t num)
{
    const int err =
        dg_kernel_memory_new(buffer, on, dg_exact_bytes(num, o->exact));

    if (err)
        return dg_fail(DG_ENOMEM, "gradient sums of %lld parameters",
                       (long long)num);
    return dg_engine_of(on)->exact_init(s, *buffer, num, o->exact,
                                        DG_EXACT_SCALE_BITS, o->max_items);
}

static int init_sums(Worker *w, const TeamOpts *o)
{
    if (dg_kernel_memory_new((void **)&w->grads, o->backend,
                             sizeof(float) * room_of(o)))
        return dg_fail(DG_ENOMEM, "gradients of %lld parameters",
                       (long long)o->num_grads);
    return new_sum(&w->sum, &w->sum_buffer, o, sums_on(o),
                   num_sums(o, w->index));
}

/* What all workers' sums go through. */
static int init_ways(Team *t, const TeamOpts *o)
{
    int err = DG_OK;

    t->shard = shard_of(o);
    t->sums = dg_engine_of(sums_on(o));
    t->piece = piece_of(o);
    t->host_threads = o->host_threads > 0 ? o->host_threads : 1;
    t->bucket_on = bucket_on(o);
    if (sums_travel(o))
        err = new_sum(&t->bucket, &t->bucket_buffer, o, t->bucket_on, t->piece);
    /* float32 sums depend on how they are cut */
    if (!err && o->bucket > 0 && o->exact && o->num_threads == 1 &&
        !o->offload && t->sums->sends != NULL && o->num_room == 0)
        err = dg_buckets_create(&t->buckets, t, o->bucket);
    t->sends_early = t->buckets != NULL;
    if (err || !o->backend->apart)
        return err;
    t->down = o->offload;
    t->sends = o->sends;
    if (!t->down)
        t->stage = dg_memory_new(dg_team_stage_bytes(o));
    return t->down || t->stage != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "gradient sums on their way");
}

static int init_worker(Worker *w, const TeamOpts *o)
{
    const Backend *be = o->backend;
    int err = dg_context_init(&w->ctx, be, o->step_bytes);

    if (err)
        return err;
    w->engine = dg_engine_of(be);
    w->scratch = calloc(1, o->scratch_bytes + 1);
    if (w->scratch == NULL)
        return dg_fail(DG_ENOMEM, "worker scratch of %zu bytes",
                       o->scratch_bytes);
    w->room = w->scratch;
    if (be->apart)
        err = be->take(&w->room, o->scratch_bytes);
    if (!err)
        err = dg_mirror_new(&w->log_prob, be, DG_TEAM_NUMBERS * sizeof(float),
                            "numbers of a step");
    if (!err)
        err = dg_mirror_new(&w->kl, be, 2 * DG_TEAM_NUMBERS * sizeof(double),
                            "numbers of a step");
    if (!err)
        err = dg_mirror_new(&w->bad, be, DG_TEAM_NUMBERS * sizeof(int64_t),
                            "flags of a step");
    if (!err && o->num_grads > 0 && be->replay != NULL) {
        w->saved = calloc(1, dg_context_saved_bytes());
        if (w->saved == NULL)
            err = dg_fail(DG_ENOMEM, "ways back that are replayed");
    }
    return err || o->num_grads == 0 ? err : init_sums(w, o);
}

static void fini_worker(Worker *w, const Backend *sums)
{
    const Backend *be = w->ctx.backend;

    if (w->room != w->scratch)
        be->give(w->room);
    free(w->scratch);
    free(w->saved);
    dg_mirror_free(&w->log_prob);
    dg_mirror_free(&w->kl);
    dg_mirror_free(&w->bad);
    dg_kernel_memory_free(be, w->grads);
    dg_kernel_memory_free(sums, w->sum_buffer);
    if (be != NULL)
        dg_context_fini(&w->ctx);
}

/* Workers of a round wait for each other: OpenMP may not give fewer threads, as
 * OMP_DYNAMIC has it do where a machine is busy. */
int dg_team_threads(int num)
{
    int there = 1;

    if (num == 1)
        return DG_OK;
    omp_set_dynamic(0);
    if (omp_get_max_active_levels() < 1)
        omp_set_max_active_levels(1);
#pragma omp parallel num_threads(num)
#pragma omp single
    there = omp_get_num_threads();
    return there == num ? DG_OK
                        : dg_fail(DG_EINVAL,
                                  "run.threads = %d: OpenMP has %d here: must "
                                  "be at most as many (OMP_THREAD_LIMIT)",
                                  num, there);
}

int dg_team_create(Team **out, const TeamOpts *o)
{
    Team *t = calloc(1, sizeof *t);
    int err = DG_OK;

    if (t == NULL)
        return dg_fail(DG_ENOMEM, "team");
    err = dg_team_threads(o->num_threads);
    if (err) {
        free(t);
        return err;
    }
    t->workers = calloc((size_t)o->num_threads, sizeof *t->workers);
    if (t->workers == NULL) {
        free(t);
        return dg_fail(DG_ENOMEM, "team");
    }
    /* libraries must not open teams of their own inside a worker */
    omp_set_num_threads(1);
    t->num_grads = o->num_grads;
    t->sums_on = sums_on(o);
    for (t->num = 0; t->num < o->num_threads && !err; t->num++) {
        t->workers[t->num].index = t->num;
        t->workers[t->num].team = t;
        err = init_worker(&t->workers[t->num], o);
    }
    if (!err && o->num_grads > 0)
        err = init_ways(t, o);
    if (err) {
        dg_team_destroy(t);
        return err;
    }
    t->bytes = dg_team_bytes(o);
    *out = t;
    return DG_OK;
}

int64_t dg_team_bucket(const Config *c)
{
    return c->parallel.overlap ? c->parallel.bucket_size : 0;
}

size_t dg_team_sum_bytes(const TeamOpts *o)
{
    int64_t num = sums_travel(o) ? piece_of(o) : 0;

    for (int i = 0; i < o->num_threads; i++)
        num += num_sums(o, i);
    return dg_exact_bytes(num, o->exact);
}

size_t dg_team_bucket_bytes(const TeamOpts *o)
{
    return o->sends ? dg_exact_bytes(piece_of(o), o->exact) : 0;
}

size_t dg_team_stage_bytes(const TeamOpts *o)
{
    return o->offload ? 0 : dg_exact_bytes(piece_of(o), o->exact);
}

size_t dg_team_bytes(const TeamOpts *o)
{
    return (size_t)o->num_threads *
               (o->step_bytes + o->scratch_bytes + sizeof(float) * room_of(o)) +
           dg_team_sum_bytes(o);
}

void dg_team_destroy(Team *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < t->num; i++)
        fini_worker(&t->workers[i], t->sums_on);
    dg_kernel_memory_free(t->bucket_on, t->bucket_buffer);
    dg_buckets_destroy(t->buckets);
    free(t->workers);
    free(t->stage);
    free(t);
}

void dg_worker_unflag(Worker *w)
{
    memset(w->bad.host, 0xff, w->bad.bytes); /* -1 each */
    dg_mirror_up(&w->bad);
}

typedef struct Failure {
    int64_t item; /* lowest failed one; num if none */
    Error error;
} Failure;

static void note_failure(Failure *f, int64_t item)
{
#pragma omp critical(dg_team_failure)
    if (item < f->item) {
#pragma omp atomic write
        f->item = item;
        f->error = *dg_last_error();
    }
}

static int run(Team *t, int64_t num, TeamFn fn, void *user)
{
    Failure failure = { .item = num };

    /* few items: one for each, as the rounds of dg_team_sum() need it */
    omp_set_schedule(num > t->num ? omp_sched_dynamic : omp_sched_static, 1);
#pragma omp parallel num_threads(t->num)
    {
        Worker *w = &t->workers[omp_get_thread_num()];

        omp_set_num_threads(1);
#pragma omp for schedule(runtime)
        for (int64_t i = 0; i < num; i++) {
            int64_t failed;

#pragma omp atomic read
            failed = failure.item;
            /* of a round all begin: others may wait for them */
            if ((i < failed || num <= t->num) && fn(w, i, user) != DG_OK)
                note_failure(&failure, i);
        }
    }
    if (failure.item == num)
        return DG_OK;
    dg_set_error(&failure.error);
    return failure.error.code;
}

int dg_team_run(Team *t, int64_t num, TeamFn fn, void *user)
{
    const int err = run(t, num, fn, user);

    return t->pool != NULL && dg_pool_lends(t->pool)
               ? dg_pool_leave(t->pool, err)
               : err;
}

int64_t dg_team_take_early(Team *t)
{
    const int64_t early = t->early;

    t->early = 0;
    return early;
}

uint64_t dg_team_take_flops(Team *t)
{
    uint64_t flops = 0;

    for (int i = 0; i < t->num; i++) {
        flops += t->workers[i].ctx.flops;
        t->workers[i].ctx.flops = 0;
    }
    return flops;
}

size_t dg_team_peak(const Team *t)
{
    size_t peak = 0;

    for (int i = 0; i < t->num; i++)
        if (t->workers[i].ctx.arena.peak > peak)
            peak = t->workers[i].ctx.arena.peak;
    return peak;
}
