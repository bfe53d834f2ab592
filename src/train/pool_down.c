/* Gradients to sums of the host's, beside the way back. */
#include "pool_internal.h"

#include "base/log.h"
#include "trainer.h"

static int take_down(Worker *none, int64_t item, void *user)
{
    const WeightPool *p = user;
    const PoolJob *j = &p->down.job[item % POOL_JOBS];
    const int err = dg_pool_check(p->seat, j->set, j->group, j->grads);

    (void)none;
    return err ? err : dg_pool_hand_down(p, j);
}

/* Ranks meet before sums go on to another one: that is the main thread's. */
static int goes_beside(const WeightPool *p)
{
    return p->trains && p->team->down && p->down.rooms > 1 &&
           p->comm->size == 1 && p->num_seats == 1 &&
           p->kernels->side_new != NULL;
}

int dg_pool_beside(WeightPool *p, const Session *s)
{
    int room = 0, err;

    if (!goes_beside(p))
        return DG_OK;
    err = dg_trainer_room_beside(&room, s, 0);
    if (!err && room)
        err = dg_beside_create(&p->down.thread,
                               &(TeamOpts) { .backend = p->kernels });
    if (!err && !room)
        dg_info("gradients go to the host between blocks: no room for a "
                "stream");
    p->team->sends_early |= p->down.thread != NULL;
    return err;
}

/* What became of an item that has ended is known. */
void dg_pool_down_begin(WeightPool *p)
{
    dg_beside_finish(p->down.thread);
    dg_beside_start(p->down.thread, take_down, p);
    p->down.given = 0;
}

int dg_pool_down_room(WeightPool *p)
{
    return dg_beside_settle(p->down.thread, POOL_ROOMS - 1);
}

int dg_pool_down_give(WeightPool *p, const PoolJob *j)
{
    const int err = dg_beside_settle(p->down.thread, POOL_JOBS - 1);

    if (err)
        return err;
    p->down.job[p->down.given++ % POOL_JOBS] = *j;
    dg_beside_give(p->down.thread, 1);
    return DG_OK;
}

int dg_pool_down_end(WeightPool *p)
{
    return dg_beside_finish(p->down.thread);
}
