#include "train/infer.h"

#include "base/error.h"
#include "base/log.h"
#include "base/plural.h"
#include "room.h"
#include "store/file.h"
#include "store/image.h"
#include "train/cache.h"
#include "train/evaluate.h"
#include "train/rollout.h"
#include "train/sampling.h"
#include "train/setup.h"
#include "train/step_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 16 };

typedef struct Infer {
    PromptList prompts;
    Reward rewards[DG_CONFIG_REWARDS];
    Policy *policy;
    Conditions *cache; /* of prompts.cache, for prompts of files; or NULL */
    Team *team;
} Infer;

static const char *prompts_path(const Config *c)
{
    return c->evaluate.file[0] != '\0' ? c->evaluate.file
                                       : c->prompts.eval_file;
}

static int open_prompts(Infer *x, const Session *s, const InferOpts *o)
{
    const char *path = prompts_path(s->config);

    if (o->num_prompts == 0 && path[0] == '\0')
        return dg_fail(DG_EINVAL, "evaluate.file and prompts.eval_file are "
                                  "empty: one must name a prompts file");
    return o->num_prompts == 0
               ? dg_setup_prompts(s, path, &x->prompts)
               : dg_prompts_of(&x->prompts, o->prompts, o->num_prompts);
}

static int open_cache(Infer *x, const Session *s, const Policy *sizes)
{
    const int err = dg_cache_open(&x->cache, s, sizes);

    return err ? err
               : dg_cache_check(x->cache, s, sizes, &x->prompts,
                                prompts_path(s->config));
}

static int match_cache(Infer *x, const Session *s)
{
    const int err = dg_cache_match(x->cache, s, x->policy);

    if (!err && x->cache != NULL)
        dg_policy_drop_text(x->policy);
    return err;
}

/* scored: how many of the rewards are used; 0: pictures alone */
static EvaluateJob job_of(const Infer *x, const Session *s, const InferOpts *o,
                          int scored)
{
    const Config *c = s->config;
    EvaluateJob job = {
        .session = s,
        .team = x->team,
        .policy = x->policy,
        .prompts = &x->prompts,
        .rewards = x->rewards,
        .cache = x->cache,
        .num_prompts = c->evaluate.num_prompts,
        .seeds = c->evaluate.seeds,
        .seed = (uint64_t)c->run.seed,
        .with_scores = scored,
    };

    if (scored == 0) {
        job.seeds = o->seeds;
        job.num_prompts = o->num_prompts > 0 ? o->num_prompts : o->num;
    }
    if (job.num_prompts == 0 || job.num_prompts > x->prompts.num)
        job.num_prompts = x->prompts.num;
    job.batch =
        dg_sampling_batch(BATCH, job.num_prompts * job.seeds, s->comm->size);
    return job;
}

/* What is refused without weights, which may take minutes to read. */
static int check_sizes(Infer *x, const Session *s, const InferOpts *o,
                       int scored)
{
    const Config *c = s->config;
    PromptList painted = x->prompts;
    Policy *sizes = NULL;
    int err = dg_setup_sizes(s, &sizes);

    painted.num = (int32_t)job_of(x, s, o, scored).num_prompts;
    if (!err)
        err = dg_rewards_check_picture(x->rewards, scored, sizes->shape.height,
                                       sizes->shape.width);
    if (!err)
        err = dg_setup_check_words(s, sizes, &painted,
                                   o->num_prompts > 0 ? "the command line"
                                                      : prompts_path(c));
    if (!err && o->num_prompts == 0)
        err = open_cache(x, s, sizes);
    dg_rewards_seat(x->rewards, c->num_rewards, dg_session_gpu(s));
    if (!err)
        err = dg_rewards_prepare(x->rewards, c, scored, s->comm);
    if (!err)
        err = dg_setup_find_weights(s, sizes);
    dg_policy_destroy(sizes);
    return err;
}

static int open_parts(Infer *x, const Session *s, const InferOpts *o,
                      int scored)
{
    const Config *c = s->config;
    int err = dg_rewards_init(x->rewards, c);

    if (!err)
        err = dg_agree(s->comm, open_prompts(x, s, o));
    if (!err && !dg_setup_has_weights(c))
        err = dg_fail(DG_EINVAL, "policy.weights = \"\": must name a weights "
                                 "file or a checkpoint");
    if (!err && o->ema && c->policy.weights[0] == '\0')
        err = dg_fail(DG_EINVAL, "--ema: policy.weights = \"\": must name a "
                                 "checkpoint");
    if (!err)
        err = check_sizes(x, s, o, scored);
    if (!err)
        err = dg_setup_policy(s, o->ema, &x->policy);
    if (!err)
        err = dg_rewards_load(x->rewards, scored, s->comm);
    return err ? err : match_cache(x, s);
}

/* What there is to reserve; cached: conditions are read. */
static int count_parts(RoomParts *out, const EvaluateJob *job, int cached)
{
    const Session *s = job->session;
    const Config *c = s->config;
    const Guidance guidance = { c->cfg.scale, c->cfg.grad, NULL };
    const StepPlanOpts opts = { .batch = job->batch,
                                .cached = cached,
                                .guidance = &guidance,
                                .rewards = job->rewards,
                                .num_rewards = job->with_scores };
    int err;

    *out = (RoomParts) { .pictures = dg_evaluate_bytes(job),
                         .team = { .backend = s->backend,
                                   .num_threads = s->num_threads,
                                   .exact = 1,
                                   .max_items = 1 } };
    dg_room_networks(out, job->policy, job->rewards, job->with_scores);
    err = dg_step_plan(&out->step, job->policy, s->backend, &opts);
    out->team.step_bytes = out->step.step_bytes;
    out->team.scratch_bytes =
        dg_rollout_scratch(job->policy, job->rewards, c->num_rewards);
    return err;
}

static int count_outline(RoomParts *out, const Infer *x, const Session *s,
                         const InferOpts *o, int scored)
{
    EvaluateJob job = job_of(x, s, o, scored);
    Policy *sizes;
    int err = dg_policy_outline(&sizes, s->config);

    if (err)
        return err;
    if (x->cache != NULL)
        dg_policy_leave_text(sizes);
    job.policy = sizes;
    err = count_parts(out, &job, x->cache != NULL);
    dg_policy_destroy(sizes);
    return err;
}

/* Before anything is placed. */
static int check_room(const Session *s, const RoomParts *parts, int scored)
{
    const RoomKey keys[] = {
        { s->config->prompts.cache[0] == '\0',
          "encoded prompts (prompts.cache)" },
        { scored > 1, "fewer rewards at once" },
    };
    GpuPlan plan;

    dg_room_count(&plan, parts);
    return dg_room_check(s, plan.gpu, keys, sizeof keys / sizeof *keys);
}

static int open_infer(Infer *x, const Session *s, const InferOpts *o,
                      int scored)
{
    RoomParts parts;
    int err = open_parts(x, s, o, scored);

    if (!err)
        err = dg_agree(s->comm, count_outline(&parts, x, s, o, scored));
    if (!err)
        err = check_room(s, &parts, scored);
    if (!err)
        err = dg_policy_place(x->policy, s->backend);
    if (!err)
        dg_policy_drop(x->policy, 0);
    if (!err)
        err = dg_rewards_place(x->rewards, scored, s->backend);
    if (!err)
        err = dg_team_create(&x->team, &parts.team);
    err = dg_agree(s->comm, err);
    return err ? err : dg_policy_settle(x->policy, s->comm);
}

int dg_infer_parts(RoomParts *out, const Session *s, const Policy *p,
                   const Reward *rewards, int64_t num_prompts, int scored)
{
    const InferOpts o = { .seeds = DG_SAMPLE_SEEDS, .num = DG_SAMPLE_PROMPTS };
    Infer x = { .prompts = { .num = (int32_t)num_prompts },
                .policy = (Policy *)p };
    EvaluateJob job;
    int64_t first, num;
    int err;

    memcpy(x.rewards, rewards, sizeof x.rewards);
    job = job_of(&x, s, &o, scored);
    err = count_parts(out, &job, s->config->prompts.cache[0] != '\0');
    num = job.num_prompts > 0 && job.num_prompts < num_prompts ? job.num_prompts
                                                               : num_prompts;
    dg_share_range(num * job.seeds, s->comm->rank, s->comm->size, &first,
                   &out->items);
    return err;
}

static void close_infer(Infer *x)
{
    dg_rewards_close(x->rewards, DG_CONFIG_REWARDS); /* unused: empty */
    dg_team_destroy(x->team);
    dg_policy_destroy(x->policy);
    dg_conditions_close(x->cache);
    dg_prompts_free(&x->prompts);
}

static int tell(const Evaluation *e, const InferOpts *o)
{
    char *text;
    int err = dg_evaluation_text(&text, e);

    if (err)
        return err;
    fputs(text, stdout);
    free(text);
    if (o->out == NULL)
        return DG_OK;
    err = dg_evaluation_json(&text, e);
    if (err)
        return err;
    err = dg_file_write(o->out, text, strlen(text));
    free(text);
    return err;
}

int dg_infer_evaluate(const Session *s, const InferOpts *o)
{
    Infer x = { 0 };
    Evaluation e;
    int err = s->config->num_rewards == 0
                  ? dg_fail(DG_EINVAL, "rewards: evaluation needs one")
                  : open_infer(&x, s, o, (int)s->config->num_rewards);

    if (!err && !o->dry)
        err = dg_rewards_start(x.rewards, s->config, s->config->num_rewards,
                               s->comm, NULL);
    if (!err && !o->dry) {
        const EvaluateJob job = job_of(&x, s, o, (int)s->config->num_rewards);

        err = dg_evaluate(&e, &job);
    }
    if (!err && !o->dry && s->comm->rank == 0)
        err = tell(&e, o);
    close_infer(&x);
    return dg_agree(s->comm, err);
}

static int write_grid(const Infer *x, const Session *s, const InferOpts *o,
                      const EvaluateJob *job)
{
    const PolicyShape *shape = &x->policy->shape;
    const char *captions[job->num_prompts * job->seeds];
    char seed[32], prompts[2048] = "";
    size_t used = 0;
    const ImageGrid grid = {
        .num = (int32_t)(job->num_prompts * job->seeds),
        .width = (int32_t)shape->width,
        .height = (int32_t)shape->height,
        .columns = (int32_t)job->seeds,
        .scale = o->scale,
        .padding = 4,
        .captions = captions,
    };
    const ImageText texts[] = { { "seed", seed },
                                { "prompt", prompts },
                                { "weights", s->config->policy.weights },
                                { "folder", s->config->policy.path } };
    Image image;
    int err;

    for (int64_t i = 0; i < job->num_prompts; i++) {
        const char *text = x->prompts.item[i].text;

        if (used < sizeof prompts)
            used += (size_t)snprintf(prompts + used, sizeof prompts - used,
                                     "%s%s", i > 0 ? "\n" : "", text);
        for (int64_t k = 0; k < job->seeds; k++)
            captions[i * job->seeds + k] = text;
    }
    snprintf(seed, sizeof seed, "%lld", (long long)s->config->run.seed);
    err = dg_image_grid(&image, job->pictures, &grid);
    if (err)
        return err;
    err = dg_image_write_png(o->out, &image, texts,
                             3 + (s->config->policy.path[0] != '\0'));
    dg_image_free(&image);
    if (!err)
        dg_info("wrote %s: %lld prompt%s x %lld seed%s", o->out,
                (long long)job->num_prompts, dg_plural(job->num_prompts),
                (long long)job->seeds, dg_plural(job->seeds));
    return err;
}

int dg_infer_sample(const Session *s, const InferOpts *o)
{
    Infer x = { 0 };
    int err = open_infer(&x, s, o, 0);

    if (!err && !o->dry) {
        const PolicyShape *shape = &x.policy->shape;
        EvaluateJob job = job_of(&x, s, o, 0);
        Evaluation unused;

        job.pictures = calloc((size_t)(job.num_prompts * job.seeds),
                              (size_t)(3 * shape->height * shape->width));
        if (job.pictures == NULL)
            err = dg_fail(DG_ENOMEM, "pictures");
        err = dg_agree(s->comm, err);
        if (!err)
            err = dg_evaluate(&unused, &job);
        if (!err && s->comm->rank == 0)
            err = write_grid(&x, s, o, &job);
        free(job.pictures);
    }
    close_infer(&x);
    return dg_agree(s->comm, err);
}
