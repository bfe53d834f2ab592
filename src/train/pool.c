#include "pool_internal.h"

#include "base/error.h"
#include "tensor/mirror.h"

#include <stdlib.h>

/* --- gradients that no sum can take ------------------------------------------- */

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
    return p->seat[0].group_grads[0] - p->seat[0].grads;
}

/* Beside the kernels of a link what they cannot take is left out, and found at
 * the item's end. */
int dg_pool_check(const PoolSeat *s, int set, int group, const float *g)
{
    const WeightPool *p = s->pool;
    const Worker *w = s->worker;
    ExactSum limits = p->team->workers[0].sum;
    int64_t bad;
    int err;

    if (p->gives_beside)
        return DG_OK;
    limits.num = group > 0 ? dg_pool_group(p, set, group)->num : num_rest(p);
    err = w->engine->exact_check(&limits, group > 0 ? g : s->grads, &bad);
    return err == DG_ENUMERIC ? name_bad(p, set, group, bad) : err;
}

static int check_left_out(const WeightPool *p)
{
    const Worker *w = &p->team->workers[0];
    int err;

    if (!p->gives_beside)
        return DG_OK;
    p->engine->slot(REST_SLOT); /* what left last, behind all blocks' */
    err = dg_mirror_down(&w->bad);
    return err || *(const int64_t *)w->bad.host < 0
               ? err
               : name_bad(p, 0, -1, *(const int64_t *)w->bad.host);
}

int64_t dg_pool_take_ahead(WeightPool *p)
{
    const int64_t ahead = p->ahead;

    p->ahead = 0;
    return ahead;
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
static int open_grads(PoolSeat *s, int set, int group)
{
    WeightPool *p = s->pool;
    int err = DG_OK;

    s->open_set = set;
    s->open_group = group;
    if (p->gives_beside) {
        if (p->whole)
            dg_pool_fail(p, p->engine->pace());
        s->open_room = POOL_ROOMS - 1 - s->open_room;
        p->engine->slot(GRADS_SLOT + s->open_room);
        if (!s->unflagged)
            dg_worker_unflag(s->worker);
        s->unflagged = 1;
    } else if (p->down.thread != NULL) {
        s->open_room = POOL_ROOMS - 1 - s->open_room;
        err = dg_pool_down_room(p);
    }
    if (!err)
        p->kernels->fill(s->group_grads[s->open_room], 0,
                         dg_pool_group(p, set, group)->num);
    return err;
}

static int lend(Lender *l, const Tensor *w, int grads)
{
    PoolSeat *s = (PoolSeat *)l;
    WeightPool *p = s->pool;
    const int set = find(p, w), group = w->param_group;
    PoolWish wish;

    if (set < 0 || group == 0)
        return DG_OK;
    const int err = grads ? open_grads(s, set, group) : DG_OK;
    if (err)
        return err;
    if (p->whole || dg_pool_has(p, set, group))
        return DG_OK;
    wish = dg_pool_wish(POOL_WEIGHTS, set, group);
    dg_pool_order_note(&p->order, dg_pool_code(set, group));
    if (p->beside && !p->gone) {
        wish.next = dg_pool_order_guess(&p->order);
        dg_pool_fail(p, p->engine->pace());
    }
    return dg_pool_meet(s, wish);
}

static int give(Lender *l, const Tensor *w)
{
    PoolSeat *s = (PoolSeat *)l;
    WeightPool *p = s->pool;
    const int set = find(p, w), group = w->param_group;
    int err;

    if (set < 0 || !p->set[set].trains || group == 0)
        return DG_OK;
    const PoolJob job = { set, group, s->group_grads[s->open_room], 1 };

    s->open_group = 0;
    if (p->gives_beside || p->down.thread != NULL)
        p->team->early++;
    if (p->down.thread != NULL && !dg_pool_down_meets(p))
        return dg_pool_down_give(p, &job);
    err = p->down.thread != NULL ? DG_OK
                                 : dg_pool_check(s, set, group, job.grads);
    return err ? err
               : dg_pool_meet(s, dg_pool_wish(POOL_GRADIENTS, set, group));
}

static float *grad(const Lender *l, const Tensor *w)
{
    const PoolSeat *s = (const PoolSeat *)l;
    const WeightPool *p = s->pool;
    const int set = p->trains ? find(p, w) : -1;

    if (!p->trains) /* adapters, whole */
        return s->grads + w->param_offset;
    if (set < 0 || !p->set[set].trains ||
        (w->param_group != 0 &&
         (set != s->open_set || w->param_group != s->open_group)))
        dg_panic("a gradient of parameter set %d, group %d, outside of its "
                 "block",
                 w->param_set, w->param_group);
    return (w->param_group > 0 ? s->group_grads[s->open_room] : s->grads) +
           place_of(&p->set[set], w, w->param_group);
}

void dg_pool_begin(WeightPool *p, Worker *w)
{
    PoolSeat *s = &p->seat[w->index];

    s->unflagged = 0;
    w->ctx.lender = &s->lender;
    if (p->down.thread != NULL && !dg_pool_down_meets(p))
        dg_pool_down_begin(p);
    p->kernels->fill(s->grads, 0, num_rest(p));
}

int dg_pool_give_rest(WeightPool *p, Worker *w)
{
    PoolSeat *s = &p->seat[w->index];
    int err;

    if (p->down.thread != NULL) {
        err = dg_pool_down_meets(p)
                  ? dg_pool_meet(s, dg_pool_wish(POOL_GRADIENTS, 0, 0))
                  : dg_pool_down_give(p, &(PoolJob) { .gives = 1 });
        return err ? err : dg_pool_down_end(p);
    }
    err = dg_pool_check(s, 0, 0, NULL);
    if (p->gives_beside && !s->unflagged) /* no block was gone back through */
        dg_worker_unflag(w);
    if (!err)
        err = dg_pool_meet(s, dg_pool_wish(POOL_GRADIENTS, 0, 0));
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

    p->comm = s->comm;
    p->kernels = s->backend;
    p->engine = dg_engine_of(s->backend);
    p->team = team;
    p->dtype = policy->dtype;
    p->trains = policy->adapters.num_params == 0;
    p->whole = !policy->held;
    p->num_rooms = p->whole ? 0 : dg_pool_rooms(s->config, apart);
    p->beside = (p->whole ? grad_rooms : p->num_rooms) > 1 &&
                (!p->whole || !team->down || team->sends) &&
                p->engine->fetch != NULL && p->engine->sends(p->comm);
    p->gives_beside =
        p->beside && p->trains && grad_rooms > 1 && team->down == team->sends;
    p->down.rooms = p->trains ? grad_rooms : 1;
}

/* Who lends to a worker: one gradient at a time each. */
static int seat_workers(WeightPool *p, const Policy *policy)
{
    p->num_seats = p->team->num;
    p->seat = calloc((size_t)p->num_seats, sizeof *p->seat);
    if (p->seat == NULL)
        return dg_fail(DG_ENOMEM, "pool of weights");
    for (int i = 0; i < p->num_seats; i++) {
        PoolSeat *s = &p->seat[i];

        s->lender = (Lender) { lend, give, grad };
        s->pool = p;
        s->worker = &p->team->workers[i];
        s->grads = s->worker->grads;
        for (int r = 0; r < p->down.rooms; r++)
            s->group_grads[r] =
                s->grads + dg_pool_rest(policy) + r * dg_pool_block(policy);
    }
    return DG_OK;
}

int dg_pool_create(WeightPool **out, const Session *s, Team *team,
                   Policy *policy, Policy *reference)
{
    WeightPool *p = calloc(1, sizeof *p);
    int err = p != NULL ? DG_OK : dg_fail(DG_ENOMEM, "pool of weights");

    if (p != NULL) {
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->news, NULL);
        bind(p, s, team, policy);
        err = seat_workers(p, policy);
        if (!err)
            err = reserve(p, policy, reference);
        if (!err && team->sends)
            err = p->engine->descends();
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
    team->workers[0].ctx.lender = p->whole ? NULL : &p->seat[0].lender;
    *out = p;
    return DG_OK;
}

void dg_pool_destroy(WeightPool *p)
{
    if (p == NULL)
        return;
    dg_beside_destroy(p->down.thread);
    dg_comm_beside_free(&p->down.comm);
    for (int i = 0; i < p->num_sets; i++)
        if (!p->set[i].shares)
            dg_kernel_memory_free(p->kernels, p->set[i].rest);
    for (int r = 0; r < p->num_rooms; r++)
        dg_kernel_memory_free(p->kernels, p->room[r].at);
    dg_pool_order_fini(&p->order);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->news);
    free(p->stage);
    free(p->seat);
    free(p);
}
