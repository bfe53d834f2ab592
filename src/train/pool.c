#include "train/pool.h"

#include "base/error.h"
#include "base/memory.h"
#include "tensor/mirror.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SETS = 3, NET = 0 };

/* Bytes that travel at once where the host is between two GPUs. */
enum { STAGE = 1 << 24 };

/* What is wanted of others, least first: weights before gradients. */
enum { WEIGHTS, GRADIENTS };
static const int64_t nothing = INT64_MAX;

typedef struct PoolSet {
    ParamSet *params;
    const Policy *policy; /* has this rank's range, among its values */
    int64_t base;         /* of the set's first */
    Shard shard;
    void *rest; /* weights in no group */
    int shares; /* they are another set's */
} PoolSet;

struct WeightPool {
    Lender lender; /* the first member */
    const Comm *comm;
    const Backend *kernels;
    const Engine *engine;
    Team *team;
    DType dtype;
    PoolSet set[MAX_SETS];
    int num_sets;
    void *room;               /* the weights of one group, */
    int room_set, room_group; /* which is that; 0: none */
    /* gradients of the trained set: of its rest, then of one group */
    float *grads, *group_grads;
    int trains;     /* what is lent; else it is below adapters */
    int open_group; /* whose gradients are being collected */
    void *stage;    /* on the host, between GPUs without a way of their own */
};

/* --- sizes ------------------------------------------------------------------ */

static void shard_of(Shard *out, const Shard *like, const ParamSet *set)
{
    dg_learner_shard(out, DG_SHARD_PARAMETERS, like->rank, like->size,
                     set->count);
    out->comm = like->comm;
}

static int64_t own_and_rest(const ParamSet *set, const Shard *like)
{
    Shard s;

    shard_of(&s, like, set);
    return s.num + dg_params_rest(set);
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

uint64_t dg_pool_weight_bytes(const Policy *p, const Policy *reference,
                              const Shard *like, int apart, int text)
{
    const int adapts = p->adapters.num_params > 0;
    int64_t room = dg_params_largest(&p->net);
    int64_t num =
        p->num_values - dg_policy_num_base(p) + own_and_rest(&p->net, like);

    if (apart && text) {
        num += own_and_rest(&p->text, like);
        room = most(room, dg_params_largest(&p->text));
    } else if (!apart) {
        num += p->text.count;
    }
    if (reference != NULL && !adapts)
        num += own_and_rest(&reference->net, like);
    return (uint64_t)(dg_dtype_bytes(p->dtype) * (num + room));
}

size_t dg_pool_stage_bytes(const Shard *shard)
{
    return dg_shard_pools(shard) ? STAGE : 0;
}

int64_t dg_pool_room(const Policy *p)
{
    return p->adapters.num_params > 0
               ? p->adapters.count
               : dg_params_rest(&p->net) + dg_params_largest(&p->net);
}

/* --- weights from their owners ----------------------------------------------- */

static const ParamGroup *group_of(const WeightPool *p, int set, int group)
{
    return &p->set[set].params->groups[group - 1];
}

/* bytes at 'at', kernel memory, of rank root to all, by way of the host */
static int by_host(const WeightPool *p, char *at, size_t bytes, int root)
{
    const int mine = root == p->comm->rank;
    int err = DG_OK;

    for (size_t done = 0; done < bytes && !err; done += STAGE) {
        const size_t n = bytes - done < STAGE ? bytes - done : STAGE;

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

/* This rank's of values first .. first + num - 1 to 'at'; waits, so that a
 * device that fails does so before others wait for it. */
static int copy_own(const WeightPool *p, const PoolSet *s, int64_t first,
                    int64_t num, char *at)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    const Backend *copies = p->dtype == DG_BF16 ? p->kernels->bf16 : p->kernels;
    int64_t from, here;
    uint16_t seen;

    dg_shard_overlap(&s->shard, p->comm->rank, &(ShardRange) { first, num },
                     &from, &here);
    if (here > 0)
        dg_kernel_copy(copies, (float *)(void *)(at + (from - first) * size),
                       dg_policy_at(s->policy, s->base + from), here);
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
        int64_t from, here;

        dg_shard_overlap(&s->shard, r, &(ShardRange) { first, num }, &from,
                         &here);
        if (here > 0)
            err =
                spread(p, at + (from - first) * size, (size_t)(here * size), r);
    }
    return err;
}

/* The i-th range of values in no group: before group i + 1, or the end. */
static ShardRange gap_of(const ParamSet *net, int i)
{
    const ParamGroup *g = net->groups;
    const int64_t at = i > 0 ? g[i - 1].first + g[i - 1].num : 0;
    const int64_t end = i < net->num_groups ? g[i].first : net->count;

    return (ShardRange) { at, end > at ? end - at : 0 };
}

static int gather_rest(const WeightPool *p, const PoolSet *s)
{
    const int64_t size = dg_dtype_bytes(p->dtype);
    int err = DG_OK;

    for (int i = 0; i <= s->params->num_groups && !err; i++) {
        const ShardRange gap = gap_of(s->params, i);
        const int64_t at = dg_params_rest_at(s->params, gap.first);

        if (gap.num > 0)
            err = gather(p, s, gap.first, gap.num, (char *)s->rest + at * size);
    }
    return err;
}

static void empty_room(WeightPool *p)
{
    if (p->room_group > 0)
        dg_params_point_group(p->set[p->room_set].params, p->room_group, NULL,
                              p->dtype);
    p->room_group = 0;
}

static int fill_room(WeightPool *p, int set, int group)
{
    const ParamGroup *g = group_of(p, set, group);
    int err;

    if (p->room_group == group && p->room_set == set)
        return gather(p, &p->set[set], g->first, g->num, p->room);
    empty_room(p);
    err = gather(p, &p->set[set], g->first, g->num, p->room);
    if (err)
        return err;
    dg_params_point_group(p->set[set].params, group, p->room, p->dtype);
    p->room_set = set;
    p->room_group = group;
    return DG_OK;
}

/* --- gradients to their owners ------------------------------------------------ */

/* group 0: the rest. mine: 1 if this rank has some. */
static int hand_on(const WeightPool *p, int group, int mine)
{
    const ParamSet *net = p->set[NET].params;
    const float *g = p->group_grads;
    int err = DG_OK;

    if (group > 0) {
        const ParamGroup *of = group_of(p, NET, group);

        return dg_team_give(p->team, p->comm, of->first, of->num, &g, mine);
    }
    for (int i = 0; i <= net->num_groups && !err; i++) {
        const ShardRange gap = gap_of(net, i);

        g = p->grads + dg_params_rest_at(net, gap.first);
        if (gap.num > 0)
            err = dg_team_give(p->team, p->comm, gap.first, gap.num, &g, mine);
    }
    return err;
}

/* A gradient that no sum can take, by the name of its parameter; bad is its
 * place among the group's or the rest's. */
static int name_bad(const ParamSet *net, int group, int64_t bad)
{
    for (int i = 0; i < net->num_params; i++) {
        const Tensor *t = &net->params[i]->value;
        const int64_t at = group > 0
                               ? t->param_offset - net->groups[group - 1].first
                               : dg_params_rest_at(net, t->param_offset);

        if (t->param_group == group && bad >= at &&
            bad < at + dg_tensor_count(t))
            return dg_fail(DG_ENUMERIC,
                           "gradient of %s, element %lld: not finite, or more "
                           "than a sum can take",
                           net->params[i]->name, (long long)(bad - at));
    }
    return DG_ENUMERIC;
}

/* Whether sums can take what is ready. group 0: the rest. */
static int check(const WeightPool *p, int group)
{
    const Worker *w = &p->team->workers[0];
    const ParamSet *net = p->set[NET].params;
    ExactSum limits = w->sum;
    int64_t bad;
    int err;

    limits.num = group > 0 ? group_of(p, NET, group)->num : dg_params_rest(net);
    err = w->engine->exact_check(&limits, group > 0 ? p->group_grads : p->grads,
                                 &bad);
    return err == DG_ENUMERIC ? name_bad(net, group, bad) : err;
}

/* --- meetings ------------------------------------------------------------------ */

static int64_t wish_of(int kind, int set, int group)
{
    return (int64_t)(kind * MAX_SETS + set) << 32 | group;
}

static int serve(WeightPool *p, int64_t wish, int mine)
{
    const int what = (int)(wish >> 32), group = (int)(wish & INT32_MAX);

    return what / MAX_SETS == WEIGHTS ? fill_room(p, what % MAX_SETS, group)
                                      : hand_on(p, group, mine);
}

/* Until it has come true. Errors are all ranks'. */
static int meet(WeightPool *p, int64_t wish)
{
    int64_t now;
    int err = DG_OK;

    do {
        now = wish;
        dg_comm_min_i64(p->comm, &now, 1);
        if (now != nothing)
            err = serve(p, now, now == wish);
    } while (!err && now != wish);
    return err;
}

int dg_pool_leave(WeightPool *p, int err)
{
    int64_t now;
    int failed = DG_OK;
    Error first = *dg_last_error();

    do {
        now = nothing;
        dg_comm_min_i64(p->comm, &now, 1);
        if (now != nothing && serve(p, now, 0) != DG_OK)
            failed = dg_last_error()->code;
    } while (now != nothing);
    if (err)
        dg_set_error(&first);
    return dg_agree(p->comm, err ? err : failed);
}

/* --- the lender ------------------------------------------------------------------ */

static int find(const WeightPool *p, const Tensor *w)
{
    for (int i = 0; i < p->num_sets; i++)
        if (p->set[i].params->id == w->param_set)
            return i;
    return -1;
}

static int lend(Lender *l, const Tensor *w, int grads)
{
    WeightPool *p = (WeightPool *)l;
    const int set = find(p, w), group = w->param_group;

    if (set < 0 || group == 0)
        return DG_OK;
    if (grads) {
        p->open_group = group;
        p->kernels->fill(p->group_grads, 0, group_of(p, set, group)->num);
    }
    return p->room_group == group && p->room_set == set
               ? DG_OK
               : meet(p, wish_of(WEIGHTS, set, group));
}

static int give(Lender *l, const Tensor *w)
{
    WeightPool *p = (WeightPool *)l;
    const int group = w->param_group;
    int err;

    if (!p->trains || find(p, w) != NET || group == 0)
        return DG_OK;
    err = check(p, group);
    p->open_group = 0;
    return err ? err : meet(p, wish_of(GRADIENTS, NET, group));
}

static float *grad(const Lender *l, const Tensor *w)
{
    const WeightPool *p = (const WeightPool *)l;
    const ParamSet *net = p->set[NET].params;

    if (!p->trains) /* adapters, whole */
        return p->grads + w->param_offset;
    if (find(p, w) != NET ||
        (w->param_group != 0 && w->param_group != p->open_group))
        dg_panic("a gradient of parameter set %d, group %d, outside of its "
                 "block",
                 w->param_set, w->param_group);
    return w->param_group > 0
               ? p->group_grads +
                     (w->param_offset - net->groups[w->param_group - 1].first)
               : p->grads + dg_params_rest_at(net, w->param_offset);
}

void dg_pool_begin(WeightPool *p)
{
    p->kernels->fill(p->grads, 0, dg_params_rest(p->set[NET].params));
}

int dg_pool_give_rest(WeightPool *p)
{
    const int err = check(p, 0);

    return err ? err : meet(p, wish_of(GRADIENTS, NET, 0));
}

/* --- its life ------------------------------------------------------------------- */

int dg_pool_hold(const Session *s, Policy *p)
{
    const Shard all = { .rank = s->comm->rank, .size = s->comm->size };
    const int encodes = !p->text_dropped && !p->text_left;
    Shard net, text;

    shard_of(&net, &all, &p->net);
    shard_of(&text, &all, &p->text);
    return dg_policy_hold(p, s->backend, &(ShardRange) { net.first, net.num },
                          encodes ? &(ShardRange) { text.first, text.num }
                                  : NULL);
}

int dg_pool_trains(const WeightPool *p)
{
    return p->trains;
}

int dg_pool_refresh(WeightPool *p)
{
    if (p->room_set == NET)
        empty_room(p);
    return gather_rest(p, &p->set[NET]);
}

static PoolSet *add_set(WeightPool *p, const Policy *policy, ParamSet *params)
{
    const Shard all = { .comm = p->comm,
                        .rank = p->comm->rank,
                        .size = p->comm->size };
    PoolSet *s = &p->set[p->num_sets++];

    s->params = params;
    s->policy = policy;
    s->base = params->values - policy->values;
    shard_of(&s->shard, &all, params);
    return s;
}

/* Room for what is in no group. */
static int reserve_rest(const WeightPool *p, PoolSet *s)
{
    const int64_t num = dg_params_rest(s->params);
    const int err = dg_kernel_memory_new(
        &s->rest, p->kernels, (size_t)(dg_dtype_bytes(p->dtype) * num));

    if (!err)
        dg_params_point_group(s->params, 0, s->rest, p->dtype);
    return err;
}

/* A reference below adapters is the same values by other names. */
static void add_names(WeightPool *p, const Policy *policy, ParamSet *params)
{
    PoolSet *s = add_set(p, policy, params);

    s->base = p->set[NET].base;
    s->shares = 1;
    dg_params_point_group(params, 0, p->set[NET].rest, p->dtype);
}

static int reserve(WeightPool *p, Policy *policy, Policy *reference)
{
    int64_t room = dg_params_largest(&policy->net);
    int err = reserve_rest(p, add_set(p, policy, &policy->net));

    if (!err && p->kernels->apart && !policy->text_left &&
        !policy->text_dropped) {
        err = reserve_rest(p, add_set(p, policy, &policy->text));
        room = most(room, dg_params_largest(&policy->text));
    }
    if (!err && reference != NULL && p->trains)
        err = reserve_rest(p, add_set(p, reference, &reference->net));
    else if (!err && reference != NULL)
        add_names(p, policy, &reference->net);
    if (!err)
        err = dg_kernel_memory_new(&p->room, p->kernels,
                                   (size_t)(dg_dtype_bytes(p->dtype) * room));
    if (!err && p->kernels->apart) {
        p->stage = dg_memory_new(STAGE);
        err = p->stage != NULL ? DG_OK : dg_fail(DG_ENOMEM, "weights' way");
    }
    return err;
}

static void bind(WeightPool *p, const Session *s, Team *team,
                 const Policy *policy)
{
    p->lender = (Lender) { lend, give, grad };
    p->comm = s->comm;
    p->kernels = s->backend;
    p->engine = dg_engine_of(s->backend);
    p->team = team;
    p->dtype = policy->dtype;
    p->trains = policy->adapters.num_params == 0;
    p->grads = team->workers[0].grads;
    p->group_grads = p->grads + dg_params_rest(&policy->net);
}

int dg_pool_create(WeightPool **out, const Session *s, Team *team,
                   Policy *policy, Policy *reference)
{
    WeightPool *p = calloc(1, sizeof *p);
    int err = p != NULL ? DG_OK : dg_fail(DG_ENOMEM, "pool of weights");

    if (p != NULL) {
        bind(p, s, team, policy);
        err = reserve(p, policy, reference);
    }
    err = dg_agree(s->comm, err);
    for (int i = 0; !err && i < p->num_sets; i++)
        if (!p->set[i].shares)
            err = gather_rest(p, &p->set[i]);
    if (err) {
        dg_pool_destroy(p);
        return err;
    }
    team->pool = p;
    team->workers[0].ctx.lender = &p->lender;
    *out = p;
    return DG_OK;
}

void dg_pool_destroy(WeightPool *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < p->num_sets; i++)
        if (!p->set[i].shares)
            dg_kernel_memory_free(p->kernels, p->set[i].rest);
    dg_kernel_memory_free(p->kernels, p->room);
    free(p->stage);
    free(p);
}
