#include "train/update.h"

#include "base/error.h"
#include "base/progress.h"
#include "train/pool.h"
#include "update_internal.h"
#include "update_stats.h"

#include <math.h>
#include <stdio.h>

/* One update in work. */
typedef struct Part {
    const UpdateJob *job;
    ObjectiveOpts objective;
    Guidance guidance;
    int index;      /* of the update, in all passes */
    int part;       /* of the samples */
    double divisor; /* terms of the update, all ranks */
} Part;

/* 1 if a sample's passes go back together. */
static int together(const Part *p)
{
    const WeightPool *pool = p->job->team->pool;

    return pool != NULL && dg_pool_trains(pool);
}

static const SdeStep *step_of(const Part *p, int64_t k, int64_t j)
{
    const Update *u = p->job->update;
    const Rollout *r = p->job->rollout;

    return &r->steps[u->steps[(k - u->first_kept) * r->T + j]];
}

/* Some steps of one item: the j-th to the (j + num - 1)-th of its choice. */
typedef struct Steps {
    int64_t k, j, num;
    PolicyBatch batch;
    const float *z[DG_SAMPLING_BATCH], *condition[DG_SAMPLING_BATCH];
    float time[DG_SAMPLING_BATCH];
} Steps;

static void fill_steps(Steps *s, const Part *p, int64_t k, int64_t j)
{
    const Update *u = p->job->update;
    const Rollout *r = p->job->rollout;
    const int64_t most = p->job->session->config->grpo.micro_batch;
    const int64_t left = u->steps_per_item - j, item = u->kept[k];

    s->k = k;
    s->j = j;
    s->num = left < most ? left : most;
    for (int64_t b = 0; b < s->num; b++) {
        const int step = step_of(p, k, j + b)->index;

        s->z[b] = dg_rollout_latent(r, item, step);
        s->time[b] = r->time[step];
        s->condition[b] = dg_rollout_condition(r, p->job->policy, item);
    }
    s->batch = (PolicyBatch) {
        .num = s->num, .z = s->z, .time = s->time, .condition = s->condition
    };
}

/* GRPO-Guard, after weights have moved. */
static int is_guarded(const Part *p)
{
    return p->objective.ratio == DG_RATIO_GUARD && p->index > 0;
}

/* What the network answered in the rollout. */
static float *rollout_u(Worker *w, const Part *p, const Steps *s)
{
    const SdeStep *step[DG_SAMPLING_BATCH];

    for (int64_t b = 0; b < s->num; b++)
        step[b] = step_of(p, s->k, s->j + b);
    return dg_update_rollout_u(w, p->job, p->job->update->kept[s->k], step,
                               s->num);
}

/* The seeds that wait for the branch without the prompt, from the j-th on. */
static float *seeds_at(const Worker *w, const Part *p, int64_t j)
{
    const Config *c = p->job->session->config;

    return (float *)w->room +
           (dg_update_guard_rows(c) + j) * p->job->rollout->D;
}

/* What other weights answer at the same latents; NULL: nobody asks. */
typedef struct Others {
    const float *ref, *old; /* the reference's, the rollout's */
} Others;

/* Where w->kl has the divergences from the rollout's. */
enum { DRIFT = DG_TEAM_NUMBERS };

/* Log-densities, divergences from others, and whether all is finite, of all
 * these steps to the host: one wait. */
static int densities(Worker *w, const Part *p, const Steps *s, const float *u,
                     const Others *others)
{
    const Rollout *r = p->job->rollout;
    const int64_t D = r->D, item = p->job->update->kept[s->k];
    int err;

    for (int64_t b = 0; b < s->num; b++) {
        const SdeStep *step = step_of(p, s->k, s->j + b);
        const float *z = dg_rollout_latent(r, item, step->index);

        w->engine->log_prob((float *)w->log_prob.at + b, step, z, u + b * D,
                            z + D, D);
        if (others->ref != NULL)
            w->engine->kl((double *)w->kl.at + b, step, u + b * D,
                          others->ref + b * D, D);
        if (others->old != NULL)
            w->engine->kl((double *)w->kl.at + DRIFT + b, step, u + b * D,
                          others->old + b * D, D);
    }
    dg_worker_unflag(w);
    w->engine->flag(w->bad.at, 0, u, s->num * D);
    err = dg_mirror_down(&w->log_prob);
    if (!err)
        err = dg_mirror_down(&w->bad);
    return err || (others->ref == NULL && others->old == NULL)
               ? err
               : dg_mirror_down(&w->kl);
}

/* One term, the b-th of these steps: ratio, loss; its seed goes to grad. */
static int one_term(const Worker *w, const Part *p, const Steps *of, int64_t b,
                    const float *u, const Others *others, float *grad)
{
    const Update *up = p->job->update;
    const Rollout *r = p->job->rollout;
    const int64_t k = of->k, j = of->j + b;
    const SdeStep *s = step_of(p, k, j);
    const int64_t item = up->kept[k], D = r->D;
    const float *z = dg_rollout_latent(r, item, s->index), *next = z + D;
    const double *kl = w->kl.host;
    StepResult *res = &up->result[k * up->steps_per_item + j];
    ObjectiveInput in = {
        .log_prob = ((const float *)w->log_prob.host)[b],
        .log_prob_old = r->log_prob[(item - r->first) * r->T + s->index],
        .total = up->total[item],
        .advantage = up->advantage + item * r->K,
        .kl = others->ref != NULL ? kl[b] : 0,
        .drift = others->old != NULL ? kl[DRIFT + b] : 0,
        .D = D,
        .divisor = p->divisor,
    };
    const ObjectiveTensors x = {
        .z = z,
        .u = u + b * D,
        .z_next = next,
        .u_ref = others->ref != NULL ? others->ref + b * D : NULL,
        .u_old = others->old != NULL ? others->old + b * D : NULL,
    };
    ObjectiveTerm term;
    int err;

    *res = (StepResult) { .step = s->index,
                          .log_prob = in.log_prob,
                          .ratio = NAN };
    err = dg_objective_term(&term, &p->objective, s, &in);
    if (err)
        return err;
    res->clipped = term.clipped;
    res->ratio = term.ratio;
    res->loss = term.loss;
    res->kl = in.kl;
    res->approx_kl = term.approx_kl;
    res->seeded = term.coef != 0 || term.kl_coef != 0 || term.drift_coef != 0;
    w->engine->seed(grad + b * D, &term, s, &x, D);
    return DG_OK;
}

/* 1 if any of these steps has a gradient. */
static int has_seed(const Part *p, const Steps *s)
{
    const Update *u = p->job->update;
    int any = 0;

    for (int64_t b = 0; b < s->num; b++)
        any |= u->result[s->k * u->steps_per_item + s->j + b].seeded;
    return any;
}

/* The prediction is not finite: once more, each op checking itself, so that
 * the message names the layer. */
static int name_layer(Worker *w, const Part *p, const PolicyBatch *batch)
{
    int err;

    dg_context_reset(&w->ctx);
    w->ctx.check_finite = 1;
    dg_guided_predict(p->job->policy, &w->ctx, batch, &p->guidance);
    w->ctx.check_finite = 0;
    err = dg_context_error(&w->ctx);
    dg_context_reset(&w->ctx);
    return err ? err : dg_fail(DG_ENUMERIC, "network output is not finite");
}

/* Steps on their way forward, recorded. */
typedef struct Forward {
    Worker *w;
    const Part *part;
    const PolicyBatch *batch;
    uint64_t flops; /* counted before */
    Tensor *u, *branch, *ref;
} Forward;

static void run_forward(void *user)
{
    Forward *f = user;
    const Part *p = f->part;
    Context *ctx = &f->w->ctx;

    if (!together(p)) /* else passes before wait for their way back */
        dg_context_reset(ctx);
    ctx->flops = f->flops;
    if (p->job->reference != NULL)
        f->ref =
            dg_guided_predict(p->job->reference, ctx, f->batch, &p->guidance);
    f->u = dg_guided_record(p->job->policy, ctx, f->batch, &p->guidance,
                            &f->branch);
}

/* Both ways, so that what they read stays there in between. */
static void replay(Forward *f, Steps *s, void (*way)(void *), void *user)
{
    const UpdateJob *job = f->part->job;
    const Moving moving[] = { { s->z, s->num, job->rollout->D },
                              { s->condition, s->num,
                                job->policy->shape.condition } };

    dg_context_replay(&f->w->ctx, way, user, moving, 2);
}

static void go_forward(Forward *f, Steps *s)
{
    f->flops = f->w->ctx.flops;
    replay(f, s, run_forward, f);
}

/* Passes of a sample that wait to go back together; NULL: each goes back at
 * once. */
typedef struct Waiting {
    TapePass *pass;
    int num;
} Waiting;

/* The way back of them. */
typedef struct Backward {
    Forward *f;
    Tensor *grad;
    int err;
} Backward;

static void run_backward(void *user)
{
    Backward *b = user;
    Worker *w = b->f->w;

    dg_context_restore(&w->ctx, w->saved);
    b->err =
        dg_guided_back(&w->ctx, &b->f->part->guidance, b->f->branch, b->grad);
}

/* Replayed like the way forward, but where somebody follows it or ranks meet
 * on it. */
static int go_back(Forward *f, Steps *s, Tensor *grad)
{
    Worker *w = f->w;
    Backward b = { .f = f, .grad = grad };

    if (w->saved == NULL || w->ctx.follower != NULL || w->ctx.lender != NULL)
        return dg_guided_back(&w->ctx, &f->part->guidance, f->branch, grad);
    dg_context_save(&w->ctx, w->saved);
    replay(f, s, run_backward, &b);
    return b.err;
}

/* Some steps forward and, where any of them has a gradient, back. The seeds
 * of a second pass are kept. */
static int run_steps(Worker *w, const Part *p, Steps *s, Waiting *later)
{
    const int64_t D = p->job->rollout->D;
    Forward f = { .w = w, .part = p, .batch = &s->batch };
    Tensor *u, *grad, *ref;
    Others others;
    int err;

    go_forward(&f, s);
    u = f.u;
    ref = f.ref;
    grad = u != NULL ? dg_tensor_like(&w->ctx, u) : NULL;
    if (grad == NULL)
        return dg_context_error(&w->ctx);
    others = (Others) { .ref = ref != NULL ? dg_tensor_f32(ref) : NULL,
                        .old = is_guarded(p) ? rollout_u(w, p, s) : NULL };
    err = densities(w, p, s, dg_tensor_f32(u), &others);
    if (!err && *(const int64_t *)w->bad.host >= 0)
        return name_layer(w, p, &s->batch);
    for (int64_t b = 0; b < s->num && !err; b++)
        err = one_term(w, p, s, b, dg_tensor_f32(u), &others,
                       dg_tensor_f32(grad));
    if (err)
        return err;
    if (dg_guided_twice(&p->guidance))
        dg_kernel_copy(w->ctx.backend, seeds_at(w, p, s->j),
                       dg_tensor_f32(grad), s->num * D);
    if (!has_seed(p, s))
        return DG_OK;
    if (later == NULL)
        return go_back(&f, s, grad);
    later->pass[later->num++] =
        dg_guided_hold(&w->ctx, &p->guidance, f.branch, grad);
    return dg_context_error(&w->ctx);
}

/* The branch without the prompt on its way, forward and back. */
typedef struct Uncond {
    Worker *w;
    const Part *part;
    PolicyBatch batch;
    const float *const *seeds; /* of its rows */
    uint64_t flops;            /* counted before */
    int err;
} Uncond;

static void go_uncond(void *user)
{
    Uncond *x = user;

    x->w->ctx.flops = x->flops;
    x->err = dg_guided_back_uncond(x->part->job->policy, &x->w->ctx, &x->batch,
                                   &x->part->guidance, x->seeds);
}

/* The branch without the prompt, back from the kept seeds. */
static int run_uncond(Worker *w, const Part *p, const Steps *s, Waiting *later)
{
    const int64_t D = p->job->rollout->D;
    const float *at[2 * DG_SAMPLING_BATCH]; /* latents, then seeds */
    const Moving moving = { at, 2 * s->num, D };
    Uncond x = { .w = w,
                 .part = p,
                 .batch = s->batch,
                 .seeds = at + s->num,
                 .flops = w->ctx.flops };

    if (!has_seed(p, s)) /* clipped away, all of it */
        return DG_OK;
    for (int64_t b = 0; b < s->num; b++) {
        at[b] = s->z[b];
        at[s->num + b] = seeds_at(w, p, s->j + b);
    }
    x.batch.z = at;
    if (later != NULL)
        return dg_guided_hold_uncond(&later->pass[later->num++], p->job->policy,
                                     &w->ctx, &x.batch, &p->guidance, x.seeds);
    if (w->ctx.follower != NULL)
        go_uncond(&x);
    else
        dg_context_replay(&w->ctx, go_uncond, &x, &moving, 1);
    return x.err;
}

static void note(const Part *p, int64_t k)
{
    Update *u = p->job->update;
    const Rollout *r = p->job->rollout;
    const int64_t item = u->kept[k];

    u->set_aside[k] = DG_ASIDE_FAILED;
#pragma omp critical(dg_update_note)
    if (item < u->note_item) {
        u->note_item = item;
        snprintf(u->note, sizeof u->note,
                 "iteration %lld, update %d, prompt %lld, sample %lld, rank "
                 "%d: %.300s",
                 (long long)r->iteration + 1, p->index + 1,
                 (long long)r->prompt[item / r->G], (long long)(item % r->G),
                 p->job->session->comm->rank, dg_last_error()->text);
    }
}

/* What is told of steps that end up not computed. */
static void clear_results(const Part *p, int64_t k)
{
    const Update *u = p->job->update;

    for (int64_t j = 0; j < u->steps_per_item; j++)
        u->result[k * u->steps_per_item + j] = (StepResult) {
            .step = step_of(p, k, j)->index, .log_prob = NAN, .ratio = NAN
        };
}

/* Which terms a sample comes to that fails depends on how many go at once: it
 * has all of them, or none. */
static void clear_partial(const Part *p, int64_t k)
{
    const Update *u = p->job->update;

    for (int64_t j = 0; j < u->steps_per_item; j++)
        if (isnan(u->result[k * u->steps_per_item + j].ratio)) {
            clear_results(p, k);
            return;
        }
}

/* All chosen steps of one sample, in their order. */
static int run_all(Worker *w, const Part *p, int64_t k, Waiting *later)
{
    const Update *u = p->job->update;
    const int twice = dg_guided_twice(&p->guidance);
    Steps s = { .num = 0 };
    int err = DG_OK;

    for (int64_t j = 0; j < u->steps_per_item && !err; j += s.num) {
        fill_steps(&s, p, k, j);
        dg_team_pass(w, !twice && j + s.num == u->steps_per_item);
        err = run_steps(w, p, &s, later);
    }
    for (int64_t j = 0; j < u->steps_per_item && !err && twice; j += s.num) {
        fill_steps(&s, p, k, j);
        dg_team_pass(w, j + s.num == u->steps_per_item);
        err = run_uncond(w, p, &s, later);
    }
    return err;
}

/* The same where a block's gradients leave as soon as it is through: it is
 * gone back through once, by all passes together. */
static int run_together(Worker *w, const Part *p, int64_t k)
{
    const size_t most = 2 * (size_t)p->job->update->steps_per_item;
    Waiting later = { .num = 0 };
    int err;

    dg_context_reset(&w->ctx);
    dg_pool_begin(p->job->team->pool, w);
    later.pass = dg_arena_take(&w->ctx.meta, most * sizeof *later.pass);
    if (later.pass == NULL)
        return dg_fail(DG_ENOMEM, "passes of a sample");
    err = run_all(w, p, k, &later);
    return err ? err : dg_tape_backward_all(&w->ctx, later.pass, later.num);
}

/* One work item. */
static int run_item(Worker *w, int64_t i, void *user)
{
    const Part *p = user;
    const Update *u = p->job->update;
    const int64_t k = u->local[i];
    int64_t bad = -1;
    int err;

    dg_progress_add(1);
    clear_results(p, k);
    if (dg_update_unscored(u, p->job->rollout, u->kept[k])) {
        u->set_aside[k] = DG_ASIDE_NO_SCORE;
        return DG_OK;
    }
    if (together(p)) {
        err = run_together(w, p, k);
    } else {
        w->ctx.backend->fill(w->grads, 0, p->job->learner->num);
        err = run_all(w, p, k, NULL);
    }
    if (!err)
        err = dg_team_add(w, &bad);
    if (err == DG_ENUMERIC) {
        dg_policy_name_gradient(p->job->policy, bad, err);
        note(p, k);
        clear_partial(p, k);
        err = DG_OK;
    }
    return err;
}

/* Items of this update: local ones listed, all counted, and none set aside, as it
 * may have been in a pass before. A sample whose score
 * is missing keeps its place in the divisor and has no gradient. */
static int64_t list_items(const Part *p, int64_t *num_local)
{
    Update *u = p->job->update;
    int64_t count = 0, local = 0;

    for (int64_t k = 0; k < u->num_kept; k++) {
        if (u->belongs[k] != p->part)
            continue;
        count++;
        u->set_aside[k] = DG_ASIDE_NOT;
        if (k >= u->first_kept && k < u->first_kept + u->num_local)
            u->local[local++] = k;
    }
    *num_local = local;
    return count;
}

static int apply(const Part *p, UpdateStats *stats)
{
    const UpdateJob *job = p->job;
    const Update *u = job->update;
    LearnerStep done;
    ExactSum own;
    int64_t failed = 0;
    int err;

    for (int64_t k = 0; k < u->num_kept; k++)
        failed +=
            u->belongs[k] == p->part && u->set_aside[k] == DG_ASIDE_FAILED;
    if (failed > 0) {
        stats->skipped_updates++;
        return DG_OK;
    }
    if (job->dry)
        return DG_OK;
    own = dg_team_own(job->team);
    /* a device may fail alone, even where all compute the same */
    err = dg_agree(job->session->comm,
                   dg_learner_update(job->learner, &own, &done));
    if (err)
        return err;
    dg_update_tell_small(job, &own, p->index, done.grad_norm);
    if (done.grad_norm > stats->grad_norm)
        stats->grad_norm = done.grad_norm;
    stats->lr = done.lr;
    return DG_OK;
}

static int run_part(Part *p, UpdateStats *stats)
{
    const UpdateJob *job = p->job;
    const Comm *c = job->session->comm;
    Update *u = job->update;
    int64_t num_local;
    int err;

    p->divisor = (double)list_items(p, &num_local) * u->steps_per_item;
    err = dg_team_sum(job->team, c, num_local, run_item, p);
    if (err)
        return err;
    dg_update_share(job);
    err = dg_update_check_ratio(job, p->index);
    if (err)
        return err;
    dg_update_stats_add(stats, u, p->index);
    return apply(p, stats);
}

static ClipRange clip_of(const GrpoConfig *g)
{
    return (ClipRange) {
        g->clip_range_low > 0 ? g->clip_range_low : g->clip_range,
        g->clip_range_high > 0 ? g->clip_range_high : g->clip_range
    };
}

int dg_update_run(const UpdateJob *job, UpdateStats *stats)
{
    const Config *c = job->session->config;
    double weights[DG_CONFIG_REWARDS];
    int err = DG_OK;

    dg_update_stats_begin(stats);
    for (int64_t k = 0; k < c->num_rewards; k++)
        weights[k] = c->rewards[k].weight;
    job->update->note[0] = '\0';
    job->update->note_item = job->rollout->N;
    for (int i = 0; i < job->update->num_updates && !err; i++) {
        Part p = {
            .job = job,
            .objective = { .clip = clip_of(&c->grpo),
                           .advantage_clip = c->grpo.advantage_clip,
                           .agg = c->grpo.adv_agg,
                           .kl_beta = c->grpo.kl_beta,
                           .ratio = c->grpo.ratio,
                           .num_rewards = (int)c->num_rewards,
                           .weights = weights,
                           .step_weight = job->update->weight },
            .guidance = dg_rollout_guidance(job->rollout, c),
            .index = i,
            .part = i % job->update->num_parts,
        };

        err = run_part(&p, stats);
    }
    dg_update_stats_end(stats);
    return err;
}
