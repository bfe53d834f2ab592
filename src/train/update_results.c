/* What the terms of an update came to, on all ranks. */
#include "update_internal.h"

#include "base/error.h"
#include "base/log.h"

#include <math.h>

/* Promise 1: before the first update every replayed ratio is exactly 1. */
int dg_update_check_ratio(const UpdateJob *job, int index)
{
    const Update *u = job->update;
    const Rollout *r = job->rollout;

    if (index != 0)
        return DG_OK;
    for (int64_t k = 0; k < u->num_kept; k++) {
        const int64_t item = u->kept[k];

        if (u->belongs[k] != 0 || u->set_aside[k])
            continue;
        for (int j = 0; j < u->steps_per_item; j++) {
            const StepResult *res = &u->result[k * u->steps_per_item + j];

            if (res->ratio != 1)
                return dg_fail(
                    DG_EPROMISE,
                    "iteration %lld, prompt %lld, sample %lld, timestep %d: "
                    "ratio %.17g before the first update: must be exactly 1",
                    (long long)r->iteration + 1,
                    (long long)r->prompt[item / r->G], (long long)(item % r->G),
                    res->step, res->ratio);
        }
    }
    return DG_OK;
}

void dg_update_share(const UpdateJob *job)
{
    Update *u = job->update;
    const Comm *c = job->session->comm;
    const size_t row = sizeof *u->result * (size_t)u->steps_per_item;
    int64_t counts[c->size];
    int64_t firsts[2] = { u->first_kept, u->num_local }, all[2 * c->size];

    dg_comm_allgather(c, all, firsts, sizeof firsts);
    for (int i = 0; i < c->size; i++)
        counts[i] = all[2 * i + 1];
    dg_comm_allgatherv(c, u->result,
                       (char *)u->result + u->first_kept * (int64_t)row, counts,
                       row);
    dg_comm_allgatherv(c, u->set_aside, u->set_aside + u->first_kept, counts,
                       sizeof *u->set_aside);
}

/* 1 if the update has a term that pulls by its advantage. */
static int pulls(const Update *u, int index)
{
    for (int64_t k = 0; k < u->num_kept; k++) {
        if (u->belongs[k] != index % u->num_parts || u->set_aside[k] ||
            u->total[u->kept[k]] == 0)
            continue;
        for (int j = 0; j < u->steps_per_item; j++) {
            const StepResult *res = &u->result[k * u->steps_per_item + j];

            if (res->seeded && !res->clipped)
                return 1;
        }
    }
    return 0;
}

/* Each of an item's values is rounded by up to half a unit of the sum: a norm of
 * sqrt(num items / 12) units. A hundredth of the gradient's does not show. */
void dg_update_tell_small(const UpdateJob *job, const ExactSum *sum, int index,
                          double norm)
{
    Update *u = job->update;
    const double lost =
        ldexp(sqrt((double)job->learner->num * (double)sum->items / 12),
              -sum->scale_bits);

    if (!job->session->config->parallel.exact_sum || u->told_small ||
        norm > 100 * lost || !pulls(u, index))
        return;
    u->told_small = 1;
    dg_warn(
        "iteration %lld, update %d: the gradient is so small that its sum, in "
        "units of 2^-%d, loses a part that counts: its norm is %.3g, that of "
        "what is rounded away %.2g. Larger weights of rewards keep it, or "
        "parallel.exact_sum = false",
        (long long)job->rollout->iteration + 1, index + 1, sum->scale_bits,
        norm, lost);
}
