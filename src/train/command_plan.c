/* Plans of any command: its own count, over outlines. */
#include "base/error.h"
#include "plan_lines.h"
#include "plan_outline.h"
#include "room.h"
#include "store/prompts.h"
#include "train/infer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const names[DG_PLAN_COMMANDS] = {
    [DG_PLAN_TRAIN] = "train",   [DG_PLAN_PRETRAIN] = "pretrain",
    [DG_PLAN_SAMPLE] = "sample", [DG_PLAN_EVALUATE] = "evaluate",
    [DG_PLAN_ENCODE] = "encode", [DG_PLAN_REPLAY] = "replay",
};

const char *dg_plan_command_name(PlanCommand command)
{
    return names[command];
}

int dg_plan_command(PlanCommand *out, const char *name)
{
    for (int i = 0; i < DG_PLAN_COMMANDS; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (PlanCommand)i;
            return DG_OK;
        }
    return dg_fail(DG_EUSAGE,
                   "--command %s: must be train, pretrain, sample, evaluate, "
                   "encode or replay",
                   name);
}

/* --- the command over outlines ------------------------------------------- */

/* A command's networks without their memory, and what is counted over them. */
typedef struct Use {
    PlanCommand command;
    Config config;
    Comm comm;
    Session session; /* of the first of so many ranks, which no other exceeds */
    Policy *policy, *teacher;
    Reward rewards[DG_CONFIG_REWARDS];
    int64_t num_rewards; /* that score */
    int64_t num_prompts;
    const char *no_prompts; /* the file that is not there, or NULL */
    RoomParts parts;
} Use;

static void close_use(Use *u)
{
    dg_rewards_close(u->rewards, u->config.num_rewards);
    dg_policy_destroy(u->teacher);
    dg_policy_destroy(u->policy);
}

/* A file that is not there has none. */
static int read_prompts(PromptList *list, Use *u, const char *path)
{
    *list = (PromptList) { .num = 0 };
    if (path[0] == '\0')
        return DG_OK;
    if (access(path, F_OK) == 0)
        return dg_prompts_read(list, path);
    u->no_prompts = path;
    return DG_OK;
}

/* Held-out ones; where there are none, what sample then has to be given. */
static int count_heldout(Use *u)
{
    const Config *c = &u->config;
    PromptList list;
    const int err = read_prompts(
        &list, u,
        c->evaluate.file[0] != '\0' ? c->evaluate.file : c->prompts.eval_file);

    u->num_prompts = err ? 0 : list.num;
    if (u->num_prompts == 0 && u->command == DG_PLAN_SAMPLE)
        u->num_prompts = DG_SAMPLE_PROMPTS;
    if (!err)
        dg_prompts_free(&list);
    return err;
}

static int count_encoded(Use *u)
{
    const Config *c = &u->config;
    const char *const path[DG_CACHE_FILES] = { c->prompts.file,
                                               c->prompts.eval_file,
                                               c->evaluate.file };
    PromptList lists[DG_CACHE_FILES] = { 0 };
    int err = DG_OK;

    for (int i = 0; i < DG_CACHE_FILES && !err; i++)
        err = read_prompts(&lists[i], u, path[i]);
    if (!err)
        err = dg_encode_num(&u->num_prompts, lists);
    for (int i = 0; i < DG_CACHE_FILES; i++)
        dg_prompts_free(&lists[i]);
    return err;
}

static int open_rewards(Use *u)
{
    const Config *c = &u->config;
    int err = dg_rewards_init(u->rewards, c);

    if (u->command == DG_PLAN_EVALUATE)
        u->num_rewards = c->num_rewards;
    if (u->command == DG_PLAN_PRETRAIN && u->num_prompts > 0)
        u->num_rewards = c->num_rewards > 0;
    if (!err && u->command == DG_PLAN_EVALUATE && c->num_rewards == 0)
        err = dg_fail(DG_EINVAL, "rewards: evaluation needs one");
    return err ? err : dg_rewards_outline(u->rewards, c, u->num_rewards);
}

/* Conditions are in a file: nothing is encoded. */
static int cached(const Use *u)
{
    return (u->command == DG_PLAN_SAMPLE || u->command == DG_PLAN_EVALUATE) &&
           u->config.prompts.cache[0] != '\0';
}

static int open_use(Use *u, const Session *s, PlanCommand command, int ranks)
{
    int err;

    *u = (Use) { .command = command, .config = *s->config, .session = *s };
    u->comm = (Comm) { .rank = 0, .size = ranks };
    u->session.comm = &u->comm;
    u->session.config = &u->config;
    err = command == DG_PLAN_ENCODE ? count_encoded(u) : count_heldout(u);
    if (!err)
        err = open_rewards(u);
    if (!err)
        err = dg_policy_outline(&u->policy, &u->config);
    if (!err && command == DG_PLAN_PRETRAIN &&
        u->config.pretrain.distill_cfg != 1)
        err = dg_policy_outline(&u->teacher, &u->config);
    if (!err && cached(u))
        dg_policy_leave_text(u->policy);
    return err;
}

/* By what the session and the configuration now say. */
static int count(Use *u)
{
    const Session *s = &u->session;

    if (u->command == DG_PLAN_PRETRAIN)
        return dg_pretrain_parts(&u->parts, s, u->policy, u->teacher,
                                 u->rewards, u->num_prompts);
    if (u->command == DG_PLAN_ENCODE)
        return dg_encode_parts(&u->parts, s, u->policy, u->num_prompts);
    return dg_infer_parts(&u->parts, s, u->policy, u->rewards, u->num_prompts,
                          (int)u->num_rewards);
}

/* --- lines ----------------------------------------------------------------- */

static void tell_memory(PlanTable *t, const Use *u)
{
    const RoomParts *r = &u->parts;

    if (u->command != DG_PLAN_ENCODE || !dg_encode_alone(&u->config))
        dg_plan_put(t, "network", "weights: network",
                    r->network > 0
                        ? r->network
                        : sizeof(float) * (uint64_t)u->policy->net.count);
    dg_plan_put_some(t, "text", "weights: text encoders", r->text);
    dg_plan_put_some(t, "codec", "weights: decoder", r->codec);
    dg_plan_put_some(t, "teacher", "weights: teacher", r->teacher);
    dg_plan_put_some(t, "masters", "weights: float32 masters", r->masters);
    dg_plan_put_some(t, "rewards", "weights: rewards", r->rewards);
    if (r->place.shard.size > 0)
        dg_plan_learner(t, &r->place, &r->optim);
    dg_plan_team(t, &r->team);
    dg_plan_put_some(t, "pictures", "conditions, latents", r->pictures);
    dg_plan_put_some(t, "encoded", "conditions at once", r->host);
    dg_plan_total(t);
}

static void tell_activations(PlanTable *t, const Use *u)
{
    const StepPlan *p = &u->parts.step;

    dg_plan_put_some(t, "encode", "encode, a prompt", p->encode_bytes);
    if (u->command == DG_PLAN_ENCODE)
        return;
    dg_plan_put_some(t, "reward", "rewards, a picture or prompt",
                     p->reward.bytes);
    dg_plan_put(t, "rollout", "prediction, a batch", p->rollout_bytes);
    dg_plan_put_some(t, "decode", "decode, a picture", p->decode_bytes);
    dg_plan_put_some(t, "update", "training step, an item", p->update_bytes);
}

/* Of all ranks; a prompt whose pictures two ranks have is encoded twice, which
 * is not counted, nor are prompts' features. */
static void tell_flops(PlanTable *t, const Use *u, int64_t pictures,
                       int64_t prompts)
{
    const Config *c = &u->config;
    const StepPlan *p = &u->parts.step;
    const uint64_t n = (uint64_t)pictures, encode = p->encode_flops,
                   predict = p->predict_flops / (uint64_t)p->batch;
    const uint64_t all = (uint64_t)prompts * (encode + p->reward.encode_flops) +
                         n * ((uint64_t)c->evaluate.steps * predict +
                              p->decode_flops + p->reward.score_flops);

    dg_plan_put_some(t, "encode", "encode, a prompt", encode);
    dg_plan_put(t, "rollout", "prediction, a picture", predict);
    dg_plan_put_some(t, "decode", "decode, a picture", p->decode_flops);
    dg_plan_put_some(t, "reward", "rewards, a picture", p->reward.score_flops);
    dg_plan_put(t, "all", "all pictures, all ranks", all);
}

/* Pictures of all ranks in a step. */
static void tell_step(PlanTable *t, const Use *u)
{
    const StepPlan *p = &u->parts.step;
    const uint64_t one = p->update_flops / (uint64_t)p->train_batch,
                   teacher = u->teacher != NULL
                                 ? p->predict_flops / (uint64_t)p->batch
                                 : 0;
    const uint64_t batch = (uint64_t)u->config.pretrain.batch;

    dg_plan_put_some(t, "teacher", "teacher's prediction, a picture", teacher);
    dg_plan_put(t, "update", "forward and back, a picture", one);
    dg_plan_put(t, "step", "step, all ranks", batch * (one + teacher));
}

static void tell_encoding(PlanTable *t, const Use *u)
{
    const uint64_t one = u->parts.step.encode_flops;

    dg_plan_put(t, "encode", "encode, a prompt", one);
    dg_plan_put(t, "all", "all prompts, all ranks",
                (uint64_t)u->num_prompts * one);
}

static void tell_arithmetic(PlanTable *t, const Use *u)
{
    const Config *c = &u->config;
    int64_t prompts = u->command == DG_PLAN_SAMPLE ? DG_SAMPLE_PROMPTS
                                                   : c->evaluate.num_prompts;
    const int64_t seeds =
        u->command == DG_PLAN_SAMPLE ? DG_SAMPLE_SEEDS : c->evaluate.seeds;

    if (prompts == 0 || prompts > u->num_prompts)
        prompts = u->num_prompts;
    if (u->command == DG_PLAN_PRETRAIN)
        tell_step(t, u);
    else if (u->command == DG_PLAN_ENCODE)
        tell_encoding(t, u);
    else
        tell_flops(t, u, prompts * seeds, prompts);
}

static void note_absent(RunPlan *out, const Use *u)
{
    const Config *c = &u->config;

    if (c->policy.path[0] != '\0' && !dg_policy_has_folder(c))
        snprintf(out->no_folder, sizeof out->no_folder, "%s", c->policy.path);
    if (dg_policy_lacks_weights(c))
        snprintf(out->no_weights, sizeof out->no_weights, "%s",
                 c->policy.weights);
    if (u->no_prompts != NULL)
        snprintf(out->no_prompts, sizeof out->no_prompts, "%s", u->no_prompts);
}

/* A replay writes no file, and more threads than one want another level, as
 * src/cli/replay.c has it. */
static Config of_replay(const Session *s)
{
    Config c = *s->config;

    c.trajectory.every = 0;
    c.evaluate.every = 0;
    if (s->num_threads > 1 && c.parallel.shard == DG_SHARD_PARAMETERS)
        c.parallel.shard = DG_SHARD_GRADIENTS;
    return c;
}

static int plan_command(RunPlan *out, const Session *s, PlanCommand command,
                        int ranks)
{
    Use u;
    int err;

    if (command == DG_PLAN_TRAIN)
        return dg_run_plan(out, s, ranks);
    if (command == DG_PLAN_REPLAY) {
        const Config c = of_replay(s);
        Session again = *s;

        again.config = &c;
        return dg_run_plan_of(out, &again, ranks, 1);
    }
    err = open_use(&u, s, command, ranks);
    if (!err)
        err = count(&u);
    if (!err) {
        *out = (RunPlan) { .command = command,
                           .ranks = ranks,
                           .threads = u.parts.team.num_threads,
                           .items = u.parts.items,
                           .batch = u.parts.step.batch,
                           .train_batch = u.parts.step.train_batch };
        note_absent(out, &u);
        dg_plan_rewards(out, &u.config, u.rewards, u.num_rewards);
        dg_plan_parameters(&out->parameters, u.policy,
                           command == DG_PLAN_PRETRAIN ? u.policy->num_values
                                                       : 0,
                           dg_rewards_num_values(u.rewards, u.num_rewards));
        tell_memory(&out->memory, &u);
        tell_activations(&out->activations, &u);
        tell_arithmetic(&out->flops, &u);
    }
    close_use(&u);
    return err;
}

int dg_command_plan(RunPlan *out, const Session *s, PlanCommand command,
                    int ranks)
{
    Backend kernels;
    /* what a GPU's kernels take beside their results is not what these take */
    const Session on = s->config->run.device == DG_DEVICE_CUDA
                           ? dg_outline_on_gpu(s, &kernels)
                           : *s;

    return plan_command(out, &on, command, ranks);
}

/* --- on GPUs ----------------------------------------------------------------- */

/* Pretraining at each level, with what offloading there is. */
static int count_levels(GpuPlans *out, Use *u, int ranks)
{
    Config *c = &u->config;
    const int step = ranks > 1 ? 1 : DG_SHARD_GRADIENTS;
    const int levels = DG_SHARD_PARAMETERS / step + 1;

    if (out->num + 3 * levels > DG_PLAN_GPUS)
        return dg_fail(DG_EUSAGE, "--gpus: at most %d lines of GPUs",
                       (int)DG_PLAN_GPUS);
    for (int i = 0; i < 3 * levels; i++) {
        c->parallel.shard = (ShardLevel)(step * (i % levels));
        c->parallel.offload_sums = i / levels == 1;
        c->parallel.offload_optimizer = i / levels == 2;
        if (count(u) == DG_OK) /* what cannot be run has no line */
            dg_room_count(&out->plan[out->num++], &u->parts);
    }
    return DG_OK;
}

static int count_one(GpuPlans *out, Use *u, int ranks)
{
    int err = DG_OK;

    if (out->num == DG_PLAN_GPUS)
        err = dg_fail(DG_EUSAGE, "--gpus: at most %d lines of GPUs",
                      (int)DG_PLAN_GPUS);
    if (!err)
        err = count(u);
    if (err)
        return err;
    dg_room_count(&out->plan[out->num], &u->parts);
    out->plan[out->num++].ranks = ranks;
    return DG_OK;
}

int dg_command_plan_gpus(GpuPlans *out, const Session *s, PlanCommand command,
                         int ranks)
{
    Backend kernels;
    const Session on = dg_outline_on_gpu(s, &kernels);
    Use u;
    int err;

    if (command == DG_PLAN_TRAIN)
        return dg_run_plan_gpus(out, s, ranks);
    if (command == DG_PLAN_REPLAY) {
        const Config c = of_replay(s);
        Session again = *s;

        again.config = &c;
        return dg_run_plan_gpus_of(out, &again, ranks, 1);
    }
    err = open_use(&u, &on, command, ranks);
    out->moments = s->config->optim.moments;
    if (!err && command == DG_PLAN_PRETRAIN)
        err = count_levels(out, &u, ranks);
    else if (!err)
        err = count_one(out, &u, ranks);
    close_use(&u);
    return err;
}
