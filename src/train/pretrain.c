#include "train/pretrain.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "pretrain_setup.h"
#include "store/metrics.h"
#include "tensor/tape.h"
#include "train/setup.h"
#include "world/spoil.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- one work item: a few pictures, forward and back ------------------- */

/* How a picture is spoilt. */
typedef struct Level {
    DenoiseLevel mix;
    float time;   /* given to the network */
    float weight; /* of the picture's loss */
} Level;

static Level draw_flow(const Pretrain *t, const RngKey *key)
{
    const PretrainConfig *c = &t->session->config->pretrain;
    const ModelTime mode = t->policy->shape.time;
    float n, sigma;

    dg_rng_normal(&n, 0, 1, key);
    sigma = (float)(1 / (1 + exp(-(c->logit_mean + c->logit_std * (double)n))));
    return (Level) { { 1 - sigma, sigma, 1 },
                     mode == DG_TIME_SIGMA
                         ? sigma
                         : dg_schedule_time_of((int32_t)(sigma * 1000), mode),
                     1 };
}

static Level draw_ddim(const Pretrain *t, const RngKey *key)
{
    const double power = t->session->config->pretrain.loss_power;
    const uint32_t at = dg_rng_below(DG_TRAIN_TIMES, 0, key);
    const double a = (double)t->alpha_bar[at];

    return (Level) { { (float)sqrt(a), (float)sqrt(1 - a), 0 },
                     dg_schedule_time_of((int32_t)at, t->policy->shape.time),
                     (float)pow(a, -power) };
}

static int happens(double part, RngKey key, RngPurpose purpose)
{
    float x;

    key.purpose = purpose;
    dg_rng_uniform(&x, 0, 1, &key); /* never 0 or 1 */
    return (double)x < part;
}

/* Pictures whose prompts stand under others are never shown themselves. */
static const uint64_t other_pictures = (uint64_t)1 << 40;

/* The prompt that picture 'index', now in x->scene, is shown under: its own,
 * another picture's, or none. The scene may be overwritten. */
static int choose_prompt(const char **out, const Pretrain *t,
                         PretrainScratch *x, int64_t index, RngKey key)
{
    const PretrainConfig *c = &t->session->config->pretrain;
    int err = DG_OK;

    if (happens(c->prompt_swap, key, DG_RNG_PROMPT_SWAP))
        err = dg_world_stream_scene(&x->scene, &t->stream,
                                    other_pictures + (uint64_t)index);
    *out =
        happens(c->prompt_drop, key, DG_RNG_PROMPT_DROP) ? "" : x->scene.prompt;
    return err;
}

/* Poor pictures among good ones; which, and how poor, is the key's. */
static void spoil(float *rgb, int side, const PretrainConfig *c, RngKey key)
{
    enum { FADED, CONTRAST, BLURRED, PASSES, NUM };
    float x[NUM];

    key.purpose = DG_RNG_SPOIL;
    dg_rng_uniform(x, 0, NUM, &key);
    if ((double)x[FADED] < c->faded)
        dg_world_fade(rgb, side, 0.15f + 0.35f * x[CONTRAST]);
    if ((double)x[BLURRED] < c->blurred)
        dg_world_blur(rgb, side, 4 + (int)(12 * x[PASSES]));
}

int dg_pretrain_picture(const Pretrain *t, PretrainScratch *x, int64_t b,
                        int64_t index)
{
    const Config *c = t->session->config;
    const PolicyShape *s = &t->policy->shape;
    const int epsilon = s->prediction == DG_PREDICT_EPSILON;
    RngKey key = { .seed = (uint64_t)c->run.seed,
                   .iteration = (uint32_t)t->step,
                   .sample = (uint32_t)(index % t->batch) };
    const Engine *engine = dg_engine_of(x->on);
    const Mirror z = { x->on, x->clean + b * s->elements,
                       x->z + b * s->elements,
                       sizeof(float) * (size_t)s->elements };
    float *target = x->target + b * s->elements;
    const char *prompt = "";
    Level level;
    int err = dg_world_stream_scene(&x->scene, &t->stream, (uint64_t)index);

    if (err)
        return err;
    dg_world_draw(x->rgb, &x->scene, (int)s->width);
    spoil(x->rgb, (int)s->width, &c->pretrain, key);
    dg_policy_code(t->policy, x->rgb, z.host);
    err = choose_prompt(&prompt, t, x, index, key);
    if (!err)
        err = dg_policy_tokenize(t->policy, prompt,
                                 x->t5_ids + b * s->text_tokens,
                                 x->clip_ids + b * s->clip_tokens);
    if (err)
        return err;
    key.purpose = DG_RNG_PRETRAIN_TIME;
    level = epsilon ? draw_ddim(t, &key) : draw_flow(t, &key);
    x->time[b] = level.time;
    x->weight[b] = level.weight;
    key.purpose = DG_RNG_PRETRAIN_NOISE;
    dg_mirror_up(&z);
    engine->normal(target, s->elements, &key);
    engine->spoil(z.at, target, &level.mix, s->elements);
    x->rows[b] = z.at;
    return DG_OK;
}

int dg_pretrain_loss(double *loss, const Mirror *errors, const Tensor *u,
                     Tensor *grad, const PretrainScratch *x, double divisor)
{
    const int64_t num = u->dims[0], count = dg_tensor_count(u) / num;
    const Engine *engine = dg_engine_of(x->on);
    double sum = 0;
    int err;

    for (int64_t b = 0; b < num; b++) {
        const float scale = (float)(2 * (double)x->weight[b] / divisor);

        engine->error((double *)errors->at + b, dg_tensor_f32(grad) + b * count,
                      dg_tensor_f32(u) + b * count, x->target + b * count,
                      scale, count);
    }
    err = dg_mirror_down(errors);
    for (int64_t b = 0; b < num && !err; b++)
        sum += (double)x->weight[b] * ((const double *)errors->host)[b];
    if (!err)
        *loss = sum / divisor;
    return err;
}

/* An item's pictures on their way through the networks, forward and back. */
typedef struct Pass {
    Worker *w;
    const Policy *policy;
    PolicyBatch batch;
    uint64_t flops; /* counted before */
    Tensor *u, *grad;
    int err;
} Pass;

static void run_forward(void *user)
{
    Pass *p = user;
    Context *ctx = &p->w->ctx;

    dg_context_reset(ctx);
    ctx->flops = p->flops;
    dg_tape_begin(ctx);
    p->u = dg_policy_predict(p->policy, ctx, &p->batch);
}

static void run_backward(void *user)
{
    Pass *p = user;
    Context *ctx = &p->w->ctx;

    dg_context_restore(ctx, p->w->saved);
    p->err = dg_tape_backward(ctx, p->u, p->grad);
}

/* Replayed like the way forward, but where somebody follows it or ranks meet
 * on it. */
static int go_back(Pass *p)
{
    Context *ctx = &p->w->ctx;

    if (p->w->saved == NULL || ctx->follower != NULL || ctx->lender != NULL)
        return dg_tape_backward(ctx, p->u, p->grad);
    dg_context_save(ctx, p->w->saved);
    dg_context_replay(ctx, run_backward, p, NULL, 0);
    return p->err;
}

static int run_item(Worker *w, int64_t i, void *user)
{
    Pretrain *t = user;
    const int64_t item = t->first + i;
    const int64_t size = t->session->config->pretrain.item_size;
    PretrainScratch x;
    Pass pass = { .w = w, .policy = t->policy };
    int64_t bad = -1;
    int err = DG_OK;

    dg_pretrain_scratch(&x, t->policy, size, w->scratch, w->room);
    for (int64_t b = 0; b < size && !err; b++)
        err =
            dg_pretrain_picture(t, &x, b, t->step * t->batch + item * size + b);
    if (!err && t->teacher != NULL)
        err = dg_pretrain_distill(t, &w->ctx, &x, size);
    if (err)
        return err;
    pass.batch = (PolicyBatch) { .num = size,
                                 .z = x.rows,
                                 .time = x.time,
                                 .t5_ids = x.t5_ids,
                                 .clip_ids = x.clip_ids };
    pass.flops = w->ctx.flops;
    dg_context_replay(&w->ctx, run_forward, &pass, NULL, 0);
    pass.grad = pass.u != NULL ? dg_tensor_like(&w->ctx, pass.u) : NULL;
    if (pass.grad == NULL)
        return dg_context_error(&w->ctx);
    err =
        dg_pretrain_loss(&t->loss[item], &w->kl, pass.u, pass.grad, &x,
                         (double)t->policy->shape.elements * (double)t->batch);
    if (err)
        return err;
    if (t->pool != NULL)
        dg_pool_begin(t->pool, w);
    else
        w->ctx.backend->fill(w->grads, 0, t->learner->num);
    dg_team_pass(w, 1);
    err = go_back(&pass);
    if (!err)
        err = dg_team_add(w, &bad);
    return dg_policy_name_gradient(t->policy, bad, err);
}

/* --- one step ---------------------------------------------------------- */

static int due(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

static int run_step(Pretrain *t, LearnerStep *done)
{
    const Comm *comm = t->session->comm;
    ExactSum own;
    int err = dg_team_sum(t->team, comm, t->num, run_item, t);
    if (err)
        return err;
    dg_comm_share_items(comm, t->loss, t->items, sizeof *t->loss);
    own = dg_team_own(t->team);
    /* nothing of what a checkpoint is written from has changed until here */
    err = dg_pretrain_wait_files(t);
    if (err)
        return err;
    /* a device may fail alone, even where all compute the same */
    err = dg_agree(comm, dg_learner_update(t->learner, &own, done));
    if (!err && due(t->session->config->optim.ema_every, t->step + 1))
        err = dg_agree(comm, dg_learner_average(t->learner));
    return err;
}

static double step_loss(const Pretrain *t)
{
    double sum = 0;

    for (int64_t i = 0; i < t->items; i++)
        sum += t->loss[i];
    return sum;
}

static int write_metrics(Pretrain *t, const LearnerStep *done, double loss,
                         double seconds)
{
    double flops = (double)dg_team_take_flops(t->team);

    dg_comm_sum_f64(t->session->comm, &flops, 1);
    if (t->metrics == NULL)
        return DG_OK;
    dg_metrics_begin(t->metrics, t->step + 1);
    dg_metrics_real(t->metrics, "loss", loss);
    dg_metrics_real(t->metrics, "grad_norm", done->grad_norm);
    dg_metrics_real(t->metrics, "lr", done->lr);
    dg_metrics_int(t->metrics, "samples", t->batch);
    dg_metrics_real(t->metrics, "seconds", seconds);
    if (t->files != NULL) {
        dg_metrics_real(t->metrics, "writing", t->took.writing);
        dg_metrics_real(t->metrics, "waiting", t->took.waiting);
    }
    dg_metrics_real(t->metrics, "gflops", flops / seconds * 1e-9);
    return dg_metrics_commit(t->metrics);
}

static void show(const Pretrain *t, double loss, double seconds)
{
    const int64_t steps = t->session->config->pretrain.steps;
    char eta[DG_DURATION_BYTES];

    dg_clock_duration(eta, seconds * (double)(steps - t->step - 1));
    dg_info("step %6lld/%lld | loss %.4f | %.0f pictures/s | ETA %s",
            (long long)t->step + 1, (long long)steps, loss,
            (double)t->batch / seconds, eta);
}

EvaluateJob dg_pretrain_job(const Pretrain *t)
{
    const Config *c = t->session->config;

    return (EvaluateJob) {
        .session = t->session,
        .team = t->team,
        .policy = t->policy,
        .prompts = &t->heldout,
        .rewards = t->rewards,
        .num_prompts = c->evaluate.num_prompts,
        .seeds = c->evaluate.seeds,
        .batch = c->pretrain.item_size,
        .seed = (uint64_t)c->run.seed,
        .with_scores = 1,
    };
}

int dg_pretrain_evaluate(Pretrain *t, Evaluation *e)
{
    const Config *c = t->session->config;
    const EvaluateJob job = dg_pretrain_job(t);
    int err = DG_OK;

    memset(e, 0, sizeof *e);
    if (t->heldout.num == 0 || c->num_rewards == 0)
        return DG_OK;
    if (t->learner->ema != NULL)
        err = dg_pretrain_wait_files(t);
    if (!err)
        err = dg_learner_swap_ema(t->learner);
    if (!err)
        err = dg_evaluate(e, &job);
    if (!err)
        err = dg_learner_swap_ema(t->learner);
    dg_team_take_flops(t->team); /* not the next step's */
    if (!err && isnan(e->all.strict.mean))
        dg_info("step %6lld | held-out reward %.3f [%.3f, %.3f]",
                (long long)t->step, e->all.reward.mean, e->all.reward.low,
                e->all.reward.high);
    else if (!err)
        dg_info("step %6lld | held-out strict %.3f [%.3f, %.3f] | reward %.3f",
                (long long)t->step, e->all.strict.mean, e->all.strict.low,
                e->all.strict.high, e->all.reward.mean);
    return err;
}

/* --- checkpoints --------------------------------------------------------- */

/* By the thread. */
static int write_checkpoint(Worker *none, int64_t i, void *user)
{
    const Pretrain *t = user;

    (void)none;
    (void)i;
    return dg_learner_save(t->learner, dg_files_session(t->files),
                           t->dir.checkpoints, t->saved);
}

/* Of the step just done; the last one of this process is waited for. */
static int save(Pretrain *t, int last)
{
    const int err =
        dg_agree(t->session->comm,
                 t->metrics != NULL ? dg_metrics_sync(t->metrics) : DG_OK);

    if (err)
        return err;
    if (t->files == NULL)
        return dg_learner_save(t->learner, t->session, t->dir.checkpoints,
                               t->step);
    t->saved = t->step;
    dg_files_start(t->files, write_checkpoint, t, 1);
    return last ? dg_pretrain_wait_files(t) : DG_OK;
}

int dg_pretrain_wait_files(Pretrain *t)
{
    return dg_files_wait(t->files, &t->took);
}

static int loop(Pretrain *t, RunEnd *end)
{
    const Config *c = t->session->config;
    double shown_loss = 0, since = dg_clock_now();
    int64_t shown = 0;
    int err = DG_OK;

    *end = DG_RUN_DONE;
    /* asked for while all was read and reserved */
    if (t->step < c->pretrain.steps && dg_stop_wanted(t->session->comm, 0)) {
        *end = DG_RUN_NOT_BEGUN;
        return DG_OK;
    }
    while (t->step < c->pretrain.steps && !err) {
        const double began = dg_clock_now();
        LearnerStep done;
        Evaluation e;

        err = run_step(t, &done);
        if (err)
            return err;
        shown_loss += step_loss(t);
        shown++;
        err = dg_agree(t->session->comm, write_metrics(t, &done, step_loss(t),
                                                       dg_clock_now() - began));
        if (shown == 50 || t->step + 1 == c->pretrain.steps) {
            show(t, shown_loss / (double)shown,
                 (dg_clock_now() - since) / (double)shown);
            shown_loss = 0;
            shown = 0;
            since = dg_clock_now();
        }
        t->step++;
        if (!err && due(c->pretrain.eval_every, t->step))
            err = dg_pretrain_evaluate(t, &e);
        if (!err && dg_stop_wanted(t->session->comm, c->run.max_seconds) &&
            t->step < c->pretrain.steps) {
            *end = DG_RUN_STOPPED;
            return save(t, 1);
        }
        if (!err &&
            (due(c->checkpoint.every, t->step) || t->step == c->pretrain.steps))
            err = save(t, 0);
    }
    return err;
}

int dg_pretrain(const Session *s, RunEnd *end)
{
    Pretrain t;
    int err = dg_pretrain_open(&t, s);

    if (!err)
        err = loop(&t, end);
    if (!err && *end == DG_RUN_DONE)
        err = dg_pretrain_write_weights(&t);
    dg_pretrain_close(&t);
    return err;
}

int dg_pretrain_check(const Session *s)
{
    Pretrain t;
    int err;

    memset(&t, 0, sizeof t);
    err = dg_setup_look_rundir(s, "pretrain");
    if (!err)
        err = dg_pretrain_build(&t, s);
    dg_pretrain_close(&t);
    return err;
}
