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

int dg_room_check(const Session *s, uint64_t needs, const RoomKey *keys,
                  int num)
{
    const double MB = 1e-6;
    const RoomKey always[] = {
        { s->config->run.dtype == DG_STORE_FLOAT32, "run.dtype = bfloat16" },
        { s->device_ranks > 1, "fewer ranks on a GPU" },
        { 1, "smaller pictures or networks" },
    };
    int64_t most = (int64_t)needs;
    size_t unused, all;
    char advice[512] = "";
    int err;

    if (!s->backend->apart)
        return DG_OK;
    dg_comm_max_i64(s->comm, &most, 1);
    most *= s->device_ranks;
    append(advice, sizeof advice, keys, num);
    append(advice, sizeof advice, always, 3);
    err = s->backend->room(&unused, &all);
    if (!err && (uint64_t)most > unused)
        err =
            dg_fail(DG_ENOMEM,
                    "the plan takes %.1f MB of this GPU (ranks on it: %d), and "
                    "%.1f MB of %.1f MB are free; less is needed with %s",
                    MB * (double)most, s->device_ranks, MB * (double)unused,
                    MB * (double)all, advice);
    return dg_agree(s->comm, err);
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
