#include "diffusion/window.h"

#include "base/error.h"
#include "base/philox.h"

static int check(const WindowOpts *o, int end, int num_steps)
{
    const int drawn = o->move == DG_WINDOW_RANDOM;
    const int room = drawn ? end - o->start : end;

    if (o->end < 0 || o->end >= num_steps)
        return dg_fail(DG_EINVAL,
                       "sampler.window_end = %d: must be 0 (off) to %d (steps "
                       "- 1)",
                       o->end, num_steps - 1);
    if (o->start < 0 || o->start >= end)
        return dg_fail(DG_EINVAL, "sampler.window_start = %d: must be 0 to %d",
                       o->start, end - 1);
    if (o->size < 0 || o->size > room)
        return dg_fail(DG_EINVAL,
                       "sampler.window_size = %d: must be 0 (off) to %d, the "
                       "steps %s %d",
                       o->size, room, drawn ? "it may have before" : "before",
                       end);
    if (o->every < 0)
        return dg_fail(DG_EINVAL, "sampler.window_every = %d: must be >= 0",
                       o->every);
    if (drawn && o->every == 0)
        return dg_fail(DG_EINVAL, "sampler.window_move = random: needs "
                                  "sampler.window_every > 0");
    return DG_OK;
}

int dg_window_at(SdeWindow *out, const WindowOpts *o, int num_steps,
                 int64_t iteration)
{
    const int end = o->end > 0 ? o->end : num_steps - 1;
    int64_t moved;
    int start, err;

    if (num_steps < 2)
        return dg_fail(DG_EINVAL, "sampler.steps = %d: must be >= 2",
                       num_steps);
    if (o->size == 0) {
        *out = (SdeWindow) { 0, num_steps };
        return DG_OK;
    }
    err = check(o, end, num_steps);
    if (err)
        return err;
    moved = o->every > 0 ? iteration / o->every : 0;
    if (o->move == DG_WINDOW_RANDOM) {
        const RngKey key = { .seed = o->seed,
                             .purpose = DG_RNG_WINDOW,
                             .iteration = (uint32_t)moved };
        const int places = end - o->size - o->start + 1;

        start = o->start + (int)dg_rng_below((uint32_t)places, 0, &key);
    } else {
        start = (int)((o->start + moved % end) % end);
    }
    *out = (SdeWindow) { start, o->size < end - start ? o->size : end - start };
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

int dg_window_behind(int end, int num_steps, double part)
{
    /* 1e-9: a part such as 0.4 is not exact in binary */
    const int steps = (int)(part * (num_steps - end) + 1e-9);

    return steps < 1 ? 1 : steps;
}

int dg_window_solve(SdeStep *steps, const Schedule *s, const SdeWindow *w)
{
    int err = DG_OK;

    for (int i = w->start + w->size + 1; i < s->num_steps - 1 && !err; i++)
        err = dg_sde_step_init_2m(&steps[i], s, i);
    return err;
}
