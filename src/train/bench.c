/* Whole iterations: where their time goes, and how ranks share it. */
#include "train/bench.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "optim/adamw.h"
#include "trainer.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEATS = 64 };

/* --- one iteration ----------------------------------------------------- */

static int iterate(Trainer *t)
{
    const UpdateJob job = dg_trainer_update(t);
    const double began = dg_clock_now();
    double at;
    int err = dg_trainer_experience(t);

    if (!err)
        err = dg_update_spread(t->update, t->session, t->rollout);
    if (err)
        return err;
    at = dg_clock_now();
    err = dg_update_run(&job, &t->stats);
    t->phases.update = dg_clock_now() - at;
    t->phases.total = dg_clock_now() - began;
    return err;
}

/* Seconds of adding one item's gradient exactly. */
static int time_exact(const Trainer *t, int repeats, double *seconds)
{
    Worker *w = &t->team->workers[0];
    /* the worker's may not be a whole one */
    float *g = dg_memory_new(sizeof *g * (size_t)t->team->num_grads);
    double best[MAX_REPEATS];
    int err = DG_OK;

    if (g == NULL)
        return dg_fail(DG_ENOMEM, "bench: a gradient");
    for (int64_t i = 0; i < t->team->num_grads; i++)
        g[i] = (float)(i % 1009 - 504) * 1e-5f;
    for (int i = 0; i < repeats && !err; i++) {
        double began;

        dg_exact_clear(&w->sum);
        began = dg_clock_thread();
        err = dg_exact_add(&w->sum, g, NULL);
        best[i] = dg_clock_thread() - began;
    }
    free(g);
    *seconds = dg_bench_quantile(best, repeats, 0.5);
    return err;
}

/* One update of weights, and of moments behind them, at w [3, pitch]. */
static void update_once(const Learner *l, float *w, int64_t pitch,
                        const AdamwStep *step)
{
    const int64_t num = l->place.shard.num;
    float *m = w + pitch, *v = m + pitch;
    const Moments8 codes = { (uint8_t *)m, (uint8_t *)m + pitch, v,
                             v + dg_moments8_blocks(num) };

    if (l->optim.moments == DG_MOMENTS_INT8)
        dg_adamw8_update(w, &codes, l->grads, 0, num, step);
    else
        dg_adamw_update(w, m, v, l->grads, num, step);
}

/* Seconds of one AdamW update of all trained values. */
static int time_adamw(const Trainer *t, int repeats, double *seconds)
{
    const int64_t num = t->learner->place.shard.num;
    const int64_t pitch = (num + 16) / 16 * 16;
    const AdamwOpts o = dg_adamw_default();
    float *w = dg_memory_new(sizeof(float) * (size_t)(pitch * 3));
    double median[MAX_REPEATS];
    AdamwStep step;
    int err;

    if (w == NULL)
        return dg_fail(DG_ENOMEM, "bench: optimizer");
    err = dg_adamw_step_init(&step, &o, 1e-5, 1, 1.0);
    for (int i = 0; i < repeats && !err; i++) {
        const double began = dg_clock_thread();

        update_once(t->learner, w, pitch, &step);
        median[i] = dg_clock_thread() - began;
    }
    if (!err)
        *seconds = dg_bench_quantile(median, repeats, 0.5);
    free(w);
    return err;
}

static size_t reserved(const Trainer *t)
{
    LearnerBytes learner;

    dg_learner_bytes(&learner, &t->learner->place, &t->learner->optim);
    return t->team->bytes + t->rollout->bytes + t->update->bytes +
           learner.gradient + learner.moments + learner.ema +
           sizeof(float) * (size_t)t->policy->num_values;
}

static void fill(BenchIteration *out, const Trainer *t, const Meter *m)
{
    double inside = 0;

    out->items = t->rollout->N;
    out->steps = t->rollout->T;
    out->terms =
        t->update->num_kept * t->update->steps_per_item * t->update->epochs;
    out->total = t->phases.total;
    out->rollout = t->phases.rollout;
    out->reward = t->phases.reward;
    out->update = t->phases.update;
    for (int i = 0; i < DG_METER_KINDS; i++)
        inside += out->kind[i] = m->seconds[i];
    out->rewards = t->phases.reward;
    out->outside = out->cpu - inside - out->exact - out->adamw - out->rewards;
    out->rollout_rate = (double)(out->items * out->steps) / t->phases.rollout;
    out->reward_rate = (double)out->items / t->phases.reward;
    out->plan_bytes = t->plan_bytes;
    out->peak_bytes = dg_team_peak(t->team);
    out->reserved_bytes = reserved(t);
}

static int measure_iteration(BenchIteration *out, Trainer *t, Meter *m,
                             int repeats)
{
    double exact = 0, adamw = 0, began;
    int err = iterate(t); /* caches and pages warm up */

    dg_meter_clear(m);
    m->on = 1;
    began = dg_clock_thread();
    if (!err)
        err = iterate(t);
    out->cpu = dg_clock_thread() - began;
    m->on = 0;
    if (!err)
        err = time_exact(t, repeats, &exact);
    if (!err)
        err = time_adamw(t, repeats, &adamw);
    if (err)
        return err;
    out->exact_rate = (double)t->team->workers[0].sum.num / exact;
    out->adamw_rate = (double)t->learner->place.shard.num / adamw;
    out->exact =
        exact * (double)t->update->num_kept * (double)t->update->epochs;
    out->adamw = adamw * (double)t->update->num_updates;
    fill(out, t, m);
    return DG_OK;
}

/* --- ranks ------------------------------------------------------------- */

/* In turns: rank 0 alone while the others sleep, then all. */
static int measure_ranks(BenchRanks *out, const Comm *c, Trainer *alone,
                         Trainer *together, int repeats)
{
    double one[MAX_REPEATS], all[MAX_REPEATS], ratio[MAX_REPEATS];
    double one_up[MAX_REPEATS], all_up[MAX_REPEATS], ratio_up[MAX_REPEATS];
    int err = dg_agree(c, iterate(together));

    for (int i = 0; i < repeats && !err; i++) {
        if (c->rank == 0)
            err = iterate(alone);
        dg_comm_barrier_idle(c);
        err = dg_agree(c, err);
        if (err)
            break;
        one[i] = alone->phases.total;
        one_up[i] = alone->phases.update;
        err = iterate(together);
        dg_comm_barrier(c);
        all[i] = together->phases.total;
        all_up[i] = together->phases.update;
        dg_comm_max_f64(c, &all[i], 1);
        dg_comm_max_f64(c, &all_up[i], 1);
        ratio[i] = one[i] / all[i];
        ratio_up[i] = one_up[i] / all_up[i];
    }
    if (err)
        return err;
    *out = (BenchRanks) {
        .ranks = c->size,
        .items = together->rollout->N,
        .one_s = dg_bench_quantile(one, repeats, 0.5),
        .all_s = dg_bench_quantile(all, repeats, 0.5),
        .one_update_s = dg_bench_quantile(one_up, repeats, 0.5),
        .all_update_s = dg_bench_quantile(all_up, repeats, 0.5),
        .speedup = dg_bench_quantile(ratio, repeats, 0.5),
        .update_speedup = dg_bench_quantile(ratio_up, repeats, 0.5),
    };
    return DG_OK;
}

/* --- all of it --------------------------------------------------------- */

/* The process's largest resident memory; 0 where the system does not say. */
static size_t peak_resident(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = 0;

    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %lld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return (size_t)kib * 1024;
}

typedef struct Hall {
    Comm self;
    Meter meter;
    Session solo, shared;
    Trainer alone, together;
} Hall;

static int build(Trainer *t, const Session *s)
{
    const Config *c = s->config;
    const int err = dg_trainer_build(t, s);

    return err ? err
               : dg_rewards_start(t->rewards, c, c->num_rewards, s->comm, NULL);
}

static int measure_alone(Bench *out, Hall *h, const Session *s,
                         const BenchOpts *o, int repeats)
{
    int err;

    h->solo = *s;
    h->solo.comm = &h->self;
    h->solo.num_threads = 1;
    h->solo.backend = &h->meter.table;
    dg_meter_init(&h->meter, s->backend);
    h->meter.on = 0;
    err = build(&h->alone, &h->solo);
    return err ? err
               : measure_iteration(&out->iteration, &h->alone, &h->meter,
                                   o->repeats < MAX_REPEATS ? o->repeats
                                                            : repeats);
}

static int measure_hall(Bench *out, Hall *h, const Session *s,
                        const BenchOpts *o)
{
    const int repeats = o->repeats < 3 ? o->repeats : 3;
    int err = DG_OK;

    if (s->comm->rank == 0)
        err = measure_alone(out, h, s, o, MAX_REPEATS);
    dg_comm_barrier_idle(s->comm);
    err = dg_agree(s->comm, err);
    if (err || s->comm->size == 1)
        return err;
    h->shared = *s;
    h->shared.num_threads = 1;
    err = build(&h->together, &h->shared);
    return err ? err
               : measure_ranks(&out->ranks, s->comm, &h->alone, &h->together,
                               repeats);
}

int dg_bench_run(Bench *out, const Session *s, const BenchOpts *o)
{
    Bench b = { .ranks.ranks = 1, .iterated = !o->network_only };
    Hall *h = NULL;
    int err = DG_OK;

    omp_set_num_threads(1);
    if (s->comm->rank == 0)
        err = dg_bench_network(&b.network, s, o);
    dg_comm_barrier_idle(s->comm);
    err = dg_agree(s->comm, err);
    if (!err && b.iterated) {
        h = calloc(1, sizeof *h);
        err = h != NULL ? dg_comm_self(&h->self) : dg_fail(DG_ENOMEM, "bench");
        err = dg_agree(s->comm, err);
        if (!err)
            err = measure_hall(&b, h, s, o);
        if (h != NULL) {
            dg_trainer_close(&h->alone);
            dg_trainer_close(&h->together);
            dg_comm_self_free(&h->self);
        }
        free(h);
    }
    b.peak_resident_bytes = peak_resident();
    if (!err)
        *out = b;
    return err;
}
