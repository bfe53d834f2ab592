#include "diffusion/window.h"

#include <math.h>

#include "base/error.h"
#include "base/philox.h"

static int check_slide(const WindowOpts *o)
{
    if (o->stride < 0)
        return dg_fail(DG_EINVAL, "sampler.window_stride = %d: must be >= 1",
                       o->stride);
    if (o->decay == DG_WINDOW_EVEN)
        return DG_OK;
    if (o->move != DG_WINDOW_SLIDE || o->every == 0)
        return dg_fail(DG_EINVAL, "sampler.window_decay = linear or exp: needs "
                                  "sampler.window_move = slide and "
                                  "sampler.window_every > 0");
    if (o->decay == DG_WINDOW_LINEAR && (o->least < 1 || o->least > o->every))
        return dg_fail(DG_EINVAL,
                       "sampler.window_every_least = %d: must be 1 to %d, "
                       "sampler.window_every",
                       o->least, o->every);
    if (o->decay == DG_WINDOW_EXP && !(o->rate >= 0))
        return dg_fail(DG_EINVAL,
                       "sampler.window_decay_rate = %g: must be >= 0", o->rate);
    return DG_OK;
}

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
    return check_slide(o);
}

/* Where it is, and since when. */
typedef struct Place {
    int64_t since;
    int start;
} Place;

/* Iterations that it stays at a place. */
static int64_t stay(const WindowOpts *o, int place, int end)
{
    const double part = (double)place / end;
    double length = o->every;

    if (o->decay == DG_WINDOW_LINEAR)
        length = floor(o->every * (1 - part) + o->least * part);
    if (o->decay == DG_WINDOW_LINEAR && length < o->least)
        length = o->least;
    if (o->decay == DG_WINDOW_EXP && place > o->from)
        length = ceil(o->every * exp(-o->rate * (place - o->from)));
    return length < 1 ? 1 : (int64_t)length;
}

static int stride_of(const WindowOpts *o)
{
    return o->stride > 0 ? o->stride : 1;
}

/* From a place at an iteration on to another iteration, or past the end. */
static Place go_on(const WindowOpts *o, int end, Place at, int64_t to)
{
    while (at.start < end && to - at.since >= stay(o, at.start, end)) {
        at.since += stay(o, at.start, end);
        at.start += stride_of(o);
    }
    return at;
}

static Place slide(const WindowOpts *o, int end, int64_t iteration)
{
    Place at = go_on(o, end, (Place) { 0, o->start }, iteration);
    int64_t pass;

    if (at.start < end)
        return at;
    if (o->no_wrap)
        return (Place) { at.since - stay(o, at.start - stride_of(o), end),
                         at.start - stride_of(o) };
    pass = go_on(o, end, (Place) { 0, 0 }, INT64_MAX).since;
    at.since += (iteration - at.since) / pass * pass;
    return go_on(o, end, (Place) { at.since, 0 }, iteration);
}

static Place draw(const WindowOpts *o, int end, int64_t iteration)
{
    const RngKey key = { .seed = o->seed,
                         .purpose = DG_RNG_WINDOW,
                         .iteration = (uint32_t)(iteration / o->every) };
    const int places = end - o->size - o->start + 1;

    return (Place) { iteration / o->every * o->every,
                     o->start + (int)dg_rng_below((uint32_t)places, 0, &key) };
}

static int end_of(const WindowOpts *o, int num_steps)
{
    return o->end > 0 ? o->end : num_steps - 1;
}

int dg_window_at(SdeWindow *out, const WindowOpts *o, int num_steps,
                 int64_t iteration)
{
    const int end = end_of(o, num_steps);
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
    start = o->start;
    if (o->every > 0)
        start = (o->move == DG_WINDOW_RANDOM ? draw : slide)(o, end, iteration)
                    .start;
    *out = (SdeWindow) { start, o->size < end - start ? o->size : end - start };
    return DG_OK;
}

int64_t dg_window_next(const WindowOpts *o, int num_steps, int64_t iteration)
{
    const int end = end_of(o, num_steps);
    Place at;

    if (o->size == 0 || o->every == 0)
        return INT64_MAX;
    if (o->move == DG_WINDOW_RANDOM)
        return draw(o, end, iteration).since + o->every;
    at = slide(o, end, iteration);
    if (o->no_wrap && at.start + stride_of(o) >= end)
        return INT64_MAX;
    return at.since + stay(o, at.start, end);
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
