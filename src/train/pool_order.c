/* Which group of weights is wanted next. The walk over a network's blocks
 * repeats itself, forward and back: where it came from says which of both. */
#include "pool_internal.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

int dg_pool_order_init(PoolOrder *o, const PoolSet *sets, int num)
{
    for (int i = 0; i < num; i++) {
        o->of[i] =
            calloc((size_t)sets[i].params->num_groups + 1, sizeof *o->of[i]);
        if (o->of[i] == NULL)
            return dg_fail(DG_ENOMEM, "order of blocks");
    }
    return DG_OK;
}

void dg_pool_order_fini(PoolOrder *o)
{
    for (int i = 0; i < POOL_SETS; i++)
        free(o->of[i]);
}

/* Of the group asked for last: what it found when it came from there; or the
 * last one, the oldest. */
static PoolHabit *habit(const PoolOrder *o)
{
    PoolHabit *h =
        o->of[dg_pool_code_set(o->now)][dg_pool_code_group(o->now) - 1];
    int i = 0;

    while (i < POOL_HABITS - 1 && (h[i].after == 0 || h[i].before != o->before))
        i++;
    return &h[i];
}

void dg_pool_order_note(PoolOrder *o, int32_t code)
{
    if (code == o->now)
        return;
    if (o->now > 0) {
        PoolHabit *first =
            o->of[dg_pool_code_set(o->now)][dg_pool_code_group(o->now) - 1];

        memmove(first + 1, first, sizeof *first * (size_t)(habit(o) - first));
        *first = (PoolHabit) { o->before, code };
    }
    o->before = o->now;
    o->now = code;
}

int32_t dg_pool_order_guess(const PoolOrder *o)
{
    const PoolHabit *h = o->now > 0 ? habit(o) : NULL;

    return h != NULL && h->before == o->before ? h->after : 0;
}
