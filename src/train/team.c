#include "train/team.h"

#include "base/error.h"
#include "base/memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

static int init_sums(Worker *w, const TeamOpts *o)
{
    int err = dg_kernel_memory_new((void **)&w->grads, o->backend,
                                   sizeof(float) * (size_t)o->num_grads);

    if (!err)
        err = dg_kernel_memory_new(&w->sum_buffer, o->backend,
                                   dg_exact_bytes(o->num_grads, o->exact));
    if (err)
        return dg_fail(DG_ENOMEM, "gradients of %lld parameters",
                       (long long)o->num_grads);
    return w->engine->exact_init(&w->sum, w->sum_buffer, o->num_grads, o->exact,
                                 DG_EXACT_SCALE_BITS, o->max_items);
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
        err = dg_mirror_new(&w->kl, be, DG_TEAM_NUMBERS * sizeof(double),
                            "numbers of a step");
    if (!err)
        err = dg_mirror_new(&w->bad, be, DG_TEAM_NUMBERS * sizeof(int64_t),
                            "flags of a step");
    return err || o->num_grads == 0 ? err : init_sums(w, o);
}

static void fini_worker(Worker *w)
{
    const Backend *be = w->ctx.backend;

    if (w->room != w->scratch)
        be->give(w->room);
    free(w->scratch);
    dg_mirror_free(&w->log_prob);
    dg_mirror_free(&w->kl);
    dg_mirror_free(&w->bad);
    dg_kernel_memory_free(be, w->grads);
    dg_kernel_memory_free(be, w->sum_buffer);
    if (be != NULL)
        dg_context_fini(&w->ctx);
}

int dg_team_create(Team **out, const TeamOpts *o)
{
    Team *t = calloc(1, sizeof *t);
    int err = DG_OK;

    if (t == NULL)
        return dg_fail(DG_ENOMEM, "team");
    t->workers = calloc((size_t)o->num_threads, sizeof *t->workers);
    if (t->workers == NULL) {
        free(t);
        return dg_fail(DG_ENOMEM, "team");
    }
    /* libraries must not open teams of their own inside a worker */
    omp_set_num_threads(1);
    t->num_grads = o->num_grads;
    for (t->num = 0; t->num < o->num_threads && !err; t->num++) {
        t->workers[t->num].index = t->num;
        err = init_worker(&t->workers[t->num], o);
    }
    if (!err && o->backend->apart && o->num_grads > 0) {
        t->sum_host = dg_memory_new(dg_exact_bytes(o->num_grads, o->exact));
        if (t->sum_host == NULL)
            err = dg_fail(DG_ENOMEM, "gradient sums on their way");
    }
    if (err) {
        dg_team_destroy(t);
        return err;
    }
    t->bytes = dg_team_bytes(o);
    *out = t;
    return DG_OK;
}

size_t dg_team_bytes(const TeamOpts *o)
{
    const size_t learning = o->num_grads > 0
                                ? sizeof(float) * (size_t)o->num_grads +
                                      dg_exact_bytes(o->num_grads, o->exact)
                                : 0;

    return (size_t)o->num_threads *
           (o->step_bytes + o->scratch_bytes + learning);
}

void dg_team_destroy(Team *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < t->num; i++)
        fini_worker(&t->workers[i]);
    free(t->workers);
    free(t->sum_host);
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
        f->item = item;
        f->error = *dg_last_error();
    }
}

int dg_team_run(Team *t, int64_t num, TeamFn fn, void *user)
{
    Failure failure = { .item = num };

#pragma omp parallel num_threads(t->num)
    {
        Worker *w = &t->workers[omp_get_thread_num()];

        omp_set_num_threads(1);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < num; i++) {
            int64_t failed;

#pragma omp atomic read
            failed = failure.item;
            if (i < failed && fn(w, i, user) != DG_OK)
                note_failure(&failure, i);
        }
    }
    if (failure.item == num)
        return DG_OK;
    dg_set_error(&failure.error);
    return failure.error.code;
}

void dg_team_clear_sums(Team *t)
{
    for (int i = 0; i < t->num; i++)
        t->workers[i].engine->exact_clear(&t->workers[i].sum);
}

int dg_team_merge_sums(Team *t)
{
    int err = DG_OK;

    for (int i = 1; i < t->num && !err; i++)
        err = t->workers[0].engine->exact_merge(&t->workers[0].sum,
                                                &t->workers[i].sum);
    return err;
}

int dg_team_reduce_sums(Team *t, const Comm *c)
{
    Worker *w = &t->workers[0];
    const Backend *be = w->ctx.backend;
    const size_t bytes = dg_exact_bytes(w->sum.num, w->sum.fixed != NULL);
    ExactSum here = w->sum;
    int err;

    if (t->sum_host == NULL)
        return dg_exact_allreduce(c, &w->sum);
    if (w->engine->exact_allreduce != NULL) {
        int done = 0;

        err = w->engine->exact_allreduce(c, &w->sum, &done);
        if (err || done)
            return err;
    }
    if (here.fixed != NULL)
        here.fixed = t->sum_host;
    else
        here.plain = t->sum_host;
    err = dg_agree(c, be->download(t->sum_host, w->sum_buffer, bytes));
    if (!err)
        err = dg_exact_allreduce(c, &here);
    if (err)
        return err;
    be->upload(w->sum_buffer, t->sum_host, bytes);
    w->sum.items = here.items;
    return DG_OK;
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
