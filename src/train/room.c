#include "room.h"

#include "base/error.h"

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

uint64_t dg_room_networks(const Policy *p, const Reward *rewards, int64_t num)
{
    return dg_policy_placed_bytes(p) +
           sizeof(float) * (uint64_t)dg_rewards_num_values(rewards, num);
}

uint64_t dg_room_team(const TeamOpts *o)
{
    return dg_team_bytes(o) - (o->offload ? dg_team_sum_bytes(o) : 0);
}
