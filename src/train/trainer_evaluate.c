/* Held-out prompts while training goes on: what `evaluate` does, of the policy as
 * it is after an iteration. No number of training depends on it. */
#include "trainer.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/plural.h"
#include "train/cache.h"
#include "train/sampling.h"
#include "train/setup.h"

#include <math.h>
#include <stdio.h>

const char *dg_trainer_heldout_path(const Config *c)
{
    return c->evaluate.file[0] != '\0' ? c->evaluate.file
                                       : c->prompts.eval_file;
}

EvaluateJob dg_trainer_heldout_job(const Session *s, const Policy *p,
                                   const PromptList *list)
{
    const Config *c = s->config;
    EvaluateJob job = { .session = s,
                        .policy = p,
                        .prompts = list,
                        .num_prompts = c->evaluate.num_prompts,
                        .seeds = c->evaluate.seeds,
                        .seed = (uint64_t)c->run.seed,
                        .with_scores = (int)c->num_rewards };

    if (job.num_prompts == 0 || job.num_prompts > list->num)
        job.num_prompts = list->num;
    /* no more at once than workers have room for anyway */
    job.batch = dg_sampling_batch(dg_trainer_batch(c, s->comm->size),
                                  job.num_prompts * job.seeds, s->comm->size);
    return job;
}

/* --- the beginning ------------------------------------------------------- */

static const PromptList *list_of(const Trainer *t)
{
    return t->evaluated.num > 0 ? &t->evaluated : &t->heldout;
}

int dg_trainer_read_heldout(Trainer *t)
{
    const Config *c = t->session->config;

    if (c->evaluate.every == 0)
        return DG_OK;
    if (dg_trainer_heldout_path(c)[0] == '\0')
        return dg_fail(DG_EINVAL,
                       "evaluate.every = %lld: evaluate.file or "
                       "prompts.eval_file must name held-out prompts",
                       (long long)c->evaluate.every);
    return c->evaluate.file[0] == '\0'
               ? DG_OK
               : dg_setup_prompts(t->session, c->evaluate.file, &t->evaluated);
}

int dg_trainer_check_heldout(const Trainer *t, const Policy *sizes)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const PromptList *list = list_of(t);
    PromptList painted = *list;
    int err = dg_setup_check_words(s, sizes, &t->heldout, c->prompts.eval_file);

    if (err || c->evaluate.every == 0)
        return err;
    painted.num = (int32_t)dg_trainer_heldout_job(s, sizes, list).num_prompts;
    if (list == &t->evaluated)
        err = dg_setup_check_words(s, sizes, list, c->evaluate.file);
    return err ? err
               : dg_rewards_check_prompts(t->rewards, c->num_rewards, &painted);
}

int dg_trainer_open_heldout(Trainer *t)
{
    const Session *s = t->session;
    EvaluateJob job;

    if (s->config->evaluate.every == 0)
        return DG_OK;
    job = dg_trainer_heldout_job(s, t->policy, list_of(t));
    job.team = t->team;
    job.rewards = t->rewards;
    job.cache = t->cache;
    return dg_evaluate_open(&t->eval, &job);
}

size_t dg_trainer_heldout_bytes(const Trainer *t)
{
    EvaluateJob job;

    if (t->eval == NULL)
        return 0;
    job = dg_trainer_heldout_job(t->session, t->policy, list_of(t));
    return dg_evaluate_bytes(&job);
}

int dg_trainer_heldout_due(const Trainer *t)
{
    const Config *c = t->session->config;

    return t->eval != NULL && (t->iteration == c->run.iterations ||
                               t->iteration % c->evaluate.every == 0);
}

int dg_trainer_heldout_owed(Trainer *t)
{
    const Comm *comm = t->session->comm;
    int there = 0, err = DG_OK;

    if (!dg_trainer_heldout_due(t))
        return DG_OK;
    if (comm->rank == 0)
        err = dg_metrics_end_with(&there, t->dir.metrics, t->iteration,
                                  "held_out");
    err = dg_agree(comm, err);
    dg_comm_bcast(comm, &there, sizeof there, 0);
    t->owed = !there;
    return err;
}

/* --- what it found ------------------------------------------------------- */

static void put_span(Metrics *m, const char *const key[3], const Interval *v)
{
    dg_metrics_real(m, key[0], v->mean);
    dg_metrics_real(m, key[1], v->low);
    dg_metrics_real(m, key[2], v->high);
}

static void put_scores(Metrics *m, const Evaluation *e)
{
    static const char *const sum[] = { "reward_mean", "reward_low",
                                       "reward_high" };
    static const char *const reward[] = { "mean", "low", "high" };
    static const char *const strict[] = { "strict_mean", "strict_low",
                                          "strict_high" };

    put_span(m, sum, &e->sum);
    dg_metrics_enter(m, "rewards");
    for (int k = 0; k < e->num_rewards; k++) {
        const EvaluateReward *r = &e->rewards[k];

        dg_metrics_enter(m, r->name);
        put_span(m, reward, &r->reward);
        if (!isnan(r->strict.mean))
            put_span(m, strict, &r->strict);
        dg_metrics_int(m, "missing", r->missing);
        dg_metrics_leave(m);
    }
    dg_metrics_leave(m);
}

/* A line of its own behind the iteration's: that of the beginning has no
 * iteration, and one that was given up is made up for after a resume. */
static int write_line(const Trainer *t, const Evaluation *now,
                      const Evaluation *average, double seconds)
{
    Metrics *m = t->metrics;
    int err;

    if (m == NULL)
        return DG_OK;
    dg_metrics_begin(m, t->iteration);
    dg_metrics_enter(m, "held_out");
    dg_metrics_int(m, "prompts", now->prompts);
    dg_metrics_int(m, "pictures", now->prompts * now->seeds);
    put_scores(m, now);
    if (average != NULL) {
        dg_metrics_enter(m, "ema");
        put_scores(m, average);
        dg_metrics_leave(m);
    }
    dg_metrics_leave(m);
    dg_metrics_enter(m, "seconds");
    dg_metrics_real(m, "evaluate", seconds);
    dg_metrics_leave(m);
    err = dg_metrics_commit(m);
    return err ? err : dg_metrics_sync(m);
}

static int64_t num_missing(const Evaluation *e)
{
    int64_t num = 0;

    for (int k = 0; k < e->num_rewards; k++)
        num += e->rewards[k].missing;
    return num;
}

/* The first of the rewards that has one. */
static const Interval *strict_of(const Evaluation *e)
{
    for (int k = 0; k < e->num_rewards; k++)
        if (!isnan(e->rewards[k].strict.mean))
            return &e->rewards[k].strict;
    return NULL;
}

static void show(const Trainer *t, const Evaluation *now,
                 const Evaluation *average, double seconds)
{
    const Interval *strict = strict_of(now);
    const int64_t missing = num_missing(now);
    char reward[DG_INTERVAL_BYTES], more[200] = "";
    size_t used = 0;

    if (strict != NULL) {
        char text[DG_INTERVAL_BYTES];

        dg_interval_text(text, strict, 3);
        used += (size_t)snprintf(more + used, sizeof more - used,
                                 " | strict %s", text);
    }
    if (average != NULL)
        used += (size_t)snprintf(more + used, sizeof more - used,
                                 " | averaged weights %.4f", average->sum.mean);
    if (missing > 0)
        snprintf(more + used, sizeof more - used, " | %lld score%s missing",
                 (long long)missing, dg_plural(missing));
    dg_interval_text(reward, &now->sum, 4);
    dg_info("it %4lld/%lld | held-out prompts: reward %s%s | %.1f s",
            (long long)t->iteration,
            (long long)t->session->config->run.iterations, reward, more,
            seconds);
}

/* --- an evaluation --------------------------------------------------------- */

/* Of the averaged weights, which change places with those of the policy; files
 * that are being written are written from both. */
static int run_average(Trainer *t, Evaluation *out, const double *seconds)
{
    int err = dg_trainer_wait_files(t);

    if (!err)
        err = dg_learner_swap_ema(t->learner);
    dg_evaluate_tell_as(t->eval, "averaged weights");
    if (!err)
        err = dg_evaluate_run(out, t->eval, seconds);
    dg_evaluate_tell_as(t->eval, "");
    return err ? err : dg_learner_swap_ema(t->learner);
}

int dg_trainer_evaluate(Trainer *t, double seconds)
{
    const double began = dg_clock_now();
    const int averages = t->learner->ema != NULL;
    Evaluation now, average;
    double took;
    int err = dg_evaluate_run(&now, t->eval, &seconds);

    t->owed = 1;
    if (err || now.stopped)
        goto take_flops;
    average = now; /* as which it begins */
    if (averages && t->iteration > 0)
        err = run_average(t, &average, &seconds);
    if (err || average.stopped)
        goto take_flops;
    took = dg_clock_now() - began;
    show(t, &now, averages ? &average : NULL, took);
    err = dg_agree(t->session->comm,
                   write_line(t, &now, averages ? &average : NULL, took));
    t->owed = err != DG_OK;
take_flops:
    dg_team_take_flops(t->team); /* not the next iteration's */
    return err;
}
