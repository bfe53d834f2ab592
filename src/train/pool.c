#include "pool_internal.h"

#include "base/error.h"
#include "tensor/mirror.h"

#include <stdlib.h>

/* What is wanted of others, least first: weights before gradients. A rank
 * whose device has failed wants all to give up. */
enum { NO_MORE, WEIGHTS, GRADIENTS, NOTHING };
enum { WISH_BITS = GROUP_BITS + 4, WISH_MOST = (1 << WISH_BITS) - 1 };

typedef struct Wish {
    int32_t what; /* kind and group */
    int32_t next; /* what weights will follow, if known; else 0 */
} Wish;

/* --- gradients to their owners ------------------------------------------------ */

/* Values first .. first + num - 1, of which this rank has some at g if mine. */
static int hand_part(const WeightPool *p, int64_t first, int64_t num,
                     const float *g, int mine)
{
    return p->gives_beside
               ? dg_team_send(p->team, p->comm, first, num, mine ? g : NULL)
               : dg_team_give(p->team, p->comm, first, num, &g, mine);
}

static int hand_rest(const WeightPool *p, const PoolSet *s, int mine)
{
    const ParamSet *params = s->params;
    const float *rest = p->grads + s->rest_at;
    int err = DG_OK;

    for (int i = 0; i <= params->num_groups && !err; i++) {
        const ShardRange gap = dg_pool_gap(params, i);
        const float *g = rest + dg_params_rest_at(params, gap.first);

        if (gap.num > 0)
            err = hand_part(p, s->at + gap.first, gap.num, g, mine);
    }
    return err;
}

int dg_pool_hand_on(const WeightPool *p, const PoolJob *j, int mine)
{
    int err = DG_OK;

    if (p->gives_beside)
        p->engine->beside();
    if (j->group == 0) {
        for (int i = 0; i < p->num_sets && !err; i++)
            if (p->set[i].trains)
                err = hand_rest(p, &p->set[i], mine);
    } else {
        const ParamGroup *of = dg_pool_group(p, j->set, j->group);

        err = hand_part(p, p->set[j->set].at + of->first, of->num, j->grads,
                        mine);
    }
    if (p->gives_beside && mine)
        p->engine->leaves(j->group > 0 ? GRADS_SLOT + p->open_room : REST_SLOT);
    return err;
}

/* Where a parameter is among a group's gradients, or the rests'; of the whole
 * shard with group -1. */
static int64_t place_of(const PoolSet *s, const Tensor *t, int group)
{
    return group > 0 ? t->param_offset - s->params->groups[group - 1].first
           : group == 0
               ? s->rest_at + dg_params_rest_at(s->params, t->param_offset)
               : s->at + t->param_offset;
}

static int name_in(const PoolSet *s, int group, int64_t bad)
{
    for (int i = 0; i < s->params->num_params; i++) {
        const Param *q = s->params->params[i];
        const int64_t at = place_of(s, &q->value, group);

        if ((group < 0 || q->value.param_group == group) && bad >= at &&
            bad < at + dg_tensor_count(&q->value))
            return dg_fail(DG_ENUMERIC,
                           "gradient of %s, element %lld: not finite, or more "
                           "than a sum can take",
                           q->name, (long long)(bad - at));
    }
    return DG_OK;
}

/* A gradient that no sum can take, by the name of its parameter; bad is its
 * place among those. */
static int name_bad(const WeightPool *p, int set, int group, int64_t bad)
{
    for (int i = 0; i < p->num_sets; i++)
        if (p->set[i].trains && (group <= 0 || i == set) &&
            name_in(&p->set[i], group, bad))
            return DG_ENUMERIC;
    return DG_ENUMERIC;
}

/* Gradients of parameters in no group. */
static int64_t num_rest(const WeightPool *p)
{
    return p->group_grads[0] - p->grads;
}

/* Beside the kernels of a link what they cannot take is left out, and found at
 * the item's end. */
int dg_pool_check(const WeightPool *p, int set, int group, const float *g)
{
    const Worker *w = &p->team->workers[0];
    ExactSum limits = w->sum;
    int64_t bad;
    int err;

    if (p->gives_beside)
        return DG_OK;
    limits.num = group > 0 ? dg_pool_group(p, set, group)->num : num_rest(p);
    err = w->engine->exact_check(&limits, group > 0 ? g : p->grads, &bad);
    return err == DG_ENUMERIC ? name_bad(p, set, group, bad) : err;
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
               : name_bad(p, 0, -1, *(const int64_t *)w->bad.host);
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

static int serve_gradients(WeightPool *p, int set, int group, int mine)
{
    int err = DG_OK;

    /* the host's calls wait for all ranks' devices */
    if (p->beside && !p->gives_beside)
        err = settle(p, 1);
    return err ? err
               : dg_pool_hand_on(
                     p, &(PoolJob) { set, group, p->group_grads[p->open_room] },
                     mine);
}

/* Errors are all ranks'; but beside the kernels this rank's, which it tells of
 * when they meet next. */
static int serve(WeightPool *p, Wish w, int mine)
{
    const int set = dg_pool_code_set(w.what) % POOL_SETS,
              group = dg_pool_code_group(w.what);
    const int weights = kind_of(w) == WEIGHTS;
    const int err = weights ? dg_pool_fill(p, set, group, w.next)
                            : serve_gradients(p, set, group, mine);

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
    if (p->down.thread != NULL) /* of an item that has failed, too */
        dg_pool_down_end(p);
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
static int open_grads(WeightPool *p, int set, int group)
{
    int err = DG_OK;

    p->open_set = set;
    p->open_group = group;
    if (p->gives_beside) {
        if (p->whole)
            fail(p, p->engine->pace());
        p->open_room = POOL_ROOMS - 1 - p->open_room;
        p->engine->slot(GRADS_SLOT + p->open_room);
        if (!p->unflagged)
            dg_worker_unflag(&p->team->workers[0]);
        p->unflagged = 1;
    } else if (p->down.thread != NULL) {
        p->open_room = POOL_ROOMS - 1 - p->open_room;
        err = dg_pool_down_room(p);
    }
    if (!err)
        p->kernels->fill(p->group_grads[p->open_room], 0,
                         dg_pool_group(p, set, group)->num);
    return err;
}

static int lend(Lender *l, const Tensor *w, int grads)
{
    WeightPool *p = (WeightPool *)l;
    const int set = find(p, w), group = w->param_group;
    Wish wish;

    if (set < 0 || group == 0)
        return DG_OK;
    const int err = grads ? open_grads(p, set, group) : DG_OK;
    if (err)
        return err;
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
    const int set = find(p, w), group = w->param_group;
    int err;

    if (set < 0 || !p->set[set].trains || group == 0)
        return DG_OK;
    const PoolJob job = { set, group, p->group_grads[p->open_room] };

    p->open_group = 0;
    p->team->early += p->gives_beside || p->down.thread != NULL;
    if (p->down.thread != NULL)
        return dg_pool_down_give(p, &job);
    err = dg_pool_check(p, set, group, job.grads);
    return err ? err : meet(p, wish_of(GRADIENTS, set, group));
}

static float *grad(const Lender *l, const Tensor *w)
{
    const WeightPool *p = (const WeightPool *)l;
    const int set = p->trains ? find(p, w) : -1;

    if (!p->trains) /* adapters, whole */
        return p->grads + w->param_offset;
    if (set < 0 || !p->set[set].trains ||
        (w->param_group != 0 &&
         (set != p->open_set || w->param_group != p->open_group)))
        dg_panic("a gradient of parameter set %d, group %d, outside of its "
                 "block",
                 w->param_set, w->param_group);
    return (w->param_group > 0 ? p->group_grads[p->open_room] : p->grads) +
           place_of(&p->set[set], w, w->param_group);
}

void dg_pool_begin(WeightPool *p)
{
    p->unflagged = 0;
    p->team->workers[0].ctx.lender = &p->lender;
    if (p->down.thread != NULL)
        dg_pool_down_begin(p);
    p->kernels->fill(p->grads, 0, num_rest(p));
}

int dg_pool_give_rest(WeightPool *p)
{
    int err;

    if (p->down.thread != NULL) {
        err = dg_pool_down_give(p, &(PoolJob) { .group = 0 });
        return err ? err : dg_pool_down_end(p);
    }
    err = dg_pool_check(p, 0, 0, NULL);
    if (p->gives_beside && !p->unflagged) /* no block was gone back through */
        dg_worker_unflag(&p->team->workers[0]);
    if (!err)
        err = meet(p, wish_of(GRADIENTS, 0, 0));
    return err ? err : check_left_out(p);
}

/* --- its life ------------------------------------------------------------------- */

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
    int err = DG_OK;

    for (int i = 0; i < p->num_sets && !err; i++) {
        if (!p->set[i].trains)
            continue;
        dg_pool_empty_rooms(p, i);
        err = dg_pool_gather_rest(p, &p->set[i]);
    }
    return err;
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
    dg_pool_shard(&s->shard, &s->at, policy, params, &all);
    return s;
}

/* Room for what is in no group; or nothing but the names of what is there. */
static int reserve_rest(const WeightPool *p, PoolSet *s)
{
    const int64_t num = dg_params_rest(s->params);
    int err;

    s->shares = p->whole;
    if (p->whole)
        return DG_OK;
    err = dg_kernel_memory_new(&s->rest, p->kernels,
                               (size_t)(dg_dtype_bytes(p->dtype) * num));
    if (!err)
        dg_params_point_group(s->params, 0, s->rest, p->dtype);
    return err;
}

/* A reference below adapters is the same values by other names. */
static void add_names(WeightPool *p, const Policy *policy, ParamSet *params)
{
    PoolSet *s = add_set(p, policy, params);

    s->base = p->set[0].base;
    s->shares = 1;
    dg_params_point_group(params, 0, p->set[0].rest, p->dtype);
}

/* Text encoders are in ranges where they are trained, and on GPUs where they
 * are needed. */
static int lends_text(const WeightPool *p, const Policy *policy)
{
    return policy->trains_text || (!p->whole && p->kernels->apart &&
                                   !policy->text_left && !policy->text_dropped);
}

/* The network, and text encoders that are lent, of a policy. */
static int add_policy(WeightPool *p, Policy *policy, int trains)
{
    PoolSet *net = add_set(p, policy, &policy->net), *text;
    int err = reserve_rest(p, net);

    net->trains = trains;
    if (err || !lends_text(p, policy))
        return err;
    text = add_set(p, policy, &policy->text);
    text->trains = trains && policy->trains_text;
    text->rest_at = dg_params_rest(&policy->net);
    return reserve_rest(p, text);
}

static int reserve(WeightPool *p, Policy *policy, Policy *reference)
{
    int64_t room = 0;
    int err = add_policy(p, policy, p->trains);

    if (err || p->whole)
        return err;
    if (!err && reference != NULL && p->trains)
        err = add_policy(p, reference, 0);
    else if (!err && reference != NULL)
        add_names(p, policy, &reference->net);
    for (int i = 0; i < p->num_sets; i++)
        if (dg_params_largest(p->set[i].params) > room)
            room = dg_params_largest(p->set[i].params);
    if (!err)
        err = dg_pool_reserve_rooms(p, room);
    return err ? err : dg_pool_order_init(&p->order, p->set, p->num_sets);
}

static void bind(WeightPool *p, const Session *s, Team *team,
                 const Policy *policy)
{
    const int apart = s->backend->apart;
    const int grad_rooms =
        dg_pool_grad_rooms(s->config, &team->shard, apart, team->down);

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
                !(p->whole && team->down) && p->engine->fetch != NULL &&
                p->engine->sends(p->comm);
    p->gives_beside = p->beside && p->trains && grad_rooms > 1;
    for (int r = 0; r < (p->trains ? grad_rooms : 1); r++)
        p->group_grads[r] =
            p->grads + dg_pool_rest(policy) + r * dg_pool_block(policy);
    p->down.rooms = grad_rooms;
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
    dg_beside_destroy(p->down.thread);
    for (int i = 0; i < p->num_sets; i++)
        if (!p->set[i].shares)
            dg_kernel_memory_free(p->kernels, p->set[i].rest);
    for (int r = 0; r < p->num_rooms; r++)
        dg_kernel_memory_free(p->kernels, p->room[r].at);
    dg_pool_order_fini(&p->order);
    free(p->stage);
    free(p);
}
