#include "grpo/timesteps.h"

#include <math.h>

#include "base/error.h"
#include "base/philox.h"

/* Stochastic steps before the last one; they start at w->start. */
static int num_candidates(int num_steps, const SdeWindow *w)
{
    const int end = w->start + w->size;

    return (end < num_steps ? end : num_steps - 1) - w->start;
}

int dg_timesteps_count(int *out, const TimestepOpts *o, int num_steps,
                       const SdeWindow *w)
{
    const int K = num_candidates(num_steps, w);
    int count = K;

    if (K < 1)
        return dg_fail(DG_EINVAL,
                       "sampler.steps = %d: no step is left to train",
                       num_steps);
    if (o->mode == DG_TIMESTEP_WINDOW && w->size >= num_steps)
        return dg_fail(DG_EINVAL, "grpo.timestep_mode = window: needs "
                                  "sampler.window_size > 0");
    if (o->mode != DG_TIMESTEP_ALL && o->mode != DG_TIMESTEP_WINDOW) {
        if (!(o->fraction > 0 && o->fraction <= 1))
            return dg_fail(DG_EINVAL,
                           "grpo.timestep_fraction = %g: must be in (0, 1]",
                           o->fraction);
        /* 1e-9: a fraction such as 0.6 is not exact in binary */
        if (o->count == DG_COUNT_CEIL_T)
            count = (int)ceil(o->fraction * num_steps - 1e-9);
        else
            count = (int)floor(o->fraction * K + 1e-9);
        if (count > K)
            count = K;
        if (count < 1)
            return dg_fail(DG_EINVAL,
                           "grpo.timestep_fraction = %g: leaves none of %d "
                           "steps, must be >= %g",
                           o->fraction, K, 1.0 / K);
    }
    *out = count;
    return DG_OK;
}

int dg_timesteps_select(int32_t *steps, const TimestepOpts *o, int num_steps,
                        const SdeWindow *w, TimestepPlace place)
{
    const int K = num_candidates(num_steps, w);
    int count = 0, first = w->start;
    const int err = dg_timesteps_count(&count, o, num_steps, w);

    if (err)
        return err;
    if (o->mode == DG_TIMESTEP_RANDOM) {
        const int shared = o->scope == DG_SCOPE_GROUP;
        const RngKey key = { .seed = o->seed,
                             .purpose = DG_RNG_TIMESTEPS,
                             .iteration = place.iteration,
                             .prompt = place.prompt,
                             .sample = shared ? 0 : place.sample };

        dg_rng_permutation(steps, K, &key);
        for (int i = 0; i < count; i++)
            steps[i] += w->start;
        return DG_OK;
    }
    if (o->mode == DG_TIMESTEP_LAST)
        first += K - count;
    for (int i = 0; i < count; i++)
        steps[i] = first + i;
    return DG_OK;
}

static double size_of(const SdeStep *s, TimestepWeight how)
{
    switch (how) {
    case DG_WEIGHT_NONE:
        return 1;
    case DG_WEIGHT_STD:
        return s->std;
    case DG_WEIGHT_LENGTH:
        return 1 / ((double)s->sigma - (double)s->sigma_next);
    }
    dg_panic("timestep weight %d is not in the table", (int)how);
}

void dg_timesteps_weigh(double *weight, TimestepWeight how,
                        const SdeStep *steps, int num_steps, const SdeWindow *w)
{
    const int K = num_candidates(num_steps, w);
    double sum = 0;

    for (int i = 0; i < K; i++)
        sum += size_of(&steps[w->start + i], how);
    for (int i = 0; i < num_steps; i++)
        weight[i] = sum > 0 ? size_of(&steps[i], how) * K / sum : 1;
}
