/* Trajectories of a rank's items. */
#include "train/rollout.h"

#include "base/error.h"
#include "base/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct SampleJob {
    Rollout *r;
    const Session *session;
    SamplingRun run; /* of all steps */
    int64_t batch;
    int shared; /* predictions that the samples of a prompt share */
} SampleJob;

static void note_failure(const SampleJob *j, const Sample *sample, int64_t item)
{
    Rollout *r = j->r;

    for (int64_t k = 0; k < r->K; k++)
        r->scores[item * r->K + k] = (RewardScore) { NAN, NAN, DG_SCORE_ASIDE };
#pragma omp critical(dg_rollout_note)
    if (item < r->note_item) {
        r->note_item = item;
        snprintf(r->note, sizeof r->note,
                 "iteration %lld, prompt %lld, sample %lld, step %d, rank %d: "
                 "%s",
                 (long long)r->iteration + 1, (long long)r->prompt[item / r->G],
                 (long long)(item % r->G), sample->failed_step,
                 j->session->comm->rank, sample->reason);
    }
}

RngKey dg_rollout_noise(const Rollout *r, const Config *c, int64_t item)
{
    return (RngKey) {
        .seed = (uint64_t)c->run.seed,
        .purpose = DG_RNG_SDE_NOISE,
        .iteration = (uint32_t)r->iteration,
        .prompt = (uint32_t)(item / r->G),
        .sample = (uint32_t)(item % r->G),
    };
}

/* An item's sample, from step 'from' on. */
static Sample sample_of(const SampleJob *j, int64_t item, int from)
{
    const Rollout *r = j->r;
    const Config *c = j->session->config;
    const int64_t at = item - r->first;
    Sample s = { .noise = dg_rollout_noise(r, c, item),
                 .condition = dg_rollout_condition(r, j->run.policy, item),
                 .latents = dg_rollout_latent(r, item, from),
                 .log_prob =
                     (float *)r->in[DG_ROLLOUT_LOG_PROB].at + at * r->T + from,
                 .final = (float *)r->in[DG_ROLLOUT_FINAL].at + at * r->D };

    s.init = s.noise;
    s.init.purpose = DG_RNG_INIT_LATENTS;
    if (c->sampler.init_noise == DG_NOISE_PER_PROMPT)
        s.init.sample = 0;
    return s;
}

static int64_t batch_at(const SampleJob *j, int64_t num, int64_t index)
{
    const int64_t left = num - index * j->batch;

    return left < j->batch ? left : j->batch;
}

/* What the samples of a prompt share, by the first of this rank's. */
static int lead_batch(Worker *w, int64_t index, void *user)
{
    const SampleJob *j = user;
    const Rollout *r = j->r;
    const int64_t num = batch_at(j, r->num_prompts, index);
    int64_t first[DG_SAMPLING_BATCH];
    Sample samples[DG_SAMPLING_BATCH];
    SamplingRun run = j->run;
    int err;

    run.num_steps = j->shared;
    run.room = r->T;
    for (int64_t b = 0; b < num; b++) {
        const int64_t group = (r->first_prompt + index * j->batch + b) * r->G;
        const int64_t end = r->first + r->num;

        first[b] = group > r->first ? group : r->first;
        samples[b] = sample_of(j, first[b], 0);
        samples[b].final = NULL;
        samples[b].twins =
            (group + r->G < end ? group + r->G : end) - first[b] - 1;
    }
    err = dg_sampling_run(w, &run, samples, num);
    for (int64_t b = 0; b < num && !err; b++)
        for (int64_t k = 0; k <= samples[b].twins && samples[b].failed; k++)
            note_failure(j, &samples[b], first[b] + k);
    return err;
}

/* The steps that are a sample's own. */
static int sample_batch(Worker *w, int64_t index, void *user)
{
    const SampleJob *j = user;
    const Rollout *r = j->r;
    const int64_t from = r->first + index * j->batch;
    const int64_t num = batch_at(j, r->num, index);
    Sample samples[DG_SAMPLING_BATCH];
    SamplingRun run = j->run;
    int err;

    run.steps += j->shared;
    run.time += j->shared;
    run.num_steps -= j->shared;
    run.begun = j->shared > 0;
    for (int64_t b = 0; b < num; b++)
        samples[b] = sample_of(j, from + b, j->shared);
    err = dg_sampling_run(w, &run, samples, num);
    for (int64_t b = 0; b < num && !err; b++)
        if (samples[b].failed)
            note_failure(j, &samples[b], from + b);
    if (!err && r->scoring != NULL)
        dg_beside_give(r->scoring->beside, num);
    dg_progress_add(num);
    return err;
}

static int64_t batches(const SampleJob *j, int64_t num)
{
    return (num + j->batch - 1) / j->batch;
}

int dg_rollout_sample(Rollout *r, const Session *s, Team *team, const Policy *p)
{
    SampleJob j = {
        .r = r,
        .session = s,
        .run = { .policy = p,
                 .steps = r->steps,
                 .time = r->time,
                 .guidance = dg_rollout_guidance(r, s->config),
                 .num_steps = r->T,
                 .keep_all = 1,
                 .decode = s->config->sampler.decode },
        .batch = s->config->grpo.micro_batch,
        .shared = dg_rollout_shared(s->config, &r->window),
    };
    int err = DG_OK;

    memset(r->scores, 0, sizeof *r->scores * (size_t)(r->N * r->K));
    if (j.shared > 0)
        err = dg_team_run(team, batches(&j, r->num_prompts), lead_batch, &j);
    if (!err)
        err = dg_team_run(team, batches(&j, r->num), sample_batch, &j);
    return err ? err : dg_mirror_down(&r->in[DG_ROLLOUT_LOG_PROB]);
}
