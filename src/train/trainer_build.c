#include "trainer.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "room.h"
#include "train/cache.h"
#include "train/run_plan.h"
#include "train/sampling.h"
#include "train/setup.h"
#include "train/step_plan.h"

#include <stdlib.h>

/* Timesteps of one sample in one forward pass of an update: micro_batch, or
 * all that are chosen where they are fewer. */
static int most_at_once(StepPlanOpts *o, const TrainerParts *t)
{
    const Config *c = t->session->config;
    int steps;
    const int err = dg_update_most_steps(&steps, c);

    if (err)
        return err;
    o->train_batch = steps < c->grpo.micro_batch ? steps : c->grpo.micro_batch;
    o->together = t->together ? steps : 0;
    return DG_OK;
}

/* A rank may have fewer than micro_batch. */
int64_t dg_trainer_batch(const Config *c, int ranks)
{
    const int64_t most = c->grpo.micro_batch;
    const int64_t items =
        c->grpo.prompts_per_iteration * c->grpo.num_generations;
    const int64_t pictures =
        c->prompts.eval_file[0] != '\0' ? c->report.prompts : 0;

    return dg_sampling_batch(most, items > pictures ? items : pictures, ranks);
}

/* Counts a step and says what team it needs. */
static int count_step(StepPlan *plan, TeamOpts *team, const TrainerParts *t,
                      int *full)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const Guidance guidance = { c->cfg.scale, c->cfg.grad, NULL };
    const size_t rollout =
        dg_rollout_scratch(t->policy, t->rewards, c->num_rewards);
    StepPlanOpts opts = { .batch = dg_trainer_batch(c, t->ranks),
                          .train_net = 1,
                          .recompute = t->recompute,
                          .cached = t->cached,
                          .guidance = &guidance,
                          .reference = t->reference,
                          .rewards = t->rewards,
                          .num_rewards = c->num_rewards,
                          .full = full };
    LearnerPlace place;
    size_t update;
    int err = most_at_once(&opts, t);

    if (!err)
        err = dg_update_scratch(&update, t->policy, c);
    if (!err)
        err = dg_step_plan(plan, t->policy, s->backend, &opts);
    if (err)
        return err;
    dg_learner_place(&place, s, dg_policy_trained(t->policy)->count);
    *team = (TeamOpts) {
        .backend = s->backend,
        .num_threads = s->num_threads,
        .step_bytes = plan->step_bytes,
        .scratch_bytes = update > rollout ? update : rollout,
        .num_grads = dg_policy_trained(t->policy)->count,
        .exact = c->parallel.exact_sum,
        .max_items = c->grpo.prompts_per_iteration * c->grpo.num_generations,
        .shard = place.shard,
        .offload = place.offload || place.sums_apart,
        .links = dg_session_links(s),
        .host_threads = place.host_threads,
        .bucket = dg_team_bucket(c),
    };
    return DG_OK;
}

int dg_trainer_steps(TrainerSteps *steps, TeamOpts *team, TrainerParts *t)
{
    int err;

    *steps = (TrainerSteps) { 0 };
    t->together = 0;
    err = count_step(&steps->apart, team, t, NULL);
    if (err || t->policy->adapters.num_params > 0)
        return err;
    t->together = 1;
    /* a rank that lacks memory for another reason must not choose by itself */
    err = count_step(&steps->joint, team, t, &steps->too_many);
    return steps->too_many ? DG_OK : err;
}

/* With what either takes of a worker. */
static int joins(const TeamOpts *team, const TrainerParts *t, int64_t room,
                 const TrainerSteps *steps)
{
    const PassesChoice choice = t->session->config->parallel.passes;
    const size_t each = steps->apart.step_bytes, all = steps->joint.step_bytes;

    if (t->policy->adapters.num_params > 0)
        return 0;
    if (dg_shard_pools(&team->shard))
        return 1;
    /* workers add in any order, which integers have none of */
    if (!dg_shard_rounds(&team->shard) ||
        (team->num_threads > 1 && !team->exact))
        return 0;
    return choice == DG_PASSES_AUTO
               ? !steps->too_many &&
                     all + sizeof(float) * (size_t)room <
                         each + sizeof(float) * (size_t)team->num_grads
               : choice == DG_PASSES_TOGETHER;
}

int dg_trainer_join(TeamOpts *team, int *together, const TrainerParts *t,
                    int apart, const TrainerSteps *steps)
{
    const int rooms = dg_pool_grad_rooms(t->session->config, &team->shard,
                                         apart, team->offload);
    const int64_t room = dg_pool_room(t->policy, rooms);

    *together = joins(team, t, room, steps);
    team->num_room = *together || dg_shard_pools(&team->shard) ? room : 0;
    team->sends =
        team->num_room > 0 && dg_pool_descends(team, t->policy, rooms);
    team->step_bytes = (*together ? &steps->joint : &steps->apart)->step_bytes;
    return *together && steps->too_many
               ? dg_fail(DG_ENOMEM,
                         "a sample's trained steps are too many to go back "
                         "together (parallel.shard, parallel.passes): less is "
                         "needed with parallel.recompute = true, fewer steps")
               : DG_OK;
}

/* 1 if ranks keep their ranges of the weights. */
static int pools(const Session *s)
{
    return s->config->parallel.shard == DG_SHARD_PARAMETERS &&
           s->comm->size > 1;
}

/* A worker that decodes and scores beside the rollout; of a size 0 in none. */
static TeamOpts beside_opts(const Trainer *t, const StepPlan *plan)
{
    const size_t reward = plan->reward.bytes;

    return (TeamOpts) {
        .backend = t->session->backend,
        .num_threads = 1,
        .step_bytes = reward > plan->decode_bytes ? reward : plan->decode_bytes,
        .scratch_bytes = dg_rollout_scratch(t->policy, t->rewards,
                                            t->session->config->num_rewards),
    };
}

static int open_team(Trainer *t)
{
    const int recompute = t->session->config->parallel.recompute;
    TrainerParts parts = { .session = t->session,
                           .ranks = t->session->comm->size,
                           .policy = t->policy,
                           .reference = t->reference,
                           .rewards = t->rewards,
                           .cached = t->cache != NULL || t->policy->text_left,
                           .recompute = recompute };
    TrainerSteps steps;
    TeamOpts o;
    int err = dg_trainer_steps(&steps, &o, &parts);

    if (!err)
        err = dg_trainer_join(&o, &t->together, &parts,
                              t->session->backend->apart, &steps);
    if (err)
        return err;
    t->plan_bytes = o.step_bytes;
    t->besides = beside_opts(t, &steps.apart);
    err = dg_team_create(&t->team, &o);
    if (err)
        return err;
    for (int i = 0; i < t->team->num; i++) {
        Worker *w = &t->team->workers[i];

        dg_context_train(&w->ctx, dg_policy_trained(t->policy)->id, w->grads,
                         1);
        w->ctx.recompute = recompute;
    }
    return DG_OK;
}

/* Rewards of weight 0 are watched, but then another one teaches. */
static int only_watches(const Config *c)
{
    for (int64_t k = 0; k < c->num_rewards; k++)
        if (c->rewards[k].weight != 0)
            return 0;
    return 1;
}

static void describe(const Trainer *t)
{
    const Session *s = t->session;
    const Rollout *r = t->rollout;
    const GrpoConfig *g = &s->config->grpo;
    const int64_t idle = s->comm->size - r->N;
    char uneven[400];

    dg_info("%lld parameters trained; %lld prompt%s x %lld samples over %d "
            "rank%s x %d thread%s; %.1f MB reserved on rank 0",
            (long long)dg_policy_trained(t->policy)->count, (long long)r->P,
            dg_plural(r->P), (long long)r->G, s->comm->size,
            dg_plural(s->comm->size), s->num_threads, dg_plural(s->num_threads),
            1e-6 * (double)(t->team->bytes + r->bytes + t->update->bytes +
                            dg_trainer_heldout_bytes(t)));
    if (s->comm->size > r->N)
        dg_warn("%d ranks for %lld work item%s: %lld rank%s idle",
                s->comm->size, (long long)r->N, dg_plural(r->N),
                (long long)idle, idle == 1 ? " is" : "s are");
    if (dg_update_uneven(uneven, sizeof uneven, t->update, s->config, r->P,
                         s->comm->size))
        dg_warn("%s", uneven);
    if (only_watches(s->config))
        dg_warn("rewards: all have weight 0: no sample has an advantage");
    if (r->uncond != NULL && dg_update_number(s->config) > 1)
        dg_warn(
            "%s = %lld with cfg.scale = %g: guided "
            "training is stable with one update per iteration",
            g->epochs > 1 ? "grpo.epochs" : "grpo.updates_per_iteration",
            (long long)(g->epochs > 1 ? g->epochs : g->updates_per_iteration),
            s->config->cfg.scale);
}

size_t dg_trainer_kept_bytes(const Config *c, const Shard *shard)
{
    return c->trajectory.every == 0 ? 0
                                    : 3 * sizeof(float) * (size_t)shard->num;
}

int dg_trainer_sets_aside(const Config *c)
{
    return c->trajectory.every > 0 && c->parallel.write_beside;
}

static int reserve_before(Trainer *t)
{
    const size_t bytes =
        dg_trainer_kept_bytes(t->session->config, &t->learner->place.shard);

    if (t->session->config->trajectory.every == 0)
        return DG_OK;
    t->before = calloc(1, bytes + 1);
    return t->before != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "trajectory.every: a copy of %zu bytes",
                         bytes);
}

/* Of networks on a GPU the host needs no copy, but of masters that are moved
 * here, and of what files want and the GPU has rounded. */
static int drop_copies(Trainer *t)
{
    const Config *c = t->session->config;
    const Policy *ref = t->reference;
    int err;

    if (!c->parallel.offload_optimizer)
        dg_policy_drop(t->policy, 1);
    if (ref != NULL && ref->on != NULL &&
        (ref->owns_values || ref->together != NULL)) {
        dg_policy_drop_text(t->reference); /* it has no use for them */
        if (c->trajectory.every == 0 || ref->dtype == DG_F32)
            dg_policy_drop(t->reference, c->trajectory.every > 0);
    }
    err = dg_policy_settle(t->policy, t->session->comm);
    return err || ref == NULL
               ? err
               : dg_policy_settle(t->reference, t->session->comm);
}

/* Nobody but a trajectory file and a replay looks at the host's copy of KL's
 * reference, which is as large as all networks. */
static int lends_copy(const Trainer *t)
{
    return t->session->config->trajectory.every == 0 && !t->reads_copies;
}

int dg_trainer_reserve(Trainer *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const int64_t num = dg_policy_trained(t->policy)->count;
    LearnerPlace place;
    int err = DG_OK;

    dg_learner_place(&place, s, num);
    if (c->grpo.kl_beta > 0)
        err = lends_copy(t)
                  ? dg_policy_reference_placed(&t->reference, t->policy, c)
                  : dg_policy_reference_on_node(&t->reference, t->policy, c,
                                                s->comm);
    if (!err)
        err =
            dg_learner_create(&t->learner, t->policy, num, &c->optim,
                              c->run.iterations * dg_update_number(c), &place);
    /* before the host reserves sums: it has no room for both */
    if (!t->reads_copies) {
        err = dg_agree(s->comm, err);
        if (!err)
            err = drop_copies(t);
    }
    if (!err)
        err = open_team(t);
    /* whoever has failed does not know whether there will be a pool */
    err = dg_agree(s->comm, err);
    if (!err && (pools(s) || t->together)) {
        err = dg_pool_create(&t->pool, s, t->team, t->policy, t->reference);
        if (!err && pools(s) && dg_pool_trains(t->pool))
            t->learner->pool = t->pool;
    }
    if (!err)
        err = dg_rollout_create(&t->rollout, s, t->policy,
                                t->prompts.num > c->grpo.prompts_per_iteration
                                    ? t->prompts.num
                                    : c->grpo.prompts_per_iteration);
    if (!err)
        err = dg_rollout_reserve_features(t->rollout, t->rewards);
    if (!err)
        t->rollout->cache = t->cache;
    if (!err)
        err = dg_update_create(&t->update, s, t->rollout);
    if (!err)
        err = reserve_before(t);
    if (!err && dg_trainer_sets_aside(c))
        err = dg_rollout_reserve_aside(t->rollout);
    return dg_agree(s->comm, err ? err : dg_memory_spare());
}

/* Of encoders whose weights are known now. */
static int match_cache(Trainer *t)
{
    const int err = dg_cache_match(t->cache, t->session, t->policy);

    /* checkpoints of adapters do without the text encoders' weights */
    if (!err && t->cache != NULL && t->policy->adapters.num_params > 0)
        dg_policy_drop_text(t->policy);
    else if (!err && t->cache != NULL)
        dg_policy_leave_text(t->policy);
    return err;
}

static int check_adapters(Trainer *t)
{
    int err = dg_policy_check_adapters(t->policy, &t->team->workers[0].ctx);

    if (t->pool != NULL)
        err = dg_pool_leave(t->pool, err);
    dg_team_take_flops(t->team); /* not the first iteration's */
    return dg_agree(t->session->comm, err);
}

int dg_trainer_place(Policy *p, const Session *s)
{
    return pools(s) ? dg_pool_hold(s, p) : dg_policy_place(p, s->backend);
}

/* --- a device's memory --------------------------------------------------- */

/* The first rank's plan is the fullest. */
int dg_trainer_check_room(const Session *s)
{
    const Config *c = s->config;
    const RoomKey keys[] = {
        { c->grpo.micro_batch > 1, "a smaller grpo.micro_batch" },
        { !c->parallel.recompute, "parallel.recompute = true" },
        { (s->comm->size > 1 || (c->parallel.recompute && c->lora.rank == 0)) &&
              c->parallel.shard < DG_SHARD_GRADIENTS,
          "parallel.shard = gradients" },
        { c->parallel.shard == DG_SHARD_GRADIENTS &&
              c->parallel.passes == DG_PASSES_APART,
          "parallel.passes = auto" },
        { s->comm->size > 1 && c->parallel.shard < DG_SHARD_PARAMETERS,
          "parallel.shard = parameters" },
        { pools(s) && c->parallel.ahead, "parallel.ahead = false" },
        { !c->parallel.offload_sums && !c->parallel.offload_optimizer,
          "parallel.offload_sums = true" },
        { !c->parallel.offload_optimizer, "parallel.offload_optimizer = true" },
        { c->optim.moments == DG_MOMENTS_FLOAT32 &&
              !c->parallel.offload_optimizer,
          "optim.moments = int8" },
        { c->lora.rank == 0, "adapters (lora.rank)" },
        { c->grpo.kl_beta > 0, "grpo.kl_beta = 0" },
        { c->optim.ema_decay > 0 && !c->parallel.offload_ema &&
              !c->parallel.offload_optimizer,
          "parallel.offload_ema = true" },
        { c->optim.ema_decay > 0, "optim.ema_decay = 0" },
        { c->evaluate.every > 0, "a smaller evaluate.num_prompts" },
        { c->parallel.exact_sum, "parallel.exact_sum = false" },
    };
    uint64_t needs;
    const int err = dg_run_plan_placed(&needs, s, 0);

    return err ? err
               : dg_room_check(s, needs, keys, sizeof keys / sizeof *keys);
}

/* Of a device's memory, for what its libraries take by themselves. */
enum { MARGIN = 32 };

int dg_trainer_room_beside(int *room, const Session *s, size_t bytes)
{
    size_t unused, all;
    int64_t enough = 1;
    int err = DG_OK;

    if (s->backend->side_new != NULL) {
        err = dg_agree(s->comm, s->backend->room(&unused, &all));
        if (err)
            return err;
        enough = unused >= (bytes + s->backend->side + s->backend->later) *
                                   (size_t)s->device_ranks +
                               all / MARGIN;
    }
    dg_comm_min_i64(s->comm, &enough, 1);
    *room = (int)enough;
    return DG_OK;
}

/*
 * Scores are made beside the rollout where there is room for it: the plan does
 * without, and all ranks do the same. Errors: DG_EDEVICE, agreed.
 */
static int open_beside(Trainer *t)
{
    const Session *s = t->session;
    const size_t wants = t->besides.step_bytes + t->besides.scratch_bytes;
    int room, err;

    if (!s->config->parallel.overlap || s->backend->side_new == NULL)
        return DG_OK;
    err = dg_trainer_room_beside(&room, s, wants);
    if (err)
        return err;
    if (!room) {
        dg_info("rewards follow the rollout: no room for %.1f MB beside it",
                1e-6 * (double)(wants + s->backend->side));
        return DG_OK;
    }
    return dg_agree(s->comm, dg_beside_create(&t->beside, &t->besides));
}

static int reserve_all(Trainer *t)
{
    const int err = dg_trainer_reserve(t);

    return err ? err : dg_trainer_open_heldout(t);
}

int dg_trainer_build(Trainer *t, const Session *s)
{
    const Config *c = s->config;
    int err;

    t->session = s;
    err = dg_trainer_check_all(t);
    if (!err) /* of sizes alone */
        err = dg_trainer_check_room(s);
    if (!err)
        err = dg_rewards_load(t->rewards, c->num_rewards, s->comm);
    if (!err) /* their copies go before others come */
        err = dg_agree(
            s->comm, dg_rewards_place(t->rewards, c->num_rewards, s->backend));
    if (!err)
        err = dg_setup_policy(s, 0, &t->policy);
    if (!err)
        err = match_cache(t);
    if (!err)
        err = dg_agree(s->comm, dg_trainer_place(t->policy, s));
    if (!err)
        err = reserve_all(t);
    if (!err && t->policy->adapters.num_params > 0)
        err = check_adapters(t);
    if (!err && t->pool != NULL)
        err = dg_pool_beside(t->pool, s);
    if (!err)
        err = open_beside(t);
    if (!err)
        describe(t);
    return err;
}

void dg_trainer_close(Trainer *t)
{
    dg_trainer_close_files(t);
    dg_metrics_close(t->metrics);
    dg_beside_destroy(t->beside);
    dg_evaluate_close(t->eval);
    dg_rewards_close(t->rewards, DG_CONFIG_REWARDS); /* unused: empty */
    dg_update_destroy(t->update);
    dg_rollout_destroy(t->rollout);
    dg_learner_destroy(t->learner);
    dg_pool_destroy(t->pool);
    dg_team_destroy(t->team);
    dg_policy_destroy(t->reference);
    dg_policy_destroy(t->policy);
    dg_conditions_close(t->cache);
    free(t->before);
    dg_prompts_free(&t->prompts);
    dg_prompts_free(&t->heldout);
    dg_prompts_free(&t->evaluated);
    dg_rundir_close(&t->dir); /* last: files are written no more */
}
