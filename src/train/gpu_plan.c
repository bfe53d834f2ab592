/* Where the bytes of a run on GPUs are, by level of sharding. */
#include "train/run_plan.h"

#include "base/error.h"
#include "plan_outline.h"

/* Of a value of weights where kernels read it: the one place that says it. */
static uint64_t stored_bytes(void)
{
    return sizeof(float);
}

/* Policy, decoder, KL's reference, rewards' networks. */
static int64_t num_weights(const Outline *o)
{
    const Policy *p = o->policy;
    int64_t num = p->num_values + dg_outline_reward_values(o);

    if (p->codec != NULL)
        num += p->codec->count;
    if (o->reference != NULL && p->adapters.num_params == 0)
        num += dg_policy_num_base(p);
    return num;
}

/* What the host has besides the state: weights as they are written (the base
 * below adapters is given back), trajectories, what waits to be written. */
static uint64_t host_bytes(const Outline *o)
{
    const Policy *p = o->policy;
    const int64_t weights =
        p->adapters.num_params > 0 ? p->adapters.count : p->num_values;

    return sizeof(float) * (uint64_t)weights + o->rollout->bytes +
           o->update.bytes + o->team.scratch_bytes +
           dg_trainer_kept_bytes(o->config, &o->team.shard);
}

/* One way to run it: the sizes that team and learner then reserve. */
static void count(GpuPlan *out, const Outline *o)
{
    const TeamOpts *team = &o->team;
    const uint64_t sums = dg_team_sum_bytes(team);
    LearnerBytes b;
    uint64_t state;

    dg_learner_bytes(&b, &team->shard, &o->config->optim);
    state = b.gradient + b.moments + b.ema;
    *out = (GpuPlan) {
        .ranks = team->shard.size,
        .offload = team->offload,
        .level = team->shard.level,
        .weights = stored_bytes() * (uint64_t)num_weights(o),
        .gradient = sizeof(float) * (uint64_t)team->num_grads,
        .activations = team->step_bytes,
        .rest = o->rollout->bytes + team->scratch_bytes,
        /* the state stands there too, for checkpoints */
        .host = host_bytes(o) + state + b.chunks + dg_team_stage_bytes(team),
    };
    if (team->offload) {
        out->host += sums + b.norm;
    } else {
        out->gradient += b.gradient + b.norm;
        out->sums = sums;
        out->moments = b.moments;
        out->ema = b.ema;
    }
    out->gpu = out->weights + out->gradient + out->sums + out->moments +
               out->ema + out->activations + out->rest;
}

int dg_run_plan_gpus(GpuPlans *out, const Session *s, int ranks)
{
    const ShardLevel most = ranks > 1 ? DG_SHARD_GRADIENTS : DG_SHARD_NONE;
    const int more = 2 * ((int)most + 1);
    Outline o;
    int err = dg_outline_open(&o, s, ranks);

    if (!err && out->num + more > DG_PLAN_GPUS)
        err = dg_fail(DG_EINVAL, "plan: at most %d lines of GPUs",
                      (int)DG_PLAN_GPUS);
    o.team.num_threads = 1; /* a worker drives a GPU */
    for (int i = 0; i < more && !err; i++) {
        o.team.offload = i > (int)most;
        dg_learner_shard(&o.team.shard, (ShardLevel)(i % ((int)most + 1)), 0,
                         ranks, o.team.num_grads);
        count(&out->plan[out->num++], &o);
    }
    dg_outline_close(&o);
    return err;
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
            (found == NULL || (found->offload && g->host < found->host)))
            found = g;
        if (*least == NULL || g->gpu < (*least)->gpu)
            *least = g;
    }
    return found;
}
