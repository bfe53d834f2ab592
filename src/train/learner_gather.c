/* Weights that no rank has whole, on the host of all, a piece at a time. */
#include "train/learner.h"

#include "base/error.h"

int dg_learner_in_ranges(const Learner *l)
{
    const Policy *p = l->policy;

    return l->pool != NULL || (p->dropped > 0 && p->stored != NULL &&
                               dg_shard_split(&l->place.shard));
}

int dg_learner_gather(const Learner *l, const Comm *c, float *to, int64_t first,
                      int64_t num)
{
    const Policy *p = l->policy;
    int err = DG_OK;

    if (!dg_learner_in_ranges(l))
        return dg_agree(c, dg_policy_get(p, to, first, num));
    for (int r = 0; r < c->size && !err; r++) {
        const ShardRange of = { first, num };
        float *at;
        int64_t from, here;

        dg_shard_overlap(&l->place.shard, r, &of, &from, &here);
        if (here == 0)
            continue;
        at = to + (from - first);
        err = dg_agree(c,
                       r == c->rank ? dg_policy_get(p, at, from, here) : DG_OK);
        if (!err)
            dg_comm_bcast(c, at, sizeof *to * (size_t)here, r);
    }
    return err;
}
