/* Where the bytes of a run on GPUs are, by level of sharding. */
#include "train/run_plan.h"

#include "base/error.h"
#include "cuda/cudnn_room.h"
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
    stored += o->cached ? -p->text.count : dg_policy_gap(p);
    return (uint64_t)dg_dtype_bytes(p->dtype) * (uint64_t)stored +
           sizeof(float) * (uint64_t)single;
}

/* Values of which the host keeps a copy once all is placed: the adapters, or of
 * the network what it moves itself; text encoders that the GPU has not, or has
 * rounded; of a reference what trajectory files want and the GPU has rounded.
 * *together  those that all ranks of a node have together */
static int64_t host_values(const Outline *o, int64_t *together)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    const int pools = dg_shard_pools(s), rounded = p->dtype != DG_F32;
    /* others' ranges are given back */
    const int64_t net = pools ? s->num : p->net.count;
    int64_t num = 0, text = 0, copy = 0;

    *together = 0;
    if (p->adapters.num_params > 0)
        return p->adapters.count;
    if (o->state_away)
        num += net;
    if (o->state_away || rounded || pools || o->cached)
        text = p->text.count;
    if (o->reference != NULL && rounded && o->config->trajectory.every > 0)
        copy = net;
    *together = text + (pools ? 0 : copy);
    return num + text + copy;
}

/* What the host has besides the state: such copies, trajectories, what waits to
 * be written. */
static uint64_t host_bytes(const Outline *o, uint64_t *together)
{
    int64_t once;
    const int64_t values = host_values(o, &once);

    *together = sizeof(float) * (uint64_t)once;
    return sizeof(float) * (uint64_t)values + o->held_out + o->rollout->bytes +
           o->rollout->aside_bytes + o->update.bytes + o->team.scratch_bytes +
           dg_trainer_kept_bytes(o->config, &o->team.shard);
}

/* Values of a copy of KL's reference, where it is wanted. */
static int64_t reference_values(const Outline *o)
{
    const int wanted = o->config->trajectory.every > 0 || o->given;

    return o->reference != NULL && wanted && o->policy->adapters.num_params == 0
               ? o->reference->num_values
               : 0;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/*
 * What the host has at most while a run starts: rewards' networks as float32, which
 * leave first; the policy's, of which the decoder leaves first; then KL's reference,
 * where its copy is wanted, and the state of the learner, which is made while the
 * policy is there.
 */
static void count_start(GpuPlan *out, const Outline *o, uint64_t state)
{
    const Policy *p = o->policy;
    const Shard *s = &o->team.shard;
    const int pools = dg_shard_pools(s);
    const int64_t codec = p->codec != NULL ? p->codec->count : 0;
    const int64_t copy = reference_values(o);
    int64_t placed = p->num_values, own = 0;

    if (p->adapters.num_params > 0)
        placed = own = p->adapters.count;
    else if (pools) /* others' ranges go when it is placed */
        placed = s->num + p->text.count;
    if (p->adapters.num_params == 0 && o->state_away)
        own = pools ? s->num : p->net.count;
    out->before_start = sizeof(float) * (uint64_t)dg_outline_reward_values(o);
    out->host_start = most(out->before_start,
                           sizeof(float) * (uint64_t)(p->num_values + codec));
    out->host_start = most(out->host_start,
                           sizeof(float) * (uint64_t)(placed + copy) + state);
    out->host_start = most(out->host_start, out->host);
    out->together_start = sizeof(float) * (uint64_t)(p->num_values + copy);
    out->beside_start = most(sizeof(float) * (uint64_t)codec,
                             sizeof(float) * (uint64_t)own + state);
}

uint64_t dg_gpu_plan_node(const GpuPlan *g, int ranks)
{
    return (uint64_t)ranks * (g->host - g->together) + g->together;
}

uint64_t dg_gpu_plan_node_start(const GpuPlan *g, int ranks)
{
    const uint64_t n = (uint64_t)ranks;

    return ranks == 1
               ? g->host_start
               : most(most(dg_gpu_plan_node(g, ranks), n * g->before_start),
                      g->together_start + n * g->beside_start);
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
    uint64_t sums, state, once;
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
        .host = host_bytes(o, &once) + dg_team_stage_bytes(team) +
                dg_pool_stage_bytes(&team->shard),
    };
    out->moves = !o->given;
    if (out->moves)
        out->traffic = dg_outline_traffic(o, together);
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
    out->together = once;
    count_start(out, o, state);
    out->gpu = out->weights + out->masters + out->gradient + out->sums +
               out->moments + out->ema + out->activations + out->rest;
    return DG_OK;
}

/* What a stream has taken before a run looks for memory. */
static void add_streams(GpuPlan *out, const Config *config)
{
    const int theirs = config->run.attention == DG_ATTENTION_CUDNN ||
                       config->run.convolution == DG_CONV_CUDNN;
    const uint64_t bytes = theirs ? DG_CUDNN_ROOM : 0;

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
