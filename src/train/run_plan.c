#include "train/run_plan.h"

#include "base/error.h"
#include "plan_lines.h"
#include "plan_outline.h"
#include "store/prompts.h"
#include "train/evaluate.h"
#include "train/sampling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void dg_outline_close(Outline *o)
{
    dg_rewards_close(o->rewards, o->config->num_rewards);
    dg_rollout_destroy(o->rollout);
    dg_policy_destroy(o->reference);
    dg_policy_destroy(o->policy);
}

/* KL's reference: the same network, without adapters. */
static int open_reference(Outline *o)
{
    Config base = *o->config;
    int err;

    if (o->config->grpo.kl_beta <= 0)
        return DG_OK;
    base.lora.rank = 0;
    err = dg_policy_outline(&o->reference, &base);
    if (!err)
        dg_params_rename(&o->reference->net, DG_PARAMS_REFERENCE);
    return err;
}

static int count_prompts(int64_t *num, Outline *o)
{
    const Config *c = o->config;
    PromptList list;
    int err;

    *num = c->grpo.prompts_per_iteration;
    if (c->prompts.file[0] == '\0')
        return DG_OK;
    o->no_prompts = access(c->prompts.file, F_OK) != 0;
    if (o->no_prompts)
        return DG_OK;
    err = dg_prompts_read(&list, c->prompts.file);
    if (err)
        return err;
    *num = list.num > *num ? list.num : *num;
    dg_prompts_free(&list);
    return DG_OK;
}

/* What evaluate.every keeps on the first rank. */
static int count_held_out(Outline *o, int ranks)
{
    const Config *c = o->config;
    const char *path = dg_trainer_heldout_path(c);
    const Comm comm = { .rank = 0, .size = ranks };
    Session s = *o->session;
    PromptList list = { .num = 0 };
    EvaluateJob job;
    int err;

    if (c->evaluate.every == 0 || path[0] == '\0')
        return DG_OK;
    o->no_held_out = access(path, F_OK) != 0;
    if (o->no_held_out)
        return DG_OK;
    err = dg_prompts_read(&list, path);
    if (err)
        return err;
    s.comm = &comm;
    job = dg_trainer_heldout_job(&s, o->policy, &list);
    o->held_out = dg_evaluate_bytes(&job);
    o->num_held_out = job.num_prompts * job.seeds;
    dg_prompts_free(&list);
    return DG_OK;
}

static int rooms_of(const Outline *o)
{
    return dg_pool_rooms(o->config, o->session->backend->apart);
}

/* All ways to step. */
static int count_steps(Outline *o, int ranks)
{
    TrainerParts *parts = &o->parts;
    const int chosen = o->config->parallel.recompute;
    TrainerSteps other;
    TeamOpts unused;
    int err;

    *parts = (TrainerParts) { .session = o->session,
                              .ranks = ranks,
                              .policy = o->policy,
                              .reference = o->reference,
                              .rewards = o->rewards,
                              .cached = o->cached,
                              .recompute = !chosen };
    err = dg_trainer_steps(&other, &unused, parts);
    parts->recompute = chosen;
    if (!err)
        err = dg_trainer_steps(&o->ways, &o->team, parts);
    if (err)
        return err;
    dg_learner_shard(&o->team.shard, o->config->parallel.shard, 0, ranks,
                     o->team.num_grads);
    err = dg_trainer_join(&o->team, &o->together, parts,
                          o->session->backend->apart, &o->ways);
    for (int i = 0; i < 2; i++) {
        const TrainerSteps *of = i == 0 ? &other : &o->ways;

        *(chosen == i ? &o->again : &o->kept) =
            o->together && !of->too_many ? of->joint : of->apart;
    }
    return err;
}

/* Of held-out prompts, if there are so many. */
static uint64_t picture_bytes(const Outline *o, int ranks)
{
    const Config *c = o->config;
    const Comm comm = { .rank = 0, .size = ranks };
    Session s = *o->session;
    const PromptList prompts = { .num = c->report.prompts };
    const EvaluateJob job = { .session = &s,
                              .policy = o->policy,
                              .prompts = &prompts,
                              .num_prompts = prompts.num,
                              .seeds = 1,
                              .batch = dg_sampling_batch(c->grpo.micro_batch,
                                                         prompts.num, ranks) };

    s.comm = &comm;
    s.num_threads = 1; /* a worker drives a GPU */
    return c->prompts.eval_file[0] != '\0' && prompts.num > 0
               ? dg_evaluate_bytes(&job)
               : 0;
}

int dg_outline_open(Outline *o, const Session *s, int ranks, int given)
{
    const Config *c = s->config;
    int64_t prompts;
    int err;

    *o = (Outline) { .session = s, .config = c };
    o->state_away = c->parallel.offload_optimizer;
    o->given = given;
    o->cached = given || c->prompts.cache[0] != '\0';
    o->lends_text = s->backend->apart;
    o->lent_rooms = dg_pool_rooms(c, s->backend->apart);
    err = dg_rewards_init(o->rewards, c);
    if (!err && !given)
        err = dg_rewards_outline(o->rewards, c, c->num_rewards);
    if (!err && c->grpo.micro_batch > DG_SAMPLING_BATCH)
        err = dg_fail(DG_EINVAL, "grpo.micro_batch = %lld: at most %d",
                      (long long)c->grpo.micro_batch, DG_SAMPLING_BATCH);
    if (!err)
        err = dg_policy_outline(&o->policy, c);
    if (!err)
        err = open_reference(o);
    if (!err)
        err = count_prompts(&prompts, o);
    if (!err)
        err = dg_rollout_outline(&o->rollout, c, o->policy,
                                 (RankPlace) { 0, ranks }, prompts);
    if (!err)
        err = dg_rollout_reserve_features(o->rollout, o->rewards);
    if (!err && dg_trainer_sets_aside(c))
        err = dg_rollout_reserve_aside(o->rollout);
    if (!err)
        err = dg_update_outline(&o->update, c, o->rollout);
    if (!err && !given)
        o->pictures = picture_bytes(o, ranks);
    if (!err && !given)
        err = count_held_out(o, ranks);
    if (!err)
        err = dg_update_most_steps(&o->steps, c);
    return err ? err : count_steps(o, ranks);
}

/* --- lines ------------------------------------------------------------- */

static uint64_t floats(int64_t num)
{
    return sizeof(float) * (uint64_t)num;
}

/* what the networks' weights take where kernels are */
static uint64_t stored(const Outline *o, int64_t num)
{
    return (uint64_t)(dg_dtype_bytes(o->policy->dtype) * num);
}

int64_t dg_outline_reward_values(const Outline *o)
{
    return dg_rewards_num_values(o->rewards, o->config->num_rewards);
}

int dg_outline_keeps_text(const Outline *o)
{
    return !o->cached || o->policy->adapters.num_params == 0;
}

static void tell_weights(PlanTable *t, const Outline *o)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    const int64_t base = dg_policy_num_base(p);
    const int pools = dg_shard_pools(s);
    const int64_t gap =
        o->session->backend->apart && !pools ? dg_policy_gap(p) : 0;

    dg_plan_put(t, "network", "weights: network",
                pools ? dg_pool_weight_bytes(p, NULL, s, 1, 0, rooms_of(o)) -
                            stored(o, p->num_values - base)
                      : stored(o, p->net.count));
    dg_plan_put_some(t, "text", "weights: text encoders",
                     dg_outline_keeps_text(o) ? stored(o, p->text.count + gap)
                                              : 0);
    dg_plan_put_some(t, "codec", "weights: decoder",
                     p->codec != NULL ? floats(p->codec->count) : 0);
    dg_plan_put_some(t, "adapters", "weights: adapters",
                     stored(o, p->num_values - base));
    dg_plan_put_some(t, "reference", "weights: KL's reference",
                     o->reference == NULL || p->adapters.num_params > 0 ? 0
                     : pools
                         ? dg_pool_weight_bytes(p, o->reference, s, 1, 0, 1) -
                               dg_pool_weight_bytes(p, NULL, s, 1, 0, 1)
                         : stored(o, base));
    dg_plan_put_some(t, "masters", "weights: float32 masters",
                     p->dtype != DG_F32 ? floats(o->team.shard.num) : 0);
    dg_plan_put_some(t, "rewards", "weights: rewards",
                     floats(dg_outline_reward_values(o)));
}

static void tell_memory(PlanTable *t, const Outline *o)
{
    const int ema_apart = o->config->parallel.offload_ema && !o->state_away;
    const LearnerPlace place = { .ema_apart = ema_apart,
                                 .shard = o->team.shard,
                                 .sums_apart =
                                     o->team.offload && !o->state_away };

    tell_weights(t, o);
    dg_plan_learner(t, &place, &o->config->optim);
    dg_plan_put_some(t, "kept", "state before, for trajectory files",
                     dg_trainer_kept_bytes(o->config, &o->team.shard));
    dg_plan_team(t, &o->team);
    dg_plan_put(t, "trajectories", "trajectories, conditions",
                o->rollout->bytes);
    dg_plan_put_some(t, "aside", "trajectories that wait to be written",
                     o->rollout->aside_bytes);
    dg_plan_put(t, "update", "advantages, results", o->update.bytes);
    dg_plan_put_some(t, "held_out", "held-out prompts of evaluate.every",
                     o->held_out);
    dg_plan_total(t);
}

static void tell_activations(PlanTable *t, const Outline *o)
{
    dg_plan_put_some(t, "encode", "encode, a prompt", o->kept.encode_bytes);
    dg_plan_put_some(t, "reward", "rewards, a picture or prompt",
                     o->kept.reward.bytes);
    dg_plan_put(t, "rollout", "rollout step, a batch", o->kept.rollout_bytes);
    dg_plan_put_some(t, "decode", "decode, a picture", o->kept.decode_bytes);
    dg_plan_put(t, "update", "update step, all kept", o->kept.update_bytes);
    dg_plan_put(t, "update_recomputed", "update step, blocks recomputed",
                o->again.update_bytes);
}

/* Prompts that ranks encode: a group that straddles two is encoded twice. The
 * empty prompt, once in a run, is not counted. */
static uint64_t encoded_prompts(const Outline *o, int ranks)
{
    const Rollout *r = o->rollout;
    uint64_t sum = 0;

    for (int i = 0; i < ranks; i++) {
        int64_t first, num;

        dg_share_range(r->N, i, ranks, &first, &num);
        if (num > 0)
            sum += (uint64_t)((first + num - 1) / r->G - first / r->G + 1);
    }
    return sum;
}

/* Of an iteration, the first one. What samples of a prompt share, each rank that
 * has some of them makes once; 'groups' are those of all ranks. */
static uint64_t predictions(const Outline *o, uint64_t groups)
{
    const Rollout *r = o->rollout;
    const uint64_t shared =
        (uint64_t)dg_rollout_shared(o->config, &o->rollout->window);

    return groups * shared + (uint64_t)r->N * ((uint64_t)r->T - shared);
}

enum { MOST_WINDOWS = 10000 }; /* that a mean is of, at most */

typedef struct FlopsOfOne {
    uint64_t predict, train; /* a sample and step */
} FlopsOfOne;

/* FLOPs of a rollout and an update on average over the run, where the window
 * moves: iterations differ by where it is. Of a long run the first windows. */
static int mean_work(double *out, const Outline *o, uint64_t groups,
                     FlopsOfOne one)
{
    const Config *c = o->config;
    const int64_t items = o->update.num_kept * o->update.epochs;
    const int64_t end = c->run.iterations;
    double sum = 0;
    int64_t it = 0;
    int err = DG_OK, steps;

    for (int k = 0; k < MOST_WINDOWS && it < end && !err; k++) {
        const int64_t next = dg_rollout_next_window(c, it);
        const int64_t until = next < end ? next : end;

        err = dg_rollout_place(o->rollout, c, it);
        if (!err)
            err = dg_update_steps(&steps, c, o->rollout);
        if (!err)
            sum += (double)(until - it) *
                   ((double)predictions(o, groups) * (double)one.predict +
                    (double)(items * steps) * (double)one.train);
        it = until;
    }
    *out = sum / (double)it;
    return err ? err : dg_rollout_place(o->rollout, c, 0);
}

static int tell_flops(PlanTable *t, const Outline *o, int ranks)
{
    const Rollout *r = o->rollout;
    const StepPlan *run = o->config->parallel.recompute ? &o->again : &o->kept;
    const uint64_t predict = run->predict_flops / (uint64_t)run->batch;
    const uint64_t kept = o->kept.update_flops / (uint64_t)run->train_batch;
    const uint64_t again = o->again.update_flops / (uint64_t)run->train_batch;
    const uint64_t seen = encoded_prompts(o, ranks);
    const uint64_t encode = seen * run->encode_flops;
    const uint64_t rollout = predictions(o, seen) * predict;
    const uint64_t train = run == &o->again ? again : kept;
    const uint64_t update = (uint64_t)(o->update.num_kept * o->steps) *
                            (uint64_t)o->update.epochs * train;
    const uint64_t decode = (uint64_t)r->N * run->decode_flops;
    const uint64_t reward = seen * run->reward.encode_flops +
                            (uint64_t)r->N * run->reward.score_flops;
    const uint64_t all = encode + rollout + decode + reward + update;
    /* ranks wait for the fullest one after each update */
    const int64_t longest =
        dg_update_longest(&o->update, o->config, r->P, ranks);
    const int moves =
        dg_rollout_next_window(o->config, 0) < o->config->run.iterations;
    double moving = 0;
    int err = DG_OK;

    if (moves)
        err = mean_work(&moving, o, seen, (FlopsOfOne) { predict, train });
    dg_plan_put_some(t, "encode", "encode, a prompt", run->encode_flops);
    dg_plan_put(t, "rollout", "rollout step, a sample", predict);
    dg_plan_put_some(t, "decode", "decode, a picture", run->decode_flops);
    dg_plan_put(t, "update", "update step, a sample, all kept", kept);
    dg_plan_put(t, "update_recomputed", "update step, blocks recomputed",
                again);
    dg_plan_put_some(t, "iteration_encode", "iteration: encode", encode);
    dg_plan_put(t, "iteration_rollout", "iteration: rollout", rollout);
    dg_plan_put_some(t, "iteration_decode", "iteration: decode", decode);
    dg_plan_put_some(t, "iteration_reward", "iteration: rewards", reward);
    dg_plan_put(t, "iteration_update", "iteration: update", update);
    dg_plan_put(t, "iteration", "iteration, all ranks", all);
    dg_plan_put(
        t, "iteration_rank", "iteration, the fullest rank",
        (uint64_t)((double)(all - update) * (double)r->num / (double)r->N +
                   (double)update * (double)longest /
                       (double)o->update.num_kept));
    if (moves)
        dg_plan_put(t, "iteration_mean", "iteration, all ranks, mean",
                    (uint64_t)(moving + 0.5) + encode + decode + reward);
    dg_plan_put_some(t, "held_out", "an evaluation of held-out prompts",
                     (uint64_t)o->num_held_out *
                         ((uint64_t)o->config->evaluate.steps * predict +
                          run->decode_flops + run->reward.score_flops));
    return err;
}

static void tell_traffic(PlanTable *t, const Outline *o)
{
    const Traffic moved = dg_outline_traffic(o, o->together);

    if (o->team.shard.size == 1)
        return;
    dg_plan_put(t, "sums", "gradients' sums", moved.sums);
    dg_plan_put(t, "weights", "weights from their owners", moved.weights);
}

static void note_absent(RunPlan *out, const Outline *o)
{
    const Config *c = o->config;

    if (c->policy.path[0] != '\0' && !dg_policy_has_folder(c))
        snprintf(out->no_folder, sizeof out->no_folder, "%s", c->policy.path);
    if (dg_policy_lacks_weights(c))
        snprintf(out->no_weights, sizeof out->no_weights, "%s",
                 c->policy.weights);
    if (o->no_prompts)
        snprintf(out->no_prompts, sizeof out->no_prompts, "%s",
                 c->prompts.file);
    if (o->no_held_out)
        snprintf(out->no_held_out, sizeof out->no_held_out, "%s",
                 dg_trainer_heldout_path(c));
}

int dg_run_plan_of(RunPlan *out, const Session *s, int ranks, int given)
{
    Outline o;
    int err = dg_outline_open(&o, s, ranks, given);

    if (!err) {
        *out = (RunPlan) { .command = given ? DG_PLAN_REPLAY : DG_PLAN_TRAIN,
                           .ranks = ranks,
                           .threads = o.team.num_threads,
                           .items = o.rollout->num,
                           .batch = o.kept.batch,
                           .train_batch = o.kept.train_batch };
        note_absent(out, &o);
        dg_update_uneven(out->uneven, sizeof out->uneven, &o.update, s->config,
                         o.rollout->P, ranks);
        if (!given)
            dg_plan_rewards(out, s->config, o.rewards, s->config->num_rewards);
        dg_plan_parameters(&out->parameters, o.policy,
                           dg_params_num_values(dg_policy_trained(o.policy)),
                           dg_outline_reward_values(&o));
        tell_memory(&out->memory, &o);
        tell_activations(&out->activations, &o);
        if (!given)
            tell_traffic(&out->traffic, &o);
        err = tell_flops(&out->flops, &o, ranks);
    }
    dg_outline_close(&o);
    return err;
}

int dg_run_plan(RunPlan *out, const Session *s, int ranks)
{
    return dg_run_plan_of(out, s, ranks, 0);
}

uint64_t dg_run_plan_value(const PlanTable *t, const char *key)
{
    for (int i = 0; i < t->num; i++)
        if (strcmp(t->line[i].key, key) == 0)
            return t->line[i].value;
    dg_panic("plan: no line %s", key);
}
