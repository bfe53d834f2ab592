#include "train/sampling.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>

int64_t dg_sampling_batch(int64_t most, int64_t samples, int ranks)
{
    const int64_t share = (samples + ranks - 1) / ranks;

    return share < 1 ? 1 : share < most ? share : most;
}

size_t dg_sampling_scratch(const Policy *p)
{
    const size_t noise = sizeof(float) * (size_t)p->shape.elements;
    const size_t ids =
        sizeof(int32_t) * (size_t)(p->shape.text_tokens + p->shape.clip_tokens);

    return noise > ids ? noise : ids;
}

int dg_sampling_encode(Worker *w, const Policy *p, const char *prompt,
                       float *condition)
{
    int32_t *ids = w->scratch;
    const PromptTokens tokens = { ids, ids + p->shape.text_tokens };
    const int err =
        dg_policy_tokenize(p, prompt, ids, ids + p->shape.text_tokens);

    return err ? err : dg_policy_encode(p, &w->ctx, &tokens, condition);
}

static const float *row(const Tensor *u, int64_t b, int64_t D)
{
    return dg_tensor_f32(u) + b * D;
}

/* The network's answer was not finite: run the sample alone, each op
 * checking itself, so that the message names the layer. */
static void name_failure(Worker *w, const SamplingRun *r, Sample *s,
                         const float *z, int step)
{
    const PolicyBatch b = {
        .num = 1, .z = &z, .time = &r->time[step], .condition = &s->condition
    };

    s->failed = 1;
    s->failed_step = r->steps[step].index;
    dg_context_reset(&w->ctx);
    w->ctx.check_finite = 1;
    dg_guided_predict(r->policy, &w->ctx, &b, &r->guidance);
    w->ctx.check_finite = 0;
    snprintf(s->reason, sizeof s->reason, "%.250s",
             dg_context_error(&w->ctx) ? dg_last_error()->text
                                       : "network output is not finite");
    dg_context_reset(&w->ctx);
}

static void start(const Worker *w, const SamplingRun *r, Sample *s)
{
    s->failed = 0;
    s->failed_step = -1;
    s->reason[0] = '\0';
    if (!r->score_given && !r->begun)
        w->engine->normal(s->latents, r->policy->shape.elements, &s->init);
}

/* A step of second order goes on from what the one before predicted, which waits
 * where the latent to decode will be; both are deterministic, so that the place
 * of noise is free. */
static void take_multistep(Worker *w, const SamplingRun *r, Sample *s, int i,
                           const float *z, const float *u, float *next)
{
    const int64_t D = r->policy->shape.elements;
    const SdeStep *step = &r->steps[i];
    const SdeStep add = { .mean_z = 1, .mean_u = step->mean_x0 };

    w->engine->x0(w->room, step, z, u, D); /* next may be z */
    w->engine->next(next, step, z, u, &s->noise, NULL, D);
    if (step->multistep)
        w->engine->next(next, &add, next, s->final, &s->noise, NULL, D);
    dg_kernel_copy(w->ctx.backend, s->final, w->room, D);
}

static int is_of_two(const SamplingRun *r, int i)
{
    return i < r->num_steps && r->steps[i].multistep;
}

static void advance(Worker *w, const SamplingRun *r, Sample *s, int i,
                    const float *u)
{
    const int64_t D = r->policy->shape.elements;
    const SdeStep *step = &r->steps[i];
    const int last = i == r->num_steps - 1 && s->final != NULL;
    float *z = s->latents + (r->keep_all ? i * D : 0);
    float *next = r->keep_all ? z + D : z;

    if (last && r->decode == DG_DECODE_X0)
        w->engine->x0(s->final, step, z, u, D);
    s->noise.step = (uint32_t)step->index;
    if (!r->score_given && (is_of_two(r, i) || is_of_two(r, i + 1)))
        take_multistep(w, r, s, i, z, u, next);
    else if (!r->score_given)
        w->engine->next(next, step, z, u, &s->noise, w->room, D);
    if (s->log_prob != NULL)
        w->engine->log_prob(&s->log_prob[i], step, z, u, next, D);
    if (last && r->decode == DG_DECODE_ZT)
        dg_kernel_copy(w->ctx.backend, s->final, next, D);
}

/* The last step, i, of a sample's twins. */
static void part(Worker *w, const SamplingRun *r, const Sample *s, int i,
                 const float *u)
{
    const int64_t D = r->policy->shape.elements;

    for (int64_t k = 1; k <= s->twins; k++) {
        Sample twin = *s;

        twin.noise.sample += (uint32_t)k;
        twin.latents += k * (r->room + 1) * D;
        twin.log_prob += k * r->room;
        dg_kernel_copy(w->ctx.backend, twin.latents, s->latents, (i + 1) * D);
        if (i > 0)
            dg_kernel_copy(w->ctx.backend, twin.log_prob, s->log_prob, i);
        advance(w, r, &twin, i, u);
    }
}

typedef struct Predicting {
    Worker *w;
    const SamplingRun *run;
    PolicyBatch batch;
    uint64_t flops; /* counted before */
    Tensor *u;
} Predicting;

static void run_prediction(void *user)
{
    Predicting *p = user;
    Context *ctx = &p->w->ctx;

    dg_context_reset(ctx);
    ctx->flops = p->flops;
    p->u = dg_guided_predict(p->run->policy, ctx, &p->batch, &p->run->guidance);
}

/* One prediction for all samples; u is in the step arena. */
static Tensor *predict(Worker *w, const SamplingRun *r, const Sample *samples,
                       int64_t num, int i)
{
    const int64_t D = r->policy->shape.elements;
    const float *z[DG_SAMPLING_BATCH], *condition[DG_SAMPLING_BATCH];
    float time[DG_SAMPLING_BATCH];
    const Moving moving[] = { { z, num, D },
                              { condition, num, r->policy->shape.condition } };
    Predicting p = {
        .w = w,
        .run = r,
        .batch = { .num = num, .z = z, .time = time, .condition = condition },
        .flops = w->ctx.flops
    };

    for (int64_t b = 0; b < num; b++) {
        z[b] = samples[b].latents + (r->keep_all ? i * D : 0);
        condition[b] = samples[b].condition;
        time[b] = r->time[i];
    }
    dg_context_replay(&w->ctx, run_prediction, &p, moving, 2);
    return p.u;
}

/* Notes for each sample the first step whose answer is not finite. */
static void flag_failures(Worker *w, int64_t num, const Tensor *u, int i,
                          int64_t D)
{
    for (int64_t b = 0; b < num; b++)
        w->engine->flag((int64_t *)w->bad.at + b, i, row(u, b, D), D);
}

/* Waits for what was noted and names what is new; *found: 1 if there was any,
 * which costs the step arena's contents. */
static int tell_failures(Worker *w, const SamplingRun *r, Sample *samples,
                         int64_t num, int *found)
{
    const int64_t D = r->policy->shape.elements, *bad = w->bad.host;
    const int err = dg_mirror_down(&w->bad);

    *found = 0;
    for (int64_t b = 0; b < num && !err; b++) {
        if (samples[b].failed || bad[b] < 0)
            continue;
        name_failure(w, r, &samples[b],
                     samples[b].latents + (r->keep_all ? bad[b] * D : 0),
                     (int)bad[b]);
        *found = 1;
    }
    return err;
}

/* Step i; where latents are kept, nobody waits for it. */
static int run_step(Worker *w, const SamplingRun *r, Sample *samples,
                    int64_t num, int i)
{
    const int64_t D = r->policy->shape.elements;
    Tensor *u = predict(w, r, samples, num, i);
    int found = 0, err = DG_OK;

    if (u == NULL)
        return dg_context_error(&w->ctx);
    flag_failures(w, num, u, i, D);
    if (!r->keep_all)
        err = tell_failures(w, r, samples, num, &found);
    if (!err && found) {
        u = predict(w, r, samples, num, i);
        err = dg_context_error(&w->ctx);
    }
    for (int64_t b = 0; b < num && !err; b++)
        advance(w, r, &samples[b], i, row(u, b, D));
    for (int64_t b = 0; b < num && !err && i == r->num_steps - 1; b++)
        part(w, r, &samples[b], i, row(u, b, D));
    return err;
}

int dg_sampling_run(Worker *w, const SamplingRun *r, Sample *samples,
                    int64_t num)
{
    int found, err = DG_OK;

    if (num > DG_SAMPLING_BATCH)
        dg_panic("a batch of %lld samples", (long long)num);
    if (r->decode == DG_DECODE_AUTO)
        dg_panic("sampler.decode is not settled");
    if (!r->score_given && is_of_two(r, 0))
        dg_panic("a step of second order without the one before");
    for (int64_t b = 0; b < num; b++)
        start(w, r, &samples[b]);
    dg_worker_unflag(w);
    for (int i = 0; i < r->num_steps && !err; i++)
        err = run_step(w, r, samples, num, i);
    if (!err && r->keep_all)
        err = tell_failures(w, r, samples, num, &found);
    return err;
}

static int is_finite(const float *x, int64_t num)
{
    int good = 1;

    for (int64_t i = 0; i < num; i++)
        good &= isfinite(x[i]) != 0;
    return good;
}

/* Once more, each op of the decoder checking itself. */
static int name_decoder(Worker *w, const Policy *p, const float *latent,
                        float *rgb)
{
    char layer[300] = "pixels";
    int err;

    w->ctx.check_finite = 1;
    err = dg_policy_decode(p, &w->ctx, latent, rgb);
    w->ctx.check_finite = 0;
    if (err == DG_ENUMERIC)
        snprintf(layer, sizeof layer, "%.290s", dg_last_error()->text);
    else if (err)
        return err;
    dg_context_reset(&w->ctx);
    return dg_fail(DG_ENUMERIC,
                   "its picture is not finite: the latent is, but not what the "
                   "decoder made of it: %s",
                   layer);
}

int dg_sampling_paint(Worker *w, const Policy *p, const float *latent,
                      float *rgb)
{
    const int64_t D = p->shape.elements;
    const int64_t num = 3 * p->shape.height * p->shape.width;
    int64_t at;
    int err = dg_policy_decode(p, &w->ctx, latent, rgb);

    if (err || is_finite(rgb, num))
        return err;
    at = w->ctx.backend->first_nonfinite(latent, D);
    if (at < 0)
        return name_decoder(w, p, latent, rgb);
    return dg_fail(DG_ENUMERIC,
                   "its picture is not finite: the latent after the last step "
                   "is not, element %lld of %lld",
                   (long long)at, (long long)D);
}
