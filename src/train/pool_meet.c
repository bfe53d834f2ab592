/* How ranks meet, and a rank's workers: gradients to their owners. */
#include "pool_internal.h"

#include "base/error.h"

enum { WISH_BITS = GROUP_BITS + 4, WISH_MOST = (1 << WISH_BITS) - 1 };

/* --- gradients to their owners ------------------------------------------------ */

/* Workers of this rank whose gradients go the same way together. */
typedef struct Givers {
    const PoolSeat *const *seat;
    int num;
} Givers;

/* Values first .. first + num - 1, of which each giver has some at g. */
static int hand_part(const WeightPool *p, int64_t first, int64_t num,
                     const float *const *g, int num_g)
{
    /* of the thread that the host's sums have */
    const Comm *c = dg_pool_down_meets(p) ? &p->down.comm : p->comm;

    return p->gives_beside
               ? dg_team_send(p->team, c, first, num, num_g > 0 ? g[0] : NULL)
               : dg_team_give(p->team, c, first, num, g, num_g);
}

static int hand_rest(const WeightPool *p, const PoolSet *s, const Givers *by)
{
    const ParamSet *params = s->params;
    const float *g[p->num_seats];
    int err = DG_OK;

    for (int i = 0; i <= params->num_groups && !err; i++) {
        const ShardRange gap = dg_pool_gap(params, i);

        for (int k = 0; k < by->num; k++)
            g[k] = by->seat[k]->grads + s->rest_at +
                   dg_params_rest_at(params, gap.first);
        if (gap.num > 0)
            err = hand_part(p, s->at + gap.first, gap.num, g, by->num);
    }
    return err;
}

static int hand_group(const WeightPool *p, int set, int group, const Givers *by)
{
    const ParamGroup *of = dg_pool_group(p, set, group);
    const float *g[p->num_seats];

    for (int k = 0; k < by->num; k++)
        g[k] = by->seat[k]->group_grads[by->seat[k]->open_room];
    return hand_part(p, p->set[set].at + of->first, of->num, g, by->num);
}

/* group 0: the rests of all sets. */
static int hand_on(const WeightPool *p, int set, int group, const Givers *by)
{
    int err = DG_OK;

    if (p->gives_beside)
        p->engine->beside();
    if (group == 0) {
        for (int i = 0; i < p->num_sets && !err; i++)
            if (p->set[i].trains)
                err = hand_rest(p, &p->set[i], by);
    } else {
        err = hand_group(p, set, group, by);
    }
    if (p->gives_beside && by->num > 0)
        p->engine->leaves(group > 0 ? GRADS_SLOT + p->seat[0].open_room
                                    : REST_SLOT);
    return err;
}

int dg_pool_hand_down(const WeightPool *p, const PoolJob *j, int gives)
{
    const PoolSeat *const me[] = { p->seat };

    if (j->group == 0)
        return hand_on(p, 0, 0, &(Givers) { me, gives });
    const ParamGroup *of = dg_pool_group(p, j->set, j->group);
    return hand_part(p, p->set[j->set].at + of->first, of->num, &j->grads,
                     gives);
}

/* --- meetings ------------------------------------------------------------------ */

PoolWish dg_pool_wish(int kind, int set, int group)
{
    return (PoolWish) { kind << (GROUP_BITS + 2) | dg_pool_code(set, group),
                        0 };
}

/* The least of all ranks' wishes, and what follows if those who have it say the
 * same. A rank that waits pushes on what is under way. */
static PoolWish exchange(const WeightPool *p, PoolWish w)
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

static int kind_of(PoolWish w)
{
    return w.what >> (GROUP_BITS + 2);
}

/* This rank cannot do its part, and others may wait for that already. */
void dg_pool_fail(WeightPool *p, int err)
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

static int serve_gradients(WeightPool *p, int set, int group, const Givers *by)
{
    const PoolSeat *me = p->seat;
    const PoolJob job = { set, group, me->group_grads[me->open_room],
                          by->num > 0 };

    return dg_pool_down_meets(p) ? dg_pool_down_give(p, &job)
                                 : hand_on(p, set, group, by);
}

/* Errors are all ranks'; but beside the kernels this rank's, which it tells of
 * when they meet next. */
static int serve(WeightPool *p, PoolWish w, const Givers *by)
{
    const int set = dg_pool_code_set(w.what) % POOL_SETS,
              group = dg_pool_code_group(w.what);
    const int weights = kind_of(w) == POOL_WEIGHTS;
    const int err = weights ? dg_pool_fill(p, set, group, w.next)
                            : serve_gradients(p, set, group, by);

    if (!(weights ? p->beside : p->gives_beside) || p->gone)
        return err;
    dg_pool_fail(p, err);
    return DG_OK;
}

/* Until it has come true, of a rank's only worker. */
static int meet_by_one(PoolSeat *seat, PoolWish wish)
{
    WeightPool *p = seat->pool;
    const PoolSeat *const me[] = { seat };
    const int32_t wanted = wish.what;
    PoolWish now;
    int err = DG_OK;

    if (p->gone)
        return p->gone;
    do {
        now = exchange(p, p->err ? dg_pool_wish(POOL_NO_MORE, 0, 0) : wish);
        if (kind_of(now) == POOL_NO_MORE)
            return settle(p, 0);
        err = serve(p, now, &(Givers) { me, now.what == wanted });
    } while (!err && now.what != wanted);
    return err ? err : p->err;
}

/* --- several workers of a rank ------------------------------------------------ */

/* The first worker, whose thread may call MPI, meets the other ranks for all:
 * it waits until each that has an item wants something, and brings the least of
 * that. So workers that do the same work give together, like ranks. */

/* Until each worker with an item waits; the lock is held. */
static void gather(WeightPool *p)
{
    for (int i = 0; i < p->num_seats; i++)
        while (p->seat[i].works && p->seat[i].wanted == 0)
            pthread_cond_wait(&p->news, &p->lock);
}

/* A wish has come true, or none will any more: whoever has it goes on. */
static void release(WeightPool *p, int32_t what, int err)
{
    if (err)
        p->why = *dg_last_error();
    for (int i = 0; i < p->num_seats; i++)
        if (err || p->seat[i].wanted == what) {
            p->seat[i].wanted = 0;
            p->seat[i].err = err;
        }
    pthread_cond_broadcast(&p->news);
}

/* The least of their wishes, or another rank's that is less. */
static void serve_seats(WeightPool *p)
{
    const PoolSeat *by[p->num_seats];
    PoolWish now = dg_pool_wish(POOL_NOTHING, 0, 0);
    int num = 0;

    gather(p);
    for (int i = 0; i < p->num_seats; i++)
        if (p->seat[i].wanted != 0 && p->seat[i].wanted < now.what)
            now.what = p->seat[i].wanted;
    if (kind_of(now) == POOL_NOTHING) /* the last one has ended */
        return;
    now = exchange(p, now);
    for (int i = 0; i < p->num_seats; i++)
        if (p->seat[i].wanted == now.what)
            by[num++] = &p->seat[i];
    release(p, now.what, serve(p, now, &(Givers) { by, num }));
}

static int meet_by_many(PoolSeat *seat, PoolWish wish)
{
    WeightPool *p = seat->pool;
    int err;

    pthread_mutex_lock(&p->lock);
    seat->wanted = wish.what;
    pthread_cond_broadcast(&p->news);
    while (seat->wanted != 0)
        if (seat == p->seat)
            serve_seats(p);
        else
            pthread_cond_wait(&p->news, &p->lock);
    err = seat->err;
    if (err)
        dg_set_error(&p->why);
    pthread_mutex_unlock(&p->lock);
    return err;
}

/* Of one rank: there is nobody to meet, and sums are integers. */
static int add_here(PoolSeat *seat, PoolWish w)
{
    WeightPool *p = seat->pool;
    const PoolSeat *const me[] = { seat };
    int err;

    pthread_mutex_lock(&p->lock);
    err = serve(p, w, &(Givers) { me, 1 });
    pthread_mutex_unlock(&p->lock);
    return err;
}

int dg_pool_meet(PoolSeat *seat, PoolWish wish)
{
    const WeightPool *p = seat->pool;

    if (p->num_seats == 1)
        return meet_by_one(seat, wish);
    return p->comm->size > 1 ? meet_by_many(seat, wish) : add_here(seat, wish);
}

void dg_pool_round(WeightPool *p, int64_t num)
{
    for (int i = 0; i < p->num_seats; i++)
        p->seat[i].works = i < num;
}

static int any_works(const WeightPool *p)
{
    int any = 0;

    for (int i = 0; i < p->num_seats; i++)
        any |= p->seat[i].works;
    return any;
}

void dg_pool_end(WeightPool *p, const Worker *w)
{
    if (p->num_seats == 1 || p->comm->size == 1)
        return;
    pthread_mutex_lock(&p->lock);
    p->seat[w->index].works = 0;
    pthread_cond_broadcast(&p->news);
    while (w->index == 0 && any_works(p))
        serve_seats(p);
    pthread_mutex_unlock(&p->lock);
}

/* --- the end of a rank's work ------------------------------------------------- */

/* Others' wishes; *failed: what became of them. Returns 1 once all have given
 * up. */
static int serve_others(WeightPool *p, int *failed)
{
    PoolWish now;

    do {
        now = exchange(
            p, dg_pool_wish(p->err ? POOL_NO_MORE : POOL_NOTHING, 0, 0));
        if (kind_of(now) == POOL_NO_MORE) {
            settle(p, 0);
            return 1;
        }
        if (kind_of(now) != POOL_NOTHING &&
            serve(p, now, &(Givers) { NULL, 0 }) != DG_OK)
            *failed = dg_last_error()->code;
        if (p->gone)
            return 1;
    } while (kind_of(now) != POOL_NOTHING);
    return 0;
}

int dg_pool_leave(WeightPool *p, int err)
{
    int failed = DG_OK;
    Error first = *dg_last_error();

    if (p->whole) /* the next way forward is replayed again */
        for (int i = 0; i < p->num_seats; i++)
            p->seat[i].worker->ctx.lender = NULL;
    if (p->gives_beside) /* as those who had an item */
        p->engine->slot(REST_SLOT);
    if (p->down.thread != NULL && p->comm->size == 1)
        dg_pool_down_end(p); /* of an item that has failed, too */
    if (p->beside && err == DG_EDEVICE)
        dg_pool_fail(p, err);
    if (p->gone || serve_others(p, &failed) || (p->beside && settle(p, 1))) {
        dg_set_error(&p->why);
        return p->gone;
    }
    if (dg_pool_down_meets(p))
        failed = dg_pool_down_leave(p);
    if (err)
        dg_set_error(&first);
    return dg_agree(p->comm, err ? err : failed);
}
