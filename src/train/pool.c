#include "pool_internal.h"

#include "base/error.h"
#include "tensor/mirror.h"

#include <stdlib.h>

enum { NET = 0 };

/* What is wanted of others, least first: weights before gradients. A rank
 * whose device has failed wants all to give up. */
enum { NO_MORE, WEIGHTS, GRADIENTS, NOTHING };
enum { WISH_BITS = GROUP_BITS + 4, WISH_MOST = (1 << WISH_BITS) - 1 };

typedef struct Wish {
    int32_t what; /* kind and group */
    int32_t next; /* what weights will follow, if known; else 0 */
} Wish;

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
                              const Shard *like, int apart, int text, int rooms)
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
    return (uint64_t)(dg_dtype_bytes(p->dtype) * (num + rooms * room));
}

int dg_pool_rooms(const Config *c, int apart)
{
    return apart && c->parallel.ahead ? POOL_ROOMS : 1;
}

int dg_pool_grad_rooms(const Config *c, const Shard *s, int apart, int offload)
{
    const int beside = dg_shard_pools(s) ? c->parallel.ahead
                                         : c->parallel.overlap && s->size > 1;

    /* they leave beside the kernels only where their sums are theirs */
    return apart && beside && !offload ? POOL_ROOMS : 1;
}

int64_t dg_pool_room(const Policy *p, int rooms)
{
    return p->adapters.num_params > 0
               ? p->adapters.count
               : dg_params_rest(&p->net) + rooms * dg_params_largest(&p->net);
}

/* --- gradients to their owners ------------------------------------------------ */

/* Values first .. first + num - 1, of which this rank has some at g if mine. */
static int hand_part(const WeightPool *p, int64_t first, int64_t num,
                     const float *g, int mine)
{
    return p->gives_beside
               ? dg_team_send(p->team, p->comm, first, num, mine ? g : NULL)
               : dg_team_give(p->team, p->comm, first, num, &g, mine);
}

static int hand_rest(const WeightPool *p, int mine)
{
    const ParamSet *net = p->set[NET].params;
    int err = DG_OK;

    for (int i = 0; i <= net->num_groups && !err; i++) {
        const ShardRange gap = dg_pool_gap(net, i);
        const float *g = p->grads + dg_params_rest_at(net, gap.first);

        if (gap.num > 0)
            err = hand_part(p, gap.first, gap.num, g, mine);
    }
    return err;
}

/* group 0: the rest. mine: 1 if this rank has some. */
static int hand_on(const WeightPool *p, int group, int mine)
{
    const float *g = p->group_grads[p->open_room];
    int err;

    if (p->gives_beside)
        p->engine->beside();
    if (group == 0) {
        err = hand_rest(p, mine);
    } else {
        const ParamGroup *of = dg_pool_group(p, NET, group);

        err = hand_part(p, of->first, of->num, g, mine);
    }
    if (p->gives_beside && mine)
        p->engine->leaves(group > 0 ? GRADS_SLOT + p->open_room : REST_SLOT);
    return err;
}

/* Where a parameter is among a group's gradients, or the rest's; of the whole
 * set with group -1. */
static int64_t place_of(const ParamSet *net, const Tensor *t, int group)
{
    return group > 0    ? t->param_offset - net->groups[group - 1].first
           : group == 0 ? dg_params_rest_at(net, t->param_offset)
                        : t->param_offset;
}

/* A gradient that no sum can take, by the name of its parameter; bad is its
 * place among those. */
static int name_bad(const ParamSet *net, int group, int64_t bad)
{
    for (int i = 0; i < net->num_params; i++) {
        const Tensor *t = &net->params[i]->value;
        const int64_t at = place_of(net, t, group);

        if ((group < 0 || t->param_group == group) && bad >= at &&
            bad < at + dg_tensor_count(t))
            return dg_fail(DG_ENUMERIC,
                           "gradient of %s, element %lld: not finite, or more "
                           "than a sum can take",
                           net->params[i]->name, (long long)(bad - at));
    }
    return DG_ENUMERIC;
}

/* Whether sums can take what is ready. group 0: the rest. Beside the kernels
 * what they cannot take is left out, and found at the item's end. */
static int check(const WeightPool *p, int group)
{
    const Worker *w = &p->team->workers[0];
    const ParamSet *net = p->set[NET].params;
    ExactSum limits = w->sum;
    int64_t bad;
    int err;

    if (p->gives_beside)
        return DG_OK;
    limits.num =
        group > 0 ? dg_pool_group(p, NET, group)->num : dg_params_rest(net);
    err = w->engine->exact_check(
        &limits, group > 0 ? p->group_grads[0] : p->grads, &bad);
    return err == DG_ENUMERIC ? name_bad(net, group, bad) : err;
}

static int check_left_out(const WeightPool *p)
{
    const Worker *w = &p->team->workers[0];
    int err;

    if (!p->gives_beside)
        return DG_OK;
    for (int r = 0; r < POOL_ROOMS; r++)
        p->engine->slot(GRADS_SLOT + r);
    p->engine->slot(REST_SLOT);
    err = dg_mirror_down(&w->bad);
    return err || *(const int64_t *)w->bad.host < 0
               ? err
               : name_bad(p->set[NET].params, -1,
                          *(const int64_t *)w->bad.host);
}

/* --- meetings ------------------------------------------------------------------ */

static Wish wish_of(int kind, int set, int group)
{
    return (Wish) { kind << (GROUP_BITS + 2) | dg_pool_code(set, group), 0 };
}

/* The least of all ranks' wishes, and what follows if those who have it say the
 * same. A rank that waits pushes on what is under way. */
static Wish exchange(const WeightPool *p, Wish w)
{
    const int64_t what = (int64_t)w.what << WISH_BITS;
    int64_t v[2] = { what | w.next, what | (WISH_MOST - w.next) };

    if (p->beside)
        dg_comm_min_i64_while(p->comm, v, 2, p->engine->nudge);
    else
        dg_comm_min_i64(p->comm, v, 2);
    w.what = (int32_t)(v[0] >> WISH_BITS);
    w.next = (int32_t)(v[0] & WISH_MOST);
    if (w.next != WISH_MOST - (int32_t)(v[1] & WISH_MOST))
        w.next = 0;
    return w;
}

static int kind_of(Wish w)
{
    return w.what >> (GROUP_BITS + 2);
}

/* This rank cannot do its part, and others may wait for that already. */
static void fail(WeightPool *p, int err)
{
    if (!err || p->err || p->gone) /* all have given up: nobody listens */
        return;
    p->err = err;
    p->why = *dg_last_error();
    dg_comm_alarm(p->comm);
}

/* All that is under way has arrived; or, as one rank or more has failed, none
 * of it is waited for any more. Errors, agreed. */
static int settle(WeightPool *p, int wait)
{
    if (p->err)
        dg_set_error(&p->why);
    p->gone = p->engine->sent(p->comm, p->err, wait);
    if (p->gone)
        p->why = *dg_last_error();
    return p->gone;
}

static int serve_gradients(WeightPool *p, int group, int mine)
{
    int err = DG_OK;

    /* the host's calls wait for all ranks' devices */
    if (p->beside && !p->gives_beside)
        err = settle(p, 1);
    return err ? err : hand_on(p, group, mine);
}

/* Errors are all ranks'; but beside the kernels this rank's, which it tells of
 * when they meet next. */
static int serve(WeightPool *p, Wish w, int mine)
{
    const int set = dg_pool_code_set(w.what) % 4,
              group = dg_pool_code_group(w.what);
    const int weights = kind_of(w) == WEIGHTS;
    const int err = weights ? dg_pool_fill(p, set, group, w.next)
                            : serve_gradients(p, group, mine);

    if (!(weights ? p->beside : p->gives_beside) || p->gone)
        return err;
    fail(p, err);
    return DG_OK;
}

/* Until it has come true. */
static int meet(WeightPool *p, Wish wish)
{
    const int32_t wanted = wish.what;
    Wish now;
    int err = DG_OK;

    if (p->gone)
        return p->gone;
    do {
        now = exchange(p, p->err ? wish_of(NO_MORE, 0, 0) : wish);
        if (kind_of(now) == NO_MORE)
            return settle(p, 0);
        err = serve(p, now, now.what == wanted);
    } while (!err && now.what != wanted);
    return err ? err : p->err;
}

/* Others' wishes; *failed: what became of them. Returns 1 once all have given
 * up. */
static int serve_others(WeightPool *p, int *failed)
{
    Wish now;

    do {
        now = exchange(p, wish_of(p->err ? NO_MORE : NOTHING, 0, 0));
        if (kind_of(now) == NO_MORE) {
            settle(p, 0);
            return 1;
        }
        if (kind_of(now) != NOTHING && serve(p, now, 0) != DG_OK)
            *failed = dg_last_error()->code;
        if (p->gone)
            return 1;
    } while (kind_of(now) != NOTHING);
    return 0;
}

int64_t dg_pool_take_ahead(WeightPool *p)
{
    const int64_t ahead = p->ahead;

    p->ahead = 0;
    return ahead;
}

int dg_pool_leave(WeightPool *p, int err)
{
    int failed = DG_OK;
    Error first = *dg_last_error();

    if (p->whole) /* the next way forward is replayed again */
        p->team->workers[0].ctx.lender = NULL;
    if (p->gives_beside) /* as those who had an item */
        p->engine->slot(REST_SLOT);
    if (p->beside && err == DG_EDEVICE)
        fail(p, err);
    if (p->gone || serve_others(p, &failed) || (p->beside && settle(p, 1))) {
        dg_set_error(&p->why);
        return p->gone;
    }
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

/* Room for a group's gradients, zero: not the one that may still be leaving,
 * if there are two. */
static void open_grads(WeightPool *p, int group)
{
    p->open_group = group;
    if (p->gives_beside) {
        if (p->whole)
            fail(p, p->engine->pace());
        p->open_room = POOL_ROOMS - 1 - p->open_room;
        p->engine->slot(GRADS_SLOT + p->open_room);
        if (!p->unflagged)
            dg_worker_unflag(&p->team->workers[0]);
        p->unflagged = 1;
    }
    p->kernels->fill(p->group_grads[p->open_room], 0,
                     dg_pool_group(p, NET, group)->num);
}

static int lend(Lender *l, const Tensor *w, int grads)
{
    WeightPool *p = (WeightPool *)l;
    const int set = find(p, w), group = w->param_group;
    Wish wish;

    if (set < 0 || group == 0)
        return DG_OK;
    if (grads)
        open_grads(p, group);
    if (p->whole || dg_pool_has(p, set, group))
        return DG_OK;
    wish = wish_of(WEIGHTS, set, group);
    dg_pool_order_note(&p->order, dg_pool_code(set, group));
    if (p->beside && !p->gone) {
        wish.next = dg_pool_order_guess(&p->order);
        fail(p, p->engine->pace());
    }
    return meet(p, wish);
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
    p->team->early += p->gives_beside;
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
    return (w->param_group > 0 ? p->group_grads[p->open_room] : p->grads) +
           place_of(net, w, w->param_group);
}

void dg_pool_begin(WeightPool *p)
{
    p->unflagged = 0;
    p->team->workers[0].ctx.lender = &p->lender;
    p->kernels->fill(p->grads, 0, dg_params_rest(p->set[NET].params));
}

int dg_pool_give_rest(WeightPool *p)
{
    int err = check(p, 0);

    if (p->gives_beside && !p->unflagged) /* no block was gone back through */
        dg_worker_unflag(&p->team->workers[0]);
    if (!err)
        err = meet(p, wish_of(GRADIENTS, NET, 0));
    return err ? err : check_left_out(p);
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

int dg_pool_lends(const WeightPool *p)
{
    return !p->whole;
}

int dg_pool_refresh(WeightPool *p)
{
    dg_pool_empty_rooms(p, NET);
    return dg_pool_gather_rest(p, &p->set[NET]);
}

int dg_pool_reload(WeightPool *p)
{
    int err = DG_OK;

    for (int i = 0; i < p->num_sets && !err; i++) {
        dg_pool_empty_rooms(p, i);
        if (!p->set[i].shares)
            err = dg_pool_gather_rest(p, &p->set[i]);
    }
    return err;
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
    int err;

    if (p->whole) { /* nothing but the names of what is there */
        add_set(p, policy, &policy->net)->shares = 1;
        return DG_OK;
    }
    err = reserve_rest(p, add_set(p, policy, &policy->net));

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
        err = dg_pool_reserve_rooms(p, room);
    return err ? err : dg_pool_order_init(&p->order, p->set, p->num_sets);
}

static void bind(WeightPool *p, const Session *s, Team *team,
                 const Policy *policy)
{
    const int apart = s->backend->apart;
    const int grad_rooms = dg_pool_grad_rooms(s->config, &team->shard, apart,
                                              team->stage_down != NULL);

    p->lender = (Lender) { lend, give, grad };
    p->comm = s->comm;
    p->kernels = s->backend;
    p->engine = dg_engine_of(s->backend);
    p->team = team;
    p->dtype = policy->dtype;
    p->trains = policy->adapters.num_params == 0;
    p->grads = team->workers[0].grads;
    p->whole = !policy->held;
    p->num_rooms = p->whole ? 0 : dg_pool_rooms(s->config, apart);
    p->beside = (p->whole ? grad_rooms : p->num_rooms) > 1 &&
                p->engine->fetch != NULL && p->engine->sends(p->comm);
    p->gives_beside = p->beside && p->trains && grad_rooms > 1;
    for (int r = 0; r < (p->gives_beside ? POOL_ROOMS : 1); r++)
        p->group_grads[r] = p->grads + dg_params_rest(&policy->net) +
                            r * dg_params_largest(&policy->net);
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
    if (!err)
        err = dg_pool_reload(p);
    if (err) {
        dg_pool_destroy(p);
        return err;
    }
    team->pool = p;
    team->sends_early |= p->gives_beside;
    team->workers[0].ctx.lender = p->whole ? NULL : &p->lender;
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
    for (int r = 0; r < p->num_rooms; r++)
        dg_kernel_memory_free(p->kernels, p->room[r].at);
    dg_pool_order_fini(&p->order);
    free(p->stage);
    free(p);
}
