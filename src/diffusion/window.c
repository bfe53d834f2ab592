#include "diffusion/window.h"

#include "base/error.h"

int dg_window_at(SdeWindow *out, const WindowOpts *o, int num_steps,
                 int64_t iteration)
{
    const int trainable = num_steps - 1;

    if (num_steps < 2)
        return dg_fail(DG_EINVAL, "sampler.steps = %d: must be >= 2",
                       num_steps);
    if (o->size < 0 || o->size > trainable)
        return dg_fail(
            DG_EINVAL,
            "sampler.window_size = %d: must be 0 (off) to %d (steps - 1)",
            o->size, trainable);
    if (o->size == 0) {
        *out = (SdeWindow) { 0, num_steps };
        return DG_OK;
    }
    if (o->start < 0 || o->start >= trainable)
        return dg_fail(DG_EINVAL, "sampler.window_start = %d: must be 0 to %d",
                       o->start, trainable - 1);
    if (o->every < 0)
        return dg_fail(DG_EINVAL, "sampler.window_every = %d: must be >= 0",
                       o->every);

    const int64_t moved = o->every > 0 ? iteration / o->every : 0;
    const int start = (int)((o->start + moved % trainable) % trainable);
    const int left = trainable - start;

    *out = (SdeWindow) { start, o->size < left ? o->size : left };
    return DG_OK;
}

int dg_window_has(const SdeWindow *w, int i)
{
    return i >= w->start && i < w->start + w->size;
}

int dg_window_steps(SdeStep *steps, const SdeOpts *o, const Schedule *s,
                    const SdeWindow *w)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE, .log_prob = o->log_prob };

    for (int i = 0; i < s->num_steps; i++) {
        const SdeOpts *use = dg_window_has(w, i) ? o : &ode;
        const int err = dg_sde_step_init(&steps[i], use, s, i);

        if (err)
            return err;
    }
    return DG_OK;
}
