#include "update_stats.h"

#include <math.h>

void dg_update_stats_begin(UpdateStats *s)
{
    *s = (UpdateStats) { .ratio_max_deviation = NAN,
                         .ratio_min = NAN,
                         .ratio_max = NAN };
}

/* A term of an update after the first. */
static void add_later(UpdateStats *s, const StepResult *res, double terms)
{
    s->later_terms++;
    s->approx_kl += res->approx_kl;
    s->ratio_min = fmin(s->ratio_min, res->ratio); /* NAN gives way */
    s->ratio_max = fmax(s->ratio_max, res->ratio);
    if (res->ratio < 1)
        s->clip_low += res->clipped / terms;
    else
        s->clip_high += res->clipped / terms;
}

void dg_update_stats_add(UpdateStats *s, const Update *u, int index)
{
    const double terms =
        (double)u->num_kept * (double)u->steps_per_item * (double)u->epochs;

    for (int64_t k = 0; k < u->num_kept; k++) {
        if (u->belongs[k] != index % u->num_parts)
            continue;
        s->set_aside += u->set_aside[k] != 0;
        for (int j = 0; j < u->steps_per_item && !u->set_aside[k]; j++) {
            const StepResult *res = &u->result[k * u->steps_per_item + j];
            const double off = fabs(res->ratio - 1);

            if (index == 0) /* NAN gives way */
                s->ratio_max_deviation = fmax(s->ratio_max_deviation, off);
            s->clip_fraction += res->clipped / terms;
            s->loss += res->loss / u->num_updates;
            s->kl += res->kl / terms;
            if (index > 0)
                add_later(s, res, terms);
        }
    }
}

void dg_update_stats_end(UpdateStats *s)
{
    s->approx_kl =
        s->later_terms > 0 ? s->approx_kl / (double)s->later_terms : NAN;
}
