#include "pretrain_setup.h"

#include "base/error.h"
#include "base/log.h"
#include "room.h"
#include "train/rollout.h"
#include "train/setup.h"
#include "train/step_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t dg_pretrain_scratch(PretrainScratch *x, const Policy *p, int64_t size,
                           void *memory, void *room)
{
    const PolicyShape *s = &p->shape;
    const size_t latents = sizeof(float) * (size_t)(size * s->elements);
    Arena a, at;

    dg_arena_init_count(&a, "scratch");
    a.base = memory;
    dg_arena_init_count(&at, "scratch");
    at.base = room;
    x->on = p->on;
    x->z = dg_arena_take(&at, latents);
    x->target = dg_arena_take(&at, latents);
    x->clean = dg_arena_take(&a, latents);
    dg_arena_take(&a, latents); /* the target where both are one */
    x->rgb =
        dg_arena_take(&a, sizeof(float) * 3 * (size_t)(s->height * s->width));
    x->time = dg_arena_take(&a, sizeof(float) * (size_t)size);
    x->weight = dg_arena_take(&a, sizeof(float) * (size_t)size);
    x->rows = dg_arena_take(&a, sizeof *x->rows * (size_t)size);
    x->t5_ids =
        dg_arena_take(&a, sizeof(int32_t) * (size_t)(size * s->text_tokens));
    x->clip_ids =
        dg_arena_take(&a, sizeof(int32_t) * (size_t)(size * s->clip_tokens));
    x->t5_none =
        dg_arena_take(&a, sizeof(int32_t) * (size_t)(size * s->text_tokens));
    x->clip_none =
        dg_arena_take(&a, sizeof(int32_t) * (size_t)(size * s->clip_tokens));
    return a.used;
}

/* 1 if ranks keep their ranges of the weights. */
static int pools(const Session *s)
{
    return s->config->parallel.shard == DG_SHARD_PARAMETERS &&
           s->comm->size > 1;
}

static int check(const Session *s)
{
    const Config *c = s->config;
    int err;

    if (c->pretrain.batch % c->pretrain.item_size != 0)
        return dg_fail(DG_EINVAL,
                       "pretrain.batch = %lld: must be a multiple of "
                       "pretrain.item_size = %lld",
                       (long long)c->pretrain.batch,
                       (long long)c->pretrain.item_size);
    if (c->lora.rank > 0)
        return dg_fail(DG_EINVAL,
                       "lora.rank = %lld: pretraining trains all parameters, "
                       "must be 0",
                       (long long)c->lora.rank);
    err = dg_setup_check_threads(s);
    if (err)
        return err;
    if (c->pretrain.item_size > DG_SAMPLING_BATCH)
        return dg_fail(DG_EINVAL, "pretrain.item_size = %lld: at most %d",
                       (long long)c->pretrain.item_size, DG_SAMPLING_BATCH);
    if (c->pretrain.distill_cfg != 1 && c->policy.weights[0] == '\0')
        return dg_fail(
            DG_EINVAL,
            "pretrain.distill_cfg = %g: policy.weights must name the "
            "base whose guided predictions are learned",
            c->pretrain.distill_cfg);
    return DG_OK;
}

/* Held-out prompts are evaluated on and never shown. */
static int open_prompts(Pretrain *t)
{
    const Config *c = t->session->config;
    const char *path =
        c->evaluate.file[0] != '\0' ? c->evaluate.file : c->prompts.eval_file;
    int err;

    t->stream = (WorldStream) {
        .seed = (uint64_t)c->pretrain.world_seed,
    };
    if (path[0] == '\0')
        return DG_OK;
    err = dg_setup_prompts(t->session, path, &t->heldout);
    if (!err)
        err = dg_agree(t->session->comm,
                       dg_prompts_meanings(
                           &t->excluded, &t->stream.num_excluded, &t->heldout));
    t->stream.excluded = t->excluded;
    return err;
}

static int rooms_of(const Session *s)
{
    return dg_pool_rooms(s->config, s->backend->apart);
}

/* What of an item's gradient there is room for; 0: all of it. An item is one
 * pass: that it leaves block by block costs nothing. */
static int64_t room_of(const Pretrain *t, const TeamOpts *team, int rooms)
{
    const Session *s = t->session;
    const PassesChoice choice = s->config->parallel.passes;
    const int64_t room = dg_pool_room(t->policy, rooms);

    if (pools(s))
        return room;
    if (!dg_shard_rounds(&team->shard) ||
        (team->num_threads > 1 && !team->exact) || choice == DG_PASSES_APART)
        return 0;
    return choice == DG_PASSES_TOGETHER || room < team->num_grads ? room : 0;
}

/* Sizes of a worker, and what a step takes. */
static int plan_team(RoomParts *out, const Pretrain *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const Guidance guidance = { c->cfg.scale, c->cfg.grad, NULL };
    const StepPlanOpts plan_opts = { .batch = c->pretrain.item_size,
                                     .train_batch = c->pretrain.item_size,
                                     .train_net = 1,
                                     .train_text = 1,
                                     .recompute = c->parallel.recompute,
                                     .guidance = &guidance,
                                     .reference = t->teacher,
                                     .rewards = t->rewards,
                                     .num_rewards = c->num_rewards > 0 };
    PretrainScratch x;
    LearnerPlace place;
    TeamOpts *team = &out->team;
    const size_t item =
        dg_pretrain_scratch(&x, t->policy, c->pretrain.item_size, NULL, NULL);
    const size_t eval =
        dg_rollout_scratch(t->policy, t->rewards, c->num_rewards);
    int err, rooms;

    *out = (RoomParts) { .items = t->num };
    err = dg_step_plan(&out->step, t->policy, s->backend, &plan_opts);
    if (err)
        return err;
    dg_learner_place(&place, s, t->policy->num_values);
    *team = (TeamOpts) {
        .backend = s->backend,
        .num_threads = s->num_threads,
        .step_bytes = out->step.step_bytes,
        .scratch_bytes = item > eval ? item : eval,
        .num_grads = t->policy->num_values,
        .exact = c->parallel.exact_sum,
        .max_items = t->items,
        .shard = place.shard,
        .offload = place.offload || place.sums_apart,
        .links = dg_session_links(s),
        .host_threads = place.host_threads,
        .bucket = dg_team_bucket(c),
    };
    rooms = dg_pool_grad_rooms(s->config, &team->shard, s->backend->apart,
                               team->offload);
    team->num_room = room_of(t, team, rooms);
    team->sends =
        team->num_room > 0 && dg_pool_descends(team, t->policy, rooms);
    out->place = place;
    return DG_OK;
}

/* What networks take, the teacher's and the rewards' too. */
static void count_networks(RoomParts *out, const Pretrain *t, int scored)
{
    const Shard *shard = &out->place.shard;
    const int rooms = rooms_of(t->session);

    dg_room_networks(out, t->policy, t->rewards, scored);
    if (t->teacher != NULL) {
        out->teacher = dg_policy_placed_bytes(t->teacher);
        out->loaded += sizeof(float) * (uint64_t)t->teacher->num_values;
        out->together += sizeof(float) * (uint64_t)t->teacher->num_values;
    }
    if (!pools(t->session))
        return;
    out->network = dg_pool_weight_bytes(t->policy, NULL, shard, 1, 1, rooms);
    out->text = 0; /* one range with the network */
    if (t->teacher != NULL)
        out->teacher = dg_pool_weight_bytes(t->teacher, NULL, shard, 1, 1, 0);
}

/* The networks, a step, the state, and the evaluation. */
static int count_parts(RoomParts *out, const Pretrain *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const int scored = c->num_rewards > 0 && t->heldout.num > 0;
    const EvaluateJob job = dg_pretrain_job(t);
    const int err = plan_team(out, t);

    if (err)
        return err;
    out->optim = c->optim;
    count_networks(out, t, scored);
    if (scored)
        out->pictures = dg_evaluate_bytes(&job);
    if (t->policy->dtype != DG_F32)
        out->masters = sizeof(float) * (uint64_t)out->place.shard.num;
    if (c->parallel.offload_optimizer)
        out->host_values =
            pools(s) ? out->place.shard.num : t->policy->num_values;
    return DG_OK;
}

/* Before anything is placed. */
static int check_room(const Pretrain *t, const RoomParts *parts)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const RoomKey keys[] = {
        { c->pretrain.item_size > 1, "a smaller pretrain.item_size" },
        { !c->parallel.recompute, "parallel.recompute = true" },
        { c->parallel.shard < DG_SHARD_GRADIENTS,
          "parallel.shard = gradients" },
        { s->comm->size > 1 && c->parallel.shard < DG_SHARD_PARAMETERS,
          "parallel.shard = parameters" },
        { pools(s) && c->parallel.ahead, "parallel.ahead = false" },
        { !c->parallel.offload_sums && !c->parallel.offload_optimizer,
          "parallel.offload_sums = true" },
        { !c->parallel.offload_optimizer, "parallel.offload_optimizer = true" },
        { c->optim.moments == DG_MOMENTS_FLOAT32 &&
              !c->parallel.offload_optimizer,
          "optim.moments = int8" },
        { c->optim.ema_decay > 0 && !c->parallel.offload_ema &&
              !c->parallel.offload_optimizer,
          "parallel.offload_ema = true" },
        { c->optim.ema_decay > 0, "optim.ema_decay = 0" },
        { c->parallel.exact_sum, "parallel.exact_sum = false" },
    };
    GpuPlan plan;

    dg_room_count(&plan, parts);
    return dg_room_check(s, plan.gpu, keys, sizeof keys / sizeof *keys);
}

static int open_team(Pretrain *t, const StepPlan *plan, const TeamOpts *o)
{
    const int err = dg_team_create(&t->team, o);

    if (err)
        return err;
    for (int i = 0; i < t->team->num; i++) {
        Worker *w = &t->team->workers[i];

        dg_context_train(&w->ctx, DG_PARAMS_NET, w->grads, 1);
        dg_context_train(&w->ctx, DG_PARAMS_TEXT,
                         w->grads + t->policy->net.count, 1);
        w->ctx.recompute = t->session->config->parallel.recompute;
    }
    dg_info("%lld parameters, %.1f MB per worker, %.2f GFLOP per picture",
            (long long)t->policy->num_values, (double)plan->step_bytes * 1e-6,
            (double)plan->update_flops * 1e-9 /
                (double)t->session->config->pretrain.item_size);
    return DG_OK;
}

static int place(Policy *p, const Session *s)
{
    return pools(s) ? dg_pool_hold(s, p) : dg_policy_place(p, s->backend);
}

/* The optimizer's side, and who lends weights, or room for gradients. */
static int open_learner(Pretrain *t, int lends)
{
    const Session *s = t->session;
    const Config *c = s->config;
    LearnerPlace at;
    int err;

    dg_learner_place(&at, s, t->policy->num_values);
    err = dg_agree(s->comm, dg_learner_create(&t->learner, t->policy,
                                              t->policy->num_values, &c->optim,
                                              c->pretrain.steps, &at));
    if (!err && lends)
        err = dg_pool_create(&t->pool, s, t->team, t->policy, t->teacher);
    if (!err && pools(s))
        t->learner->pool = t->pool;
    return err;
}

/* Of networks on a GPU the host needs no copy, but of masters that are moved
 * here. */
static int drop_copies(Pretrain *t)
{
    const Comm *comm = t->session->comm;
    int err;

    if (!t->session->config->parallel.offload_optimizer)
        dg_policy_drop(t->policy, 1);
    err = dg_policy_settle(t->policy, comm);
    if (err || t->teacher == NULL)
        return err;
    dg_policy_drop(t->teacher, 0);
    return dg_policy_settle(t->teacher, comm);
}

/* Whether the policy can be shown the world's pictures. */
static int check_pictures(const Session *s, const Policy *p)
{
    const PolicyShape *shape = &p->shape;

    if (!dg_policy_codes(p))
        return dg_fail(DG_EINVAL,
                       "policy.path = \"%.200s\": must be empty for "
                       "pretraining, which has no encoder for pictures: "
                       "policy.kind = sd with sizes of its own, or flux",
                       s->config->policy.path);
    if (shape->height != shape->width)
        return dg_fail(DG_EINVAL,
                       "policy.height, policy.width: pictures %lld pixels high "
                       "and %lld wide: must be square for pretraining",
                       (long long)shape->height, (long long)shape->width);
    if (shape->width < DG_WORLD_MIN_SIDE || shape->width > DG_WORLD_MAX_SIDE)
        return dg_fail(DG_EINVAL,
                       "pretrain.image_size, policy.height, policy.width: "
                       "pictures of %lld pixels a side: must be %d to %d, as "
                       "the shapes world paints them",
                       (long long)shape->width, DG_WORLD_MIN_SIDE,
                       DG_WORLD_MAX_SIDE);
    return DG_OK;
}

/* The same before any weights are read, which may be a folder's gigabytes. */
static int check_outline(const Session *s)
{
    Policy *p = NULL;
    int err = dg_policy_outline(&p, s->config);

    if (!err)
        err = check_pictures(s, p);
    dg_policy_destroy(p);
    return dg_agree(s->comm, err);
}

/* Whose items are this rank's. */
static void share_items(Pretrain *t)
{
    const Comm *comm = t->session->comm;

    t->items = t->batch / t->session->config->pretrain.item_size;
    dg_share_range(t->items, comm->rank, comm->size, &t->first, &t->num);
}

int dg_pretrain_parts(RoomParts *out, const Session *s, Policy *p,
                      Policy *teacher, const Reward *rewards,
                      int64_t num_prompts)
{
    Pretrain t = { .session = s,
                   .policy = p,
                   .teacher = teacher,
                   .heldout = { .num = (int32_t)num_prompts },
                   .batch = s->config->pretrain.batch };
    int err = check(s);

    memcpy(t.rewards, rewards, sizeof t.rewards);
    dg_policy_train_text(p);
    if (!err)
        err = check_pictures(s, p);
    if (err)
        return err;
    share_items(&t);
    return count_parts(out, &t);
}

static int count_outlines(RoomParts *out, const Pretrain *t)
{
    const Session *s = t->session;
    Policy *policy = NULL, *teacher = NULL;
    int err = dg_policy_outline(&policy, s->config);

    if (!err && t->teacher != NULL)
        err = dg_policy_outline(&teacher, s->config);
    if (!err)
        err = dg_pretrain_parts(out, s, policy, teacher, t->rewards,
                                t->heldout.num);
    dg_policy_destroy(teacher);
    dg_policy_destroy(policy);
    return err;
}

/* Team and learner, once policy and rewards are there and nothing is placed
 * yet. */
static int reserve(Pretrain *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    RoomParts parts;
    int err = dg_agree(s->comm, count_outlines(&parts, t));

    if (!err)
        err = check_room(t, &parts);
    if (err)
        return err;
    err = place(t->policy, s);
    if (!err && t->teacher != NULL)
        err = place(t->teacher, s);
    if (!err)
        err = dg_rewards_place(t->rewards, c->num_rewards > 0, s->backend);
    if (!err)
        err = open_team(t, &parts.step, &parts.team);
    err = dg_agree(s->comm, err);
    if (!err)
        err = open_learner(t, parts.team.num_room > 0);
    err = dg_agree(s->comm, err);
    return err ? err : drop_copies(t);
}

/* What is refused without weights: words of prompts that will be painted, and of
 * the first reward and the policy the files. */
static int check_files(Pretrain *t)
{
    const Session *s = t->session;
    const Config *c = s->config;
    const int scored = t->heldout.num > 0 && c->num_rewards > 0;
    PromptList painted = t->heldout;
    Policy *sizes = NULL;
    int err = dg_setup_sizes(s, &sizes);

    if (c->evaluate.num_prompts > 0 && c->evaluate.num_prompts < painted.num)
        painted.num = (int32_t)c->evaluate.num_prompts;
    if (!err && scored)
        err = dg_setup_check_words(s, sizes, &painted,
                                   c->evaluate.file[0] != '\0'
                                       ? c->evaluate.file
                                       : c->prompts.eval_file);
    dg_rewards_seat(t->rewards, c->num_rewards, dg_session_gpu(s));
    if (!err && t->heldout.num > 0) /* evaluated by the first */
        err = dg_rewards_prepare(t->rewards, c, c->num_rewards > 0, s->comm);
    if (!err)
        err = dg_setup_find_weights(s, sizes);
    dg_policy_destroy(sizes);
    return err;
}

int dg_pretrain_build(Pretrain *t, const Session *s)
{
    const Config *c = s->config;
    int err;

    memset(t, 0, sizeof *t);
    t->session = s;
    t->batch = c->pretrain.batch;
    dg_schedule_alpha_bar_table(t->alpha_bar);
    err = check(s);
    if (!err)
        err = check_outline(s);
    if (err)
        return err;
    share_items(t);
    t->loss = calloc((size_t)t->items, sizeof *t->loss);
    err = t->loss == NULL ? dg_fail(DG_ENOMEM, "losses") : DG_OK;
    err = dg_agree(s->comm, err);
    if (!err)
        err = dg_rewards_init(t->rewards, c);
    if (!err)
        err = open_prompts(t);
    if (!err)
        err = check_files(t);
    if (!err && t->heldout.num > 0)
        err = dg_rewards_load(t->rewards, c->num_rewards > 0, s->comm);
    if (!err)
        err = dg_setup_trained_whole(s, &t->policy);
    if (!err)
        t->stream.side = (int32_t)t->policy->shape.width;
    if (!err && c->pretrain.distill_cfg != 1)
        err = dg_setup_copy(s, t->policy, &t->teacher);
    if (!err && t->teacher != NULL)
        dg_policy_as_teacher(t->teacher);
    err = dg_agree(s->comm, err ? err : reserve(t));
    return err || t->pool == NULL ? err : dg_pool_beside(t->pool, s);
}

/* The student begins as its teacher. */
static int note_teacher(Pretrain *t)
{
    uint64_t digest;
    int err;

    if (t->teacher == NULL || !dg_setup_has_weights(t->session->config))
        return DG_OK;
    err = dg_learner_value_digest(t->learner, t->session->comm, &digest);
    if (err)
        return err;
    snprintf(t->taught_digest, sizeof t->taught_digest, "%016llx",
             (unsigned long long)digest);
    t->taught = (CheckpointNote) { .key = "frozen_teacher",
                                   .value = t->taught_digest,
                                   .of = "weights of the teacher" };
    t->learner->notes = &t->taught;
    t->learner->num_notes = 1;
    return DG_OK;
}

int dg_pretrain_open(Pretrain *t, const Session *s)
{
    const Config *c = s->config;
    RunDir dir = { .lock = 0 };
    int found = 0;
    int err = check(s);

    memset(t, 0, sizeof *t);
    if (!err)
        err = dg_setup_rundir(s, &dir, "pretrain");
    if (!err)
        err = dg_pretrain_build(t, s);
    t->dir = dir;
    if (err)
        return err;
    if (c->parallel.write_beside && c->checkpoint.every > 0)
        err = dg_files_open(&t->files, s, "steps");
    if (!err)
        err = note_teacher(t);
    if (!err)
        err = dg_learner_resume(t->learner, s, t->dir.checkpoints, &t->step,
                                &found);
    if (!err && found)
        dg_setup_tell_resumed("step", "pretrain.steps", t->step,
                              c->pretrain.steps);
    if (!err && s->comm->rank == 0)
        err = dg_metrics_open(&t->metrics, t->dir.metrics, t->step);
    err = dg_agree(s->comm, err);
    return err || t->heldout.num == 0
               ? err
               : dg_rewards_start(t->rewards, c, c->num_rewards > 0, s->comm,
                                  dg_stop_asked);
}

void dg_pretrain_close(Pretrain *t)
{
    dg_files_close(t->files);
    dg_metrics_close(t->metrics);
    dg_rewards_close(t->rewards, 1);
    dg_learner_destroy(t->learner);
    dg_pool_destroy(t->pool);
    dg_team_destroy(t->team);
    dg_policy_destroy(t->teacher);
    dg_policy_destroy(t->policy);
    dg_prompts_free(&t->heldout);
    free(t->excluded);
    free(t->loss);
    dg_rundir_close(&t->dir); /* last: files are written no more */
}
