/* Weights that no rank has whole, on the host of all, a piece at a time. */
#include "train/learner.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/value_digest.h"

#include <stdlib.h>

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

/* Those of a range, a piece at a time. */
static int digest_range(const Learner *l, int64_t first, int64_t num,
                        uint64_t *digest)
{
    enum { PIECE = 1 << 20 };
    float *piece = dg_memory_new(sizeof *piece * PIECE);
    int err =
        piece != NULL ? DG_OK : dg_fail(DG_ENOMEM, "a digest of the weights");

    *digest = 0;
    for (int64_t at = 0; at < num && !err; at += PIECE) {
        const int64_t n = num - at < PIECE ? num - at : PIECE;

        err = dg_policy_get(l->policy, piece, first + at, n);
        if (!err)
            *digest += dg_value_digest(first + at, piece, n);
    }
    free(piece);
    return err;
}

int dg_learner_value_digest(const Learner *l, const Comm *c, uint64_t *digest)
{
    const Shard *s = &l->place.shard;
    int64_t first = s->first, num = s->num, sum;
    uint64_t mine;
    int err;

    if (!dg_shard_split(s)) /* all have all */
        dg_share_range(l->num, c->rank, c->size, &first, &num);
    err = dg_agree(c, digest_range(l, first, num, &mine));
    if (err)
        return err;
    sum = (int64_t)mine; /* modulo 2^64 */
    dg_comm_sum_i64(c, &sum, 1);
    *digest = (uint64_t)sum;
    return DG_OK;
}

/* By the last rank, which has them wherever weights are in ranges. */
int dg_learner_text_digest(const Learner *l, const Comm *c, uint64_t *digest)
{
    const int has = c->rank == c->size - 1;
    const int64_t num = has ? l->policy->num_values - l->num : 0;
    const int err = dg_agree(c, digest_range(l, l->num, num, digest));

    dg_comm_bcast(c, digest, sizeof *digest, c->size - 1);
    return err;
}
