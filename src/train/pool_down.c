/* Gradients to sums of the host's, beside the way back. */
#include "pool_internal.h"

#include "base/log.h"
#include "trainer.h"

int dg_pool_down_meets(const WeightPool *p)
{
    return p->down.thread != NULL && p->comm->size > 1;
}

/* Who has something to give that no sum can take gives nothing, and others do
 * not wait for it: no update takes such a sum. */
static int take_down_of_all(WeightPool *p, const PoolJob *j)
{
    int gives = j->gives, err = DG_OK;

    if (gives)
        err = dg_pool_check(p->seat, j->set, j->group, j->grads);
    if (err == DG_ENUMERIC) {
        gives = 0;
        if (!p->down.refused)
            p->down.why = *dg_last_error();
        p->down.refused = err;
        err = DG_OK;
    }
    err = dg_agree(&p->down.comm, err);
    return err ? err : dg_pool_hand_down(p, j, gives);
}

static int take_down(Worker *none, int64_t item, void *user)
{
    WeightPool *p = user;
    const PoolJob *j = &p->down.job[item % POOL_JOBS];
    int err;

    (void)none;
    if (p->comm->size > 1)
        return take_down_of_all(p, j);
    err = dg_pool_check(p->seat, j->set, j->group, j->grads);
    return err ? err : dg_pool_hand_down(p, j, 1);
}

/* Where devices have a way of their own, that is what gradients go. */
static int goes_beside(const WeightPool *p)
{
    return p->trains && p->team->down && p->down.rooms > 1 && !p->beside &&
           p->num_seats == 1 && p->kernels->side_new != NULL;
}

static int open_thread(WeightPool *p, const Session *s)
{
    int err = DG_OK;

    if (s->comm->size > 1)
        err = dg_comm_beside(&p->down.comm, s->comm,
                             " of gradients that go to the host");
    if (!err)
        err = dg_agree(s->comm,
                       dg_beside_create(&p->down.thread,
                                        &(TeamOpts) { .backend = p->kernels }));
    if (!err)
        dg_pool_down_begin(p);
    return err;
}

int dg_pool_beside(WeightPool *p, const Session *s)
{
    int room = 0, err;

    if (!goes_beside(p))
        return DG_OK;
    if (s->comm->size > 1 && !s->comm->threads) {
        dg_info("gradients go to the host between blocks: MPI serves one "
                "thread of a rank only (its level is below MULTIPLE)");
        return DG_OK;
    }
    err = dg_trainer_room_beside(&room, s, 0);
    if (!err && room)
        err = open_thread(p, s);
    if (!err && !room)
        dg_info("gradients go to the host between blocks: no room for a "
                "stream");
    p->team->sends_early |= p->down.thread != NULL;
    return err;
}

/* What became of those before is known. */
void dg_pool_down_begin(WeightPool *p)
{
    dg_beside_finish(p->down.thread);
    dg_beside_start(p->down.thread, take_down, p);
    p->down.given = 0;
    p->down.refused = DG_OK;
}

int dg_pool_down_room(WeightPool *p)
{
    return dg_beside_settle(p->down.thread, POOL_ROOMS - 1);
}

int dg_pool_down_give(WeightPool *p, const PoolJob *j)
{
    const int err = dg_beside_settle(p->down.thread, POOL_JOBS - 1);

    if (err && p->comm->size == 1)
        return err;
    p->down.job[p->down.given++ % POOL_JOBS] = *j;
    dg_beside_give(p->down.thread, 1);
    return err;
}

int dg_pool_down_end(WeightPool *p)
{
    const int err = dg_beside_finish(p->down.thread);

    if (err || !p->down.refused)
        return err;
    dg_set_error(&p->down.why);
    return p->down.refused;
}

/* What was refused is the item's, which knows. */
int dg_pool_down_leave(WeightPool *p)
{
    const int err = dg_beside_finish(p->down.thread);

    dg_pool_down_begin(p);
    return err;
}
