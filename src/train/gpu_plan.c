/* Where the bytes of a run on GPUs are, by level of sharding. */
#include "train/run_plan.h"

#include "base/error.h"
#include "cuda/attention_cudnn.h"
#include "plan_outline.h"

/* Policy and KL's reference as they are stored (run.dtype), the first without
 * text encoders that nothing needs, the second always; decoder and rewards'
 * networks, which are float32. */
static uint64_t weight_bytes(const Outline *o)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    int64_t stored = p->num_values, single = dg_outline_reward_values(o);

    if (p->codec != NULL)
        single += p->codec->count;
    if (dg_shard_pools(s))
        return dg_pool_weight_bytes(p, o->reference, s, 1, !o->cached,
                                    dg_pool_rooms(o->config, 1)) +
               sizeof(float) * (uint64_t)single;
    if (o->reference != NULL && p->adapters.num_params == 0)
        stored += p->net.count;
    if (o->cached)
        stored -= p->text.count;
    return (uint64_t)dg_dtype_bytes(p->dtype) * (uint64_t)stored +
           sizeof(float) * (uint64_t)single;
}

/* Values of which the host keeps a copy once all is placed: the adapters, or of
 * the network what it moves itself; text encoders that the GPU has not, or has
 * rounded; of a reference what trajectory files want and the GPU has rounded. */
static int64_t host_values(const Outline *o)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    const int pools = dg_shard_pools(s), rounded = p->dtype != DG_F32;
    /* others' ranges are given back */
    const int64_t net = pools ? s->num : p->net.count;
    int64_t num = 0;

    if (p->adapters.num_params > 0)
        return p->adapters.count;
    if (o->state_away)
        num += net;
    if (o->state_away || rounded || pools || o->cached)
        num += p->text.count;
    if (o->reference != NULL && rounded && o->config->trajectory.every > 0)
        num += net;
    return num;
}

/* What the host has besides the state: such copies, trajectories, what waits to
 * be written. */
static uint64_t host_bytes(const Outline *o)
{
    return sizeof(float) * (uint64_t)host_values(o) + o->held_out +
           o->rollout->bytes + o->rollout->aside_bytes + o->update.bytes +
           o->team.scratch_bytes +
           dg_trainer_kept_bytes(o->config, &o->team.shard);
}

/* What the host has at most while a run starts: networks as float32, which
 * decoder and rewards leave first; KL's reference, where its copy is wanted; and the state
 * of the learner, which is made while they are there. */
static uint64_t start_bytes(const Outline *o, uint64_t state)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    const int64_t codec = p->codec != NULL ? p->codec->count : 0;
    const int64_t loaded = p->num_values + codec + dg_outline_reward_values(o);
    int64_t placed = p->num_values;
    uint64_t most;

    if (p->adapters.num_params > 0)
        placed = p->adapters.count;
    else if (dg_shard_pools(s)) /* others' ranges go when it is placed */
        placed = s->num + p->text.count;
    if (o->reference != NULL && p->adapters.num_params == 0 &&
        (o->config->trajectory.every > 0 || o->given))
        placed += o->reference->num_values;
    most = sizeof(float) * (uint64_t)placed + state;
    return sizeof(float) * (uint64_t)loaded > most
               ? sizeof(float) * (uint64_t)loaded
               : most;
}

/* One way to run it: the sizes that team and learner then reserve. Errors: as
 * dg_trainer_join(). */
static int count(GpuPlan *out, Outline *o)
{
    TeamOpts *team = &o->team;
    const int ema_apart = o->config->parallel.offload_ema && !o->state_away;
    const LearnerPlace place = { .ema_apart = ema_apart,
                                 .shard = team->shard,
                                 .sums_apart =
                                     team->offload && !o->state_away };
    uint64_t sums, state;
    LearnerBytes b;
    int together, err;

    team->num_threads = 1; /* a worker drives a GPU */
    err = dg_trainer_join(team, &together, &o->parts, 1, &o->ways);
    if (err)
        return err;
    sums = dg_team_sum_bytes(team);

    dg_learner_bytes(&b, &place, &o->config->optim);
    *out = (GpuPlan) {
        .ranks = team->shard.size,
        .offload = o->state_away,
        .offload_sums = place.sums_apart,
        .level = team->shard.level,
        .weights = weight_bytes(o),
        .gradient =
            sizeof(float) *
            (uint64_t)(team->num_room > 0 ? team->num_room : team->num_grads),
        .activations = team->step_bytes,
        .rest = o->rollout->bytes - o->rollout->host_bytes +
                team->scratch_bytes + o->pictures + o->held_out,
        .host = host_bytes(o) + dg_team_stage_bytes(team) +
                dg_pool_stage_bytes(&team->shard),
    };
    state = b.chunks + b.stage;
    out->sums = team->offload ? dg_team_bucket_bytes(team) : sums;
    out->host += sums - out->sums;
    if (o->state_away) {
        state += b.gradient + b.moments + b.ema + b.norm;
    } else {
        out->gradient += b.gradient + b.norm;
        out->moments = b.moments;
        if (ema_apart)
            state += b.ema;
        else
            out->ema = b.ema;
        if (o->policy->dtype != DG_F32)
            out->masters = sizeof(float) * (uint64_t)team->shard.num;
    }
    out->host += state;
    out->host_start = start_bytes(o, state);
    if (out->host_start < out->host)
        out->host_start = out->host;
    out->gpu = out->weights + out->masters + out->gradient + out->sums +
               out->moments + out->ema + out->activations + out->rest;
    return DG_OK;
}

/* What a stream has taken before a run looks for memory. */
static void add_streams(GpuPlan *out, const Config *config)
{
    const uint64_t bytes =
        config->run.attention == DG_ATTENTION_CUDNN ? DG_CUDNN_ROOM : 0;

    out->rest += bytes;
    out->gpu += bytes;
}

int dg_run_plan_placed(uint64_t *bytes, const Session *s, int given)
{
    GpuPlan plan = { .gpu = 0 };
    Outline o;
    int err = DG_OK;

    *bytes = 0;
    if (s->backend->apart && s->comm->rank == 0) {
        err = dg_outline_open(&o, s, s->comm->size, given);
        if (!err)
            err = count(&plan, &o);
        if (!err)
            *bytes = plan.gpu;
        dg_outline_close(&o);
    }
    return dg_agree(s->comm, err);
}

Session dg_outline_on_gpu(const Session *s, Backend *kernels)
{
    Session on = *s;

    *kernels = *s->backend;
    kernels->apart = 1;
    on.backend = s->gpu_kernels != NULL ? s->gpu_kernels : kernels;
    on.num_threads = 1; /* a worker drives a GPU */
    on.links = 1;
    return on;
}

int dg_run_plan_gpus_of(GpuPlans *out, const Session *s, int ranks, int given)
{
    Backend kernels;
    const Session on = dg_outline_on_gpu(s, &kernels);
    Outline o;
    int err = dg_outline_open(&o, &on, ranks, given);
    /* of one rank none has a part; but sums that are taken block by block */
    const int step = ranks > 1 ? 1 : DG_SHARD_GRADIENTS;
    const int levels = DG_SHARD_PARAMETERS / step + 1, more = 3 * levels;

    if (!err && out->num + more > DG_PLAN_GPUS)
        err = dg_fail(DG_EUSAGE, "--gpus: at most %d lines of GPUs",
                      (int)DG_PLAN_GPUS);
    out->moments = s->config->optim.moments;
    for (int i = 0; i < more && !err; i++) {
        o.team.offload = i >= levels; /* sums alone, then all of it */
        o.state_away = i >= 2 * levels;
        dg_learner_shard(&o.team.shard, (ShardLevel)(step * (i % levels)), 0,
                         ranks, o.team.num_grads);
        /* what cannot be run has no line */
        if (count(&out->plan[out->num], &o) == DG_OK)
            add_streams(&out->plan[out->num++], s->config);
    }
    dg_outline_close(&o);
    return err;
}

int dg_run_plan_gpus(GpuPlans *out, const Session *s, int ranks)
{
    return dg_run_plan_gpus_of(out, s, ranks, 0);
}

static int offloads(const GpuPlan *g)
{
    return g->offload || g->offload_sums;
}

const GpuPlan *dg_gpu_plan_fits(const GpuPlans *p, int ranks, uint64_t bytes,
                                const GpuPlan **least)
{
    const GpuPlan *found = NULL;

    *least = NULL;
    for (int i = 0; i < p->num; i++) {
        const GpuPlan *g = &p->plan[i];

        if (g->ranks != ranks)
            continue;
        if (g->gpu <= bytes &&
            (found == NULL || (offloads(found) && g->host < found->host)))
            found = g;
        if (*least == NULL || g->gpu < (*least)->gpu)
            *least = g;
    }
    return found;
}
