#ifndef DG_DIFFUSION_WINDOW_H
#define DG_DIFFUSION_WINDOW_H
/*
 * Mixed ODE-SDE sampling: only the steps of a window are stochastic (and
 * trained), all others follow the ODE. The window moves over the trainable
 * steps 0..T-2, or those before an end, as training goes on: on by a stride and
 * from the last place to 0, or to a place that is drawn. How long it stays may
 * depend on where it is.
 * Sources: MixGRPO, progressive, decay, exp_decay and random; its window may end
 * up empty at the end, ours is clipped to at least one step and the end is never
 * a place. Flow-GRPO-Fast draws, too. The steps
 * behind the window, which nothing is trained on, may be fewer and of second
 * order (MixGRPO-Flash).
 */
#include <stdint.h>

#include "config/choices.h"
#include "diffusion/sde.h"

typedef struct WindowOpts {
    int start; /* first position; the lowest one where it is drawn */
    int size;  /* w: steps in the window; 0: off, every step is stochastic */
    int every; /* iterations between two moves; 0: fixed */
    int end;   /* it stays before this step, 1..T-1; 0: T - 1 */
    WindowMove move;
    uint64_t seed; /* of where it is drawn */
    /* slide: */
    int stride;  /* steps of a move; 0: 1 */
    int no_wrap; /* it stays at the last place, else goes on at step 0 */
    WindowDecay decay;
    int least;   /* linear: iterations that it would stay at the end */
    int from;    /* exp: the step up to which it stays for 'every' */
    double rate; /* exp: > 0 decays */
} WindowOpts;

typedef struct SdeWindow {
    int start; /* first stochastic step */
    int size;  /* stochastic steps from there */
} SdeWindow;

/**
 * The window of an iteration. Off: all num_steps steps. Else
 * - sliding, it begins at start, start + stride, ... < end, then at 0, stride,
 *   ... < end again and again, and holds min(size, end - begin) >= 1 steps. With
 *   step t for its first it stays for
 *     even    every
 *     linear  max(least, floor(every (1 - t / end) + least t / end))
 *     exp     ceil(every exp(-rate max(0, t - from)))
 *   iterations, at least one: MixGRPO's formulas, whose M is 'end', worked out
 *   in double precision in its order, since floor shows the last bit;
 * - drawn, it begins at one of start .. end - size, as likely as any other, drawn
 *   again after 'every' iterations, and holds size steps.
 * It depends on nothing but the options and the iteration.
 * num_steps  T >= 2
 * iteration  >= 0
 * Not collective. Errors: DG_EINVAL naming the sampler.window key; *out is
 * then untouched.
 */
int dg_window_at(SdeWindow *out, const WindowOpts *o, int num_steps,
                 int64_t iteration);

/**
 * The first iteration after this one in which the window has moved or is drawn
 * anew; INT64_MAX where it never does.
 * As dg_window_at(), which must take these options. Not collective.
 */
int64_t dg_window_next(const WindowOpts *o, int num_steps, int64_t iteration);

/** 1 if step i is in the window. */
int dg_window_has(const SdeWindow *w, int i);

/**
 * All steps of a trajectory: kind o->kind inside the window, ode outside.
 * steps  [s->num_steps] out
 * Not collective. Errors: those of dg_sde_step_init().
 */
int dg_window_steps(SdeStep *steps, const SdeOpts *o, const Schedule *s,
                    const SdeWindow *w);

/**
 * Steps that are taken behind a window that ends before step 'end', of T - end
 * that there are: the whole part of their 'part', at least one.
 * 1 <= end < num_steps; 0 < part <= 1
 */
int dg_window_behind(int end, int num_steps, double part);

/**
 * Steps behind the window, after dg_window_steps(), to those of DPM-Solver++
 * (2M) where there is a step behind it before and one after them: the first,
 * which has nothing to go on from that has no noise, and the last, to sigma 0,
 * stay the ode's.
 * Not collective. Errors: those of dg_sde_step_init_2m().
 */
int dg_window_solve(SdeStep *steps, const Schedule *s, const SdeWindow *w);

#endif
