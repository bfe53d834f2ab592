/* GRPO-Guard: where the rollout's mean was. */
#include "update_internal.h"

int64_t dg_update_guard_rows(const Config *c)
{
    return c->grpo.ratio == DG_RATIO_GUARD && dg_update_number(c) > 1
               ? 1 + c->grpo.micro_batch
               : 0;
}

float *dg_update_rollout_u(Worker *w, const UpdateJob *job, int64_t item,
                           const SdeStep *const *steps, int64_t num)
{
    const Rollout *r = job->rollout;
    const int64_t D = r->D;
    float *noise = w->room, *u = noise + D;
    RngKey key = dg_rollout_noise(r, job->session->config, item);

    for (int64_t b = 0; b < num; b++) {
        const SdeStep *s = steps[b];
        const float *z = dg_rollout_latent(r, item, s->index);
        const double k = s->mean_u;
        const SdeStep back = { .stochastic = 1,
                               .mean_z = (float)(-s->mean_z / k),
                               .mean_u = (float)(1 / k),
                               .std = (float)(-s->std / k) };

        key.step = (uint32_t)s->index;
        w->engine->next(u + b * D, &back, z, z + D, &key, noise, D);
    }
    return u;
}
