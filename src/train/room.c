#include "room.h"

#include "base/error.h"
#include "train/pool.h"

#include <stdio.h>

/* The keys that help, one after the other. */
static void append(char *text, size_t size, const RoomKey *keys, int num)
{
    size_t used = 0;

    while (text[used] != '\0')
        used++;
    for (int i = 0; i < num && used < size; i++)
        if (keys[i].helps)
            used += (size_t)snprintf(text + used, size - used, "%s%s",
                                     used > 0 ? ", " : "", keys[i].what);
}

/* Of one rank, for as many as there are on its GPU. */
static int compare(const Backend *be, uint64_t needs, int ranks,
                   const char *advice)
{
    const double MB = 1e-6;
    const uint64_t all_need = needs * (uint64_t)ranks,
                   later = be->later * (uint64_t)ranks;
    size_t unused, all;
    const int err = be->room(&unused, &all);

    if (err || all_need + later <= unused)
        return err;
    return dg_fail(
        DG_ENOMEM,
        "the plan takes %.1f MB of this GPU (ranks on it: %d), its "
        "driver up to %.0f MB, and %.1f MB of %.1f MB are free; less "
        "is needed with %s",
        MB * (double)all_need, ranks, MB * (double)later, MB * (double)unused,
        MB * (double)all, advice);
}

/* Of all ranks, what the fullest needs. */
static int compare_all(const Session *s, uint64_t needs, const char *advice)
{
    int64_t most = (int64_t)needs;

    dg_comm_max_i64(s->comm, &most, 1);
    return dg_agree(
        s->comm, compare(s->backend, (uint64_t)most, s->device_ranks, advice));
}

int dg_room_check(const Session *s, uint64_t needs, const RoomKey *keys,
                  int num)
{
    const RoomKey always[] = {
        { s->config->run.dtype == DG_STORE_FLOAT32, "run.dtype = bfloat16" },
        { s->device_ranks > 1, "fewer ranks on a GPU" },
        { 1, "smaller pictures or networks" },
    };
    char advice[512] = "";

    if (!s->backend->apart)
        return DG_OK;
    append(advice, sizeof advice, keys, num);
    append(advice, sizeof advice, always, 3);
    return compare_all(s, needs, advice);
}

int dg_room_given(const Session *s, uint64_t needs, const RoomKey *keys,
                  int num)
{
    char advice[512] = "";

    if (!s->backend->apart)
        return DG_OK;
    append(advice, sizeof advice, keys, num);
    return compare_all(s, needs, advice);
}

int dg_room_alone(const Backend *on, uint64_t needs, const RoomKey *keys,
                  int num)
{
    char advice[512] = "";

    if (!on->apart)
        return DG_OK;
    append(advice, sizeof advice, keys, num);
    return compare(on, needs, 1, advice);
}

void dg_room_networks(RoomParts *out, const Policy *p, const Reward *rewards,
                      int64_t num)
{
    const uint64_t each = (uint64_t)dg_dtype_bytes(p->dtype);

    out->codec =
        p->codec != NULL ? sizeof(float) * (uint64_t)p->codec->count : 0;
    out->network = each * (uint64_t)(p->num_values - p->text.count);
    out->text = dg_policy_placed_bytes(p) - out->codec - out->network;
    out->rewards =
        sizeof(float) * (uint64_t)dg_rewards_num_values(rewards, num);
    out->together = sizeof(float) * (uint64_t)p->num_values;
    out->loaded = out->together + out->codec + out->rewards;
}

static void count_learner(GpuPlan *out, const RoomParts *r)
{
    LearnerBytes b;

    out->ranks = r->place.shard.size;
    out->level = r->place.shard.level;
    out->offload = r->place.offload;
    out->offload_sums = r->place.sums_apart;
    dg_learner_bytes(&b, &r->place, &r->optim);
    out->host += b.chunks + b.stage + dg_team_stage_bytes(&r->team) +
                 dg_pool_stage_bytes(&r->place.shard);
    if (r->place.offload) {
        out->host += b.gradient + b.moments + b.ema + b.norm;
    } else {
        out->gradient += b.gradient + b.norm;
        out->moments = b.moments;
        if (r->place.ema_apart)
            out->host += b.ema;
        else
            out->ema = b.ema;
        out->masters = r->masters;
    }
}

/* Where it trains, copies of networks go once all else is reserved, others'
 * ranges of them before. */
static void count_start(GpuPlan *out, const RoomParts *r)
{
    out->host_start = r->loaded > out->host ? r->loaded : out->host;
    if (r->place.shard.size > 0 && !dg_shard_pools(&r->place.shard))
        out->host_start =
            r->loaded + out->host - sizeof(float) * (uint64_t)r->host_values;
    out->together_start = r->together;
    out->beside_start = out->host_start - r->together;
    if (out->beside_start < out->host)
        out->beside_start = out->host;
}

void dg_room_count(GpuPlan *out, const RoomParts *r)
{
    const TeamOpts *team = &r->team;
    const uint64_t n = (uint64_t)team->num_threads;
    const uint64_t sums = dg_team_sum_bytes(team);
    const uint64_t here = team->offload ? dg_team_bucket_bytes(team) : sums;

    *out = (GpuPlan) {
        .weights = r->network + r->text + r->codec + r->teacher + r->rewards,
        .gradient =
            n * sizeof(float) *
            (uint64_t)(team->num_room > 0 ? team->num_room : team->num_grads),
        .sums = here,
        .activations = n * team->step_bytes,
        .rest = n * team->scratch_bytes + r->pictures,
        .host = r->host + n * team->scratch_bytes +
                sizeof(float) * (uint64_t)r->host_values + sums - here,
    };
    if (r->place.shard.size > 0)
        count_learner(out, r);
    out->gpu = out->weights + out->masters + out->gradient + out->sums +
               out->moments + out->ema + out->activations + out->rest;
    count_start(out, r);
}
