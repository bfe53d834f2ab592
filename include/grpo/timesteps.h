#ifndef DG_GRPO_TIMESTEPS_H
#define DG_GRPO_TIMESTEPS_H
/*
 * Which of a trajectory's T transitions are trained.
 *
 * Candidates are the stochastic steps of the window that are not the last
 * step T - 1: 0..T-2 when the window is off. K is their number. Source:
 * DanceGRPO Algorithm 1 (ceil(tau T), one subset per prompt) and its code
 * (floor(tau (T - 1)), one per sample).
 *
 * Modes: random, a random subset in random order; first, the noisiest; last,
 * the least noisy; all and window, every candidate, where window insists on
 * a mixed ODE-SDE window. Counts: floor_k, floor(fraction K); ceil_t,
 * min(K, ceil(fraction T)). Scopes: sample; group, one subset for all
 * samples of a prompt.
 */
#include <stdint.h>

#include "config/choices.h"
#include "diffusion/window.h"

typedef struct TimestepOpts {
    TimestepMode mode;
    TimestepCount count;
    TimestepScope scope;
    double fraction; /* tau in (0, 1] */
    uint64_t seed;
} TimestepOpts;

/* The place of a sample in the run: keys of its random subset. */
typedef struct TimestepPlace {
    uint32_t iteration, prompt, sample;
} TimestepPlace;

/**
 * How many steps dg_timesteps_select() gives: the same for every sample.
 * num_steps  T >= 2
 * w          from dg_window_at() with the same T
 * Not collective. Errors: DG_EINVAL naming grpo.timestep_mode or
 * grpo.timestep_fraction (also when no step would be left); *out is then
 * untouched.
 */
int dg_timesteps_count(int *out, const TimestepOpts *o, int num_steps,
                       const SdeWindow *w);

/**
 * The trained steps of one sample, distinct, a pure function of its
 * arguments (numbers of purpose DG_RNG_TIMESTEPS).
 * steps  [num_steps] i32, of which the first count are the result; the rest
 *        is scratch
 * Not collective. Errors: those of dg_timesteps_count().
 */
int dg_timesteps_select(int32_t *steps, const TimestepOpts *o, int num_steps,
                        const SdeWindow *w, TimestepPlace place);

/**
 * Factors of the steps' advantages, whose mean over the steps that may be trained
 * is 1. none: 1 each. std: the standard deviation of a step's transition
 * (TempFlow-GRPO, arXiv:2508.04324): the gradient of a log-density goes as
 * 1 / std, so that steps of little noise would else count most. length: 1 by
 * sigma - sigma_next (GRPO-Guard, arXiv:2510.22319): the mean moves with the
 * velocity as that does, so that long steps would else count most.
 * weight, steps  [num_steps]
 */
void dg_timesteps_weigh(double *weight, TimestepWeight how,
                        const SdeStep *steps, int num_steps,
                        const SdeWindow *w);

#endif
