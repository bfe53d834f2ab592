/* Weights from their owners into rooms: waited for, or beside the kernels, one
 * group ahead of its use. */
#include "pool_internal.h"

#include "base/error.h"
#include "base/memory.h"
#include "tensor/mirror.h"

/* Bytes that travel at once where the host is between two GPUs. */
enum { STAGE = 1 << 24 };

size_t dg_pool_stage_bytes(const Shard *shard)
{
    return dg_shard_pools(shard) ? STAGE : 0;
}

/* --- from their owners ------------------------------------------------------- */

/* bytes at 'at', kernel memory, of rank root to all, by way of the host */
static int by_host(const WeightPool *p, char *at, size_t bytes, int root)
{
    const int mine = root == p->comm->rank;
    int err = DG_OK;

    for (size_t done = 0; done < bytes && !err; done += p->stage_bytes) {
        const size_t left = bytes - done;
        const size_t n = left < p->stage_bytes ? left : p->stage_bytes;

        if (mine)
            err = p->kernels->download(p->stage, at + done, n);
        err = dg_agree(p->comm, err);
        if (err)
            return err;
        dg_comm_bcast(p->comm, p->stage, n, root);
        if (!mine)
            p->kernels->upload(at + done, p->stage, n);
    }
    return err;
}

static int spread(const WeightPool *p, void *at, size_t bytes, int root)
{
    int done = 0, err = DG_OK;

    if (!p->kernels->apart) {
        dg_comm_bcast(p->comm, at, bytes, root);
        return DG_OK;
    }
    if (p->engine->bcast != NULL)
        err = p->engine->bcast(p->comm, at, bytes, root, &done);
    return err || done ? err : by_host(p, at, bytes, root);
}

/* What of a set's values first .. first + num - 1 a rank has. */
static void part_of(const PoolSet *s, int rank, int64_t first, int64_t num,
                    ShardRange *part)
{
    const ShardRange of = { s->at + first, num };

    dg_shard_overlap(&s->shard, rank, &of, &part->first, &part->num);
    part->first -= s->at;
}

/* This rank's of values first .. first + num - 1 to 'at'; waits, so that a
 * device that fails does so before others wait for it. */
static int copy_own(const WeightPool *p, const PoolSet *s, int64_t first,
                    int64_t num, char *at)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    const Backend *copies = p->dtype == DG_BF16 ? p->kernels->bf16 : p->kernels;
    ShardRange own;
    uint16_t seen;

    part_of(s, p->comm->rank, first, num, &own);
    if (own.num > 0)
        dg_kernel_copy(copies,
                       (float *)(void *)(at + (own.first - first) * size),
                       dg_policy_at(s->policy, s->base + own.first), own.num);
    return p->kernels->apart ? p->kernels->download(&seen, at, sizeof seen)
                             : DG_OK;
}

/* Values first .. first + num - 1 of a set to 'at', num > 0. */
static int gather(const WeightPool *p, const PoolSet *s, int64_t first,
                  int64_t num, char *at)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    int err = dg_agree(p->comm, copy_own(p, s, first, num, at));

    for (int r = 0; r < p->comm->size && !err; r++) {
        ShardRange part;

        part_of(s, r, first, num, &part);
        if (part.num > 0)
            err = spread(p, at + (part.first - first) * size,
                         (size_t)(part.num * size), r);
    }
    return err;
}

ShardRange dg_pool_gap(const ParamSet *net, int i)
{
    const ParamGroup *g = net->groups;
    const int64_t at = i > 0 ? g[i - 1].first + g[i - 1].num : 0;
    const int64_t end = i < net->num_groups ? g[i].first : net->count;

    return (ShardRange) { at, end > at ? end - at : 0 };
}

int dg_pool_gather_rest(const WeightPool *p, const PoolSet *s)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    int err = DG_OK;

    for (int i = 0; i <= s->params->num_groups && !err; i++) {
        const ShardRange gap = dg_pool_gap(s->params, i);
        const int64_t at = dg_params_rest_at(s->params, gap.first);

        if (gap.num > 0)
            err = gather(p, s, gap.first, gap.num, (char *)s->rest + at * size);
        p->team->traffic.weights +=
            p->comm->size > 1 ? (uint64_t)(gap.num * size) : 0;
    }
    return err;
}

/* Values of a group into a room, beside the kernels. */
static int fetch(const WeightPool *p, const PoolSet *s, const ParamGroup *g,
                 int room)
{
    const size_t size = (size_t)dg_dtype_bytes(p->dtype);
    const int n = p->comm->size;
    size_t first[n], bytes[n];
    CommFetch f = { p->room[room].at, first, bytes, p->room[room].at,
                    ROOM_SLOT + room };

    for (int r = 0; r < n; r++) {
        ShardRange part;

        part_of(s, r, g->first, g->num, &part);
        first[r] = part.num > 0 ? (size_t)(part.first - g->first) * size : 0;
        bytes[r] = (size_t)part.num * size;
        if (r == p->comm->rank && part.num > 0)
            f.own = dg_policy_at(s->policy, s->base + part.first);
    }
    return p->engine->fetch(p->comm, &f);
}

/* --- rooms -------------------------------------------------------------------- */

int dg_pool_reserve_rooms(WeightPool *p, int64_t num)
{
    const size_t bytes = (size_t)(dg_dtype_bytes(p->dtype) * num);
    int err = DG_OK;

    for (int r = 0; r < p->num_rooms && !err; r++)
        err = dg_kernel_memory_new(&p->room[r].at, p->kernels, bytes);
    if (!err && p->kernels->apart) {
        p->stage_bytes = STAGE;
        p->stage = dg_memory_new(STAGE);
        err = p->stage != NULL ? DG_OK : dg_fail(DG_ENOMEM, "weights' way");
    }
    return err;
}

static void empty(WeightPool *p, PoolRoom *r)
{
    if (r->group > 0)
        dg_params_point_group(p->set[r->set].params, r->group, NULL, p->dtype);
    r->group = 0;
}

void dg_pool_empty_rooms(WeightPool *p, int set)
{
    for (int r = 0; r < p->num_rooms; r++)
        if (p->room[r].set == set)
            empty(p, &p->room[r]);
}

static int is_in(const PoolRoom *r, int set, int group)
{
    return r->group == group && r->set == set;
}

int dg_pool_has(const WeightPool *p, int set, int group)
{
    return is_in(&p->room[p->now], set, group);
}

/* -1: in none */
static int find(const WeightPool *p, int set, int group)
{
    for (int r = 0; r < p->num_rooms; r++)
        if (is_in(&p->room[r], set, group))
            return r;
    return -1;
}

static int fill(WeightPool *p, int room, int set, int group)
{
    const ParamGroup *g = dg_pool_group(p, set, group);
    const PoolSet *s = &p->set[set];
    PoolRoom *r = &p->room[room];
    int err;

    empty(p, r);
    err = p->beside ? fetch(p, s, g, room)
                    : gather(p, s, g->first, g->num, r->at);
    if (err)
        return err;
    dg_params_point_group(s->params, group, r->at, p->dtype);
    r->set = set;
    r->group = group;
    p->team->traffic.weights += (uint64_t)(dg_dtype_bytes(p->dtype) * g->num);
    return DG_OK;
}

/* What is asked for goes where the last one was not: kernels may still run with
 * that; what comes next to the other place, once they are done. */
int dg_pool_fill(WeightPool *p, int set, int group, int32_t next)
{
    int room = find(p, set, group), err = DG_OK;

    p->ahead += room >= 0;
    if (room < 0) {
        room = p->num_rooms - 1 - p->now;
        err = fill(p, room, set, group);
    }
    if (err)
        return err;
    p->now = room;
    if (!p->beside)
        return DG_OK;
    p->engine->slot(ROOM_SLOT + room);
    return next > 0 &&
                   find(p, dg_pool_code_set(next), dg_pool_code_group(next)) < 0
               ? fill(p, 1 - room, dg_pool_code_set(next),
                      dg_pool_code_group(next))
               : DG_OK;
}
