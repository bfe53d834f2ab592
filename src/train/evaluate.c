#include "train/evaluate.h"

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "diffusion/window.h"
#include "train/cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* items are prompt * seeds + seed */
struct Eval {
    const EvaluateJob *job; /* given, or whose bytes are asked for */
    EvaluateJob given;
    int encoded;   /* conditions and features are there */
    int64_t begun; /* batches of this rank, in rounds before this one */
    int64_t num_prompts, N, first, num;
    int64_t first_prompt, num_local_prompts;
    Schedule schedule;
    SdeStep *steps;
    float *time;
    Mirror conditions;
    Mirror uncond;         /* of the empty prompt; NULL: no guidance */
    void *latents, *final; /* [workers, batch, D] each, kernel memory */
    int K;                 /* scores of a picture, at least one */
    RewardScore *scores;   /* [N, K] */
    int64_t num_features;
    float *features;   /* [num_local_prompts, num_features] of the rewards */
    char note[512];    /* why the first score of this rank's is missing, */
    int64_t note_item; /* of this item; N: none is */
    const char *what;  /* dg_evaluate_tell_as(); or NULL */
};

static const Prompt *prompt_of(const Eval *e, int64_t item)
{
    return &e->job->prompts->item[item / e->job->seeds];
}

static int encode_one(Worker *w, int64_t i, void *user)
{
    const Eval *e = user;
    const Policy *p = e->job->policy;

    if (i == e->num_local_prompts)
        return dg_sampling_encode(w, p, "", e->uncond.at);
    return dg_sampling_encode(
        w, p, e->job->prompts->item[e->first_prompt + i].text,
        (float *)e->conditions.at + i * p->shape.condition);
}

/* What the rewards' networks make of the prompts. */
static int see_prompt(Worker *w, int64_t i, void *user)
{
    const Eval *e = user;

    return dg_rewards_encode(e->job->rewards, e->job->with_scores, &w->ctx,
                             &e->job->prompts->item[e->first_prompt + i],
                             e->features + i * e->num_features);
}

static int read_conditions(const Eval *e)
{
    const EvaluateJob *job = e->job;
    int err = DG_OK;

    for (int64_t i = 0; i < e->num_local_prompts && !err; i++)
        err = dg_cache_read(
            job->cache, job->prompts->item[e->first_prompt + i].text,
            (float *)e->conditions.host + i * job->policy->shape.condition);
    if (!err && e->uncond.host != NULL)
        err = dg_cache_read(job->cache, "", e->uncond.host);
    dg_mirror_up(&e->conditions);
    dg_mirror_up(&e->uncond);
    return err;
}

static int64_t picture_values(const Policy *p)
{
    return 3 * p->shape.height * p->shape.width;
}

static void keep_picture(const Eval *e, const float *rgb, int64_t item)
{
    const int64_t num = picture_values(e->job->policy);
    uint8_t *to = e->job->pictures + item * num;

    for (int64_t i = 0; i < num; i++)
        to[i] = isnan(rgb[i]) ? 0 : (uint8_t)lrintf(255 * rgb[i]);
}

/* A picture that is scored. */
typedef struct Judged {
    Eval *eval;
    int64_t item;
} Judged;

/* The last error, behind what. */
static void note(Eval *e, int64_t item, const char *what)
{
#pragma omp critical(dg_evaluate_note)
    if (item < e->note_item) {
        e->note_item = item;
        snprintf(
            e->note, sizeof e->note, "prompt %lld, picture %lld: %.100s%.360s",
            (long long)(item / e->job->seeds),
            (long long)(item % e->job->seeds), what, dg_last_error()->text);
    }
}

static void note_missing(void *user, int64_t k)
{
    const Judged *judged = user;
    char what[100];

    snprintf(what, sizeof what,
             "reward %.64s is missing: ", judged->eval->job->rewards[k].name);
    note(judged->eval, judged->item, what);
}

/* The first of all ranks'. */
static void tell_missing(const Eval *e)
{
    const Comm *comm = e->job->session->comm;
    const char *what = e->what != NULL ? e->what : "";
    int64_t first = e->note_item;
    char text[sizeof e->note], missing[256];

    dg_comm_min_i64(comm, &first, 1);
    if (first == e->N)
        return;
    memcpy(text, e->note, sizeof text);
    dg_comm_bcast(comm, text, sizeof text,
                  dg_share_owner(e->N, comm->size, first));
    dg_rewards_count_missing(missing, sizeof missing, e->job->rewards,
                             e->job->with_scores, e->scores, e->N, e->K);
    dg_warn("%s%s%s%s", what, what[0] != '\0' ? ": " : "", text, missing);
}

static int score_one(Worker *w, Eval *e, const Sample *s, int64_t item)
{
    const Policy *p = e->job->policy;
    const size_t picture =
        (sizeof(float) * (size_t)picture_values(p) + 63) & ~(size_t)63;
    float *rgb = w->scratch;
    Judged judged = { e, item };
    RewardInput in = { .rgb = rgb,
                       .height = p->shape.height,
                       .width = p->shape.width,
                       .prompt = prompt_of(e, item),
                       .ctx = &w->ctx,
                       .scratch = (char *)w->scratch + picture };
    int err;

    if (e->features != NULL)
        in.features = e->features + (item / e->job->seeds - e->first_prompt) *
                                        e->num_features;
    for (int k = 0; k < e->K; k++)
        e->scores[item * e->K + k] = (RewardScore) { NAN, NAN, 1 };
    if (s->failed) {
        dg_fail(DG_ENUMERIC, "step %d: %s", s->failed_step, s->reason);
        note(e, item, "");
        return DG_OK;
    }
    err = dg_sampling_paint(w, p, s->final, rgb);
    if (err && err != DG_ENUMERIC)
        return err;
    if (e->job->pictures != NULL)
        keep_picture(e, rgb, item);
    if (err) { /* no reward sees it */
        note(e, item, "");
        return DG_OK;
    }
    return dg_rewards_score(e->job->rewards, e->job->with_scores, &in,
                            &e->scores[item * e->K], note_missing, &judged);
}

static int run_batch(Worker *w, int64_t index, void *user)
{
    Eval *e = user;
    const EvaluateJob *job = e->job;
    const int64_t from = (e->begun + index) * job->batch;
    const int64_t D = job->policy->shape.elements;
    const int64_t num = from + job->batch < e->num ? job->batch : e->num - from;
    const int64_t base = (int64_t)w->index * job->batch * D;
    const Config *c = job->session->config;
    const SamplingRun run = {
        .policy = job->policy,
        .steps = e->steps,
        .time = e->time,
        .guidance = { c->cfg.scale, c->cfg.grad, e->uncond.at },
        .num_steps = e->schedule.num_steps,
        /* of a flow x0 and zT are one; of DDIM zT is what pipelines show */
        .decode = DG_DECODE_ZT,
    };
    Sample samples[DG_SAMPLING_BATCH];
    int err;

    for (int64_t b = 0; b < num; b++) {
        const int64_t item = e->first + from + b;

        samples[b] = (Sample) {
            .init = { .seed = job->seed,
                      .purpose = DG_RNG_EVAL_LATENTS,
                      .prompt = (uint32_t)(item / job->seeds),
                      .sample = (uint32_t)(item % job->seeds) },
            .condition = (float *)e->conditions.at +
                         (item / job->seeds - e->first_prompt) *
                             job->policy->shape.condition,
            .latents = (float *)e->latents + base + b * D,
            .final = (float *)e->final + base + b * D,
        };
    }
    err = dg_sampling_run(w, &run, samples, num);
    for (int64_t b = 0; b < num && !err; b++)
        err = score_one(w, e, &samples[b], e->first + from + b);
    dg_progress_add(num);
    return err;
}

/* What of it is this rank's. */
static void share(Eval *e, const EvaluateJob *job)
{
    const Comm *comm = job->session->comm;

    e->job = job;
    e->num_prompts =
        job->num_prompts > 0 && job->num_prompts < job->prompts->num
            ? job->num_prompts
            : job->prompts->num;
    e->N = e->num_prompts * job->seeds;
    e->K = job->with_scores > 0 ? job->with_scores : 1;
    dg_share_range(e->N, comm->rank, comm->size, &e->first, &e->num);
    e->first_prompt = e->first / job->seeds;
    if (e->num > 0)
        e->num_local_prompts =
            (e->first + e->num - 1) / job->seeds - e->first_prompt + 1;
}

/* Kernel memory: conditions, the empty prompt's, latents in work (twice). */
typedef struct EvalBytes {
    size_t conditions, uncond, latents;
} EvalBytes;

static EvalBytes bytes_of(const Eval *e)
{
    const EvaluateJob *job = e->job;
    const Session *s = job->session;
    const PolicyShape *shape = &job->policy->shape;
    const size_t condition = sizeof(float) * (size_t)shape->condition;

    return (EvalBytes) {
        .conditions = condition * (size_t)e->num_local_prompts,
        .uncond = dg_guided_wanted(s->config) ? condition : 0,
        .latents = sizeof(float) *
                   (size_t)(s->num_threads * job->batch * shape->elements),
    };
}

size_t dg_evaluate_bytes(const EvaluateJob *job)
{
    Eval e = { .job = job };
    EvalBytes b;

    share(&e, job);
    b = bytes_of(&e);
    return b.conditions + b.uncond + 2 * b.latents;
}

static int reserve(Eval *e)
{
    const Backend *be = e->job->session->backend;
    const EvalBytes b = bytes_of(e);
    int err = dg_mirror_new(&e->conditions, be, b.conditions, "conditions");

    if (!err && b.uncond > 0)
        err = dg_mirror_new(&e->uncond, be, b.uncond, "conditions");
    if (!err)
        err = dg_kernel_memory_new(&e->latents, be, b.latents);
    if (!err)
        err = dg_kernel_memory_new(&e->final, be, b.latents);
    return err;
}

static int prepare(Eval *e)
{
    const EvaluateJob *job = e->job;
    const Config *c = job->session->config;
    const SdeOpts ode = { DG_SDE_ODE, DG_LOG_PROB_GAUSSIAN, 0 };
    int err;

    share(e, job);
    err = dg_policy_schedule(job->policy, &e->schedule, (int)c->evaluate.steps,
                             c->evaluate.shift);
    if (err)
        return err;
    e->steps = calloc((size_t)c->evaluate.steps, sizeof *e->steps);
    e->time = calloc((size_t)c->evaluate.steps, sizeof *e->time);
    err = reserve(e);
    e->scores = calloc((size_t)(e->N * e->K), sizeof *e->scores);
    if (job->with_scores)
        e->num_features =
            dg_rewards_num_features(job->rewards, job->with_scores);
    if (e->num_features > 0)
        e->features =
            calloc((size_t)(e->num_local_prompts * e->num_features) + 1,
                   sizeof(float));
    if (e->steps == NULL || e->time == NULL || err || e->scores == NULL ||
        (e->num_features > 0 && e->features == NULL))
        return dg_fail(DG_ENOMEM, "evaluation of %lld pictures",
                       (long long)e->N);
    for (int i = 0; i < e->schedule.num_steps && !err; i++) {
        err = dg_sde_step_init(&e->steps[i], &ode, &e->schedule, i);
        e->time[i] = dg_schedule_time(&e->schedule, i, job->policy->shape.time);
    }
    return err;
}

static void release(Eval *e)
{
    dg_schedule_fini(&e->schedule);
    free(e->steps);
    free(e->time);
    dg_mirror_free(&e->conditions);
    dg_mirror_free(&e->uncond);
    dg_kernel_memory_free(e->job->session->backend, e->latents);
    dg_kernel_memory_free(e->job->session->backend, e->final);
    free(e->scores);
    free(e->features);
}

/* --- statistics -------------------------------------------------------- */

/* Mean of a reward over a prompt's seeds; NAN if none is there. */
static double prompt_mean(const Eval *e, int64_t prompt, int reward, int strict)
{
    double sum = 0;
    int64_t n = 0;

    for (int64_t k = 0; k < e->job->seeds; k++) {
        const RewardScore *s =
            &e->scores[(prompt * e->job->seeds + k) * e->K + reward];
        const double v = strict ? (double)s->strict : (double)s->value;

        if (s->missing || isnan(v))
            continue;
        sum += v;
        n++;
    }
    return n > 0 ? sum / (double)n : NAN;
}

/* Statistics of the prompts of one tag; NULL: of all. */
static int tag_stats(EvaluateTag *t, const Eval *e, const char *tag,
                     double *values)
{
    const Config *c = e->job->session->config;
    int err = DG_OK;

    for (int strict = 0; strict < 2 && !err; strict++) {
        int64_t n = 0;

        for (int64_t p = 0; p < e->num_prompts; p++)
            if (tag == NULL || strcmp(e->job->prompts->item[p].tag, tag) == 0)
                values[n++] = prompt_mean(e, p, 0, strict);
        t->pictures = n * e->job->seeds;
        err = dg_bootstrap(strict ? &t->strict : &t->reward, values, n,
                           c->evaluate.bootstrap, e->job->seed);
    }
    return err;
}

/* The sum of a picture's weighted rewards, as training has it; NAN where one is
 * missing. */
static double weighted(const Eval *e, int64_t item)
{
    double sum = 0;

    for (int k = 0; k < e->job->with_scores; k++) {
        const RewardScore *s = &e->scores[item * e->K + k];

        sum += s->missing ? NAN : e->job->rewards[k].weight * (double)s->value;
    }
    return sum;
}

static int sum_stats(Interval *out, const Eval *e, double *values)
{
    for (int64_t p = 0; p < e->num_prompts; p++) {
        double sum = 0;
        int64_t n = 0;

        for (int64_t k = 0; k < e->job->seeds; k++) {
            const double v = weighted(e, p * e->job->seeds + k);

            sum += isnan(v) ? 0 : v;
            n += !isnan(v);
        }
        values[p] = n > 0 ? sum / (double)n : NAN;
    }
    return dg_bootstrap(out, values, e->num_prompts,
                        e->job->session->config->evaluate.bootstrap,
                        e->job->seed);
}

static int reward_stats(EvaluateReward *r, const Eval *e, int k, double *values)
{
    const Config *c = e->job->session->config;
    int err = DG_OK;

    snprintf(r->name, sizeof r->name, "%s", c->rewards[k].name);
    for (int64_t i = 0; i < e->N; i++)
        r->missing += e->scores[i * e->K + k].missing != 0;
    for (int strict = 0; strict < 2 && !err; strict++) {
        for (int64_t p = 0; p < e->num_prompts; p++)
            values[p] = prompt_mean(e, p, k, strict);
        err = dg_bootstrap(strict ? &r->strict : &r->reward, values,
                           e->num_prompts, c->evaluate.bootstrap, e->job->seed);
    }
    return err;
}

static void collect_tags(Evaluation *out, const Eval *e)
{
    int64_t without = 0;

    for (int64_t p = 0; p < e->num_prompts; p++) {
        const char *tag = e->job->prompts->item[p].tag;
        int known = 0;

        for (int i = 0; i < out->num_tags; i++)
            known |= strcmp(out->tags[i].tag, tag) == 0;
        if (known || tag[0] == '\0')
            continue;
        if (out->num_tags < DG_EVALUATE_TAGS &&
            strlen(tag) < sizeof out->tags[0].tag)
            strcpy(out->tags[out->num_tags++].tag, tag);
        else
            without++;
    }
    if (without > 0)
        dg_warn(
            "%lld prompts are in no task's row: there are at most %d tasks, "
            "named by fewer than %d bytes",
            (long long)without, DG_EVALUATE_TAGS, (int)sizeof out->tags[0].tag);
}

static int summarize(Evaluation *out, const Eval *e)
{
    double *values = malloc(sizeof *values * (size_t)e->num_prompts);
    int err;

    if (values == NULL)
        return dg_fail(DG_ENOMEM, "evaluation");
    memset(out, 0, sizeof *out);
    out->prompts = e->num_prompts;
    out->seeds = e->job->seeds;
    for (int64_t i = 0; i < e->N; i++)
        out->missing += e->scores[i * e->K].missing != 0;
    strcpy(out->all.tag, "all");
    err = tag_stats(&out->all, e, NULL, values);
    collect_tags(out, e);
    for (int i = 0; i < out->num_tags && !err; i++)
        err = tag_stats(&out->tags[i], e, out->tags[i].tag, values);
    if (out->num_tags > 0)
        dg_evaluation_average(out);
    out->num_rewards = e->job->with_scores;
    for (int k = 0; k < out->num_rewards && !err; k++)
        err = reward_stats(&out->rewards[k], e, k, values);
    if (!err)
        err = sum_stats(&out->sum, e, values);
    free(values);
    return err;
}

/* --- all of it ---------------------------------------------------------- */

static int encode(Eval *e)
{
    const EvaluateJob *job = e->job;
    int err = job->cache != NULL
                  ? read_conditions(e)
                  : dg_team_run(job->team,
                                e->num_local_prompts + (e->uncond.at != NULL),
                                encode_one, e);

    /* weights may be all ranks' together */
    err = dg_agree(job->session->comm, err);
    if (!err && e->features != NULL)
        err = dg_team_run(job->team, e->num_local_prompts, see_prompt, e);
    return err;
}

/* A batch for each worker at a time, between which ranks ask each other for a
 * stop. */
static int paint_in_rounds(int *stopped, Eval *e, double seconds)
{
    const Comm *comm = e->job->session->comm;
    const int64_t batches = (e->num + e->job->batch - 1) / e->job->batch;
    const int64_t each = e->job->team->num;
    int64_t rounds = (batches + each - 1) / each;
    int err = DG_OK;

    dg_comm_max_i64(comm, &rounds, 1);
    for (int64_t i = 0; i < rounds && !err; i++) {
        const int64_t left = batches - e->begun;
        const int64_t num = left < each ? left : each;

        *stopped = dg_stop_wanted(comm, seconds);
        if (*stopped)
            return DG_OK;
        err = dg_agree(comm, dg_team_run(e->job->team, num, run_batch, e));
        e->begun += num;
    }
    return err;
}

int dg_evaluate_open(Eval **out, const EvaluateJob *job)
{
    const Comm *comm = job->session->comm;
    Eval *e = calloc(1, sizeof *e);
    int err =
        dg_agree(comm, e != NULL ? DG_OK : dg_fail(DG_ENOMEM, "evaluation"));

    if (!err) {
        e->given = *job;
        e->job = &e->given;
        err = dg_agree(comm, prepare(e));
    }
    if (err) {
        dg_evaluate_close(e);
        return err;
    }
    *out = e;
    return DG_OK;
}

void dg_evaluate_tell_as(Eval *e, const char *what)
{
    e->what = what;
}

int dg_evaluate_run(Evaluation *out, Eval *e, const double *seconds)
{
    const EvaluateJob *job = e->job;
    const Comm *comm = job->session->comm;
    int stopped = 0, err = DG_OK;

    dg_progress_start("evaluate", e->num);
    if (!e->encoded)
        err = dg_agree(comm, encode(e));
    e->encoded = !err;
    e->begun = 0;
    e->note_item = e->N;
    if (!err)
        err =
            seconds != NULL
                ? paint_in_rounds(&stopped, e, *seconds)
                : dg_team_run(job->team, (e->num + job->batch - 1) / job->batch,
                              run_batch, e);
    dg_progress_end();
    err = dg_agree(comm, err);
    if (err)
        return err;
    if (stopped) {
        *out = (Evaluation) { .stopped = 1 };
        return DG_OK;
    }
    dg_comm_share_items(comm, e->scores, e->N,
                        sizeof *e->scores * (size_t)e->K);
    dg_rewards_tell(job->rewards, job->with_scores, comm, NULL);
    tell_missing(e);
    if (job->pictures != NULL)
        dg_comm_share_items(comm, job->pictures, e->N,
                            (size_t)picture_values(job->policy));
    return dg_agree(comm, summarize(out, e));
}

void dg_evaluate_close(Eval *e)
{
    if (e == NULL)
        return;
    if (e->job != NULL)
        release(e);
    free(e);
}

int dg_evaluate(Evaluation *out, const EvaluateJob *job)
{
    Eval *e;
    int err = dg_evaluate_open(&e, job);

    if (err)
        return err;
    err = dg_evaluate_run(out, e, NULL);
    dg_evaluate_close(e);
    return err;
}
