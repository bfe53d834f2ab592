#ifndef DG_GRPO_TIMESTEPS_H
#define DG_GRPO_TIMESTEPS_H
/*
 * Which of a trajectory's T transitions are trained.
 *
 * Candidates are the stochastic steps of the window that are not the last
 * step T - 1: 0..T-2 when the window is off. K is their number. Source:
 * DanceGRPO Algorithm 1 (ceil(tau T), one subset per prompt) and its code
 * (floor(tau (T - 1)), one per sample).
 */
#include <stdint.h>

#include "diffusion/window.h"

typedef enum TimestepMode {
    DG_TIMESTEPS_RANDOM, /* a random subset, in random order */
    DG_TIMESTEPS_FIRST,  /* the noisiest */
    DG_TIMESTEPS_LAST,   /* the least noisy */
    DG_TIMESTEPS_ALL,    /* all candidates; fraction is unused */
    DG_TIMESTEPS_WINDOW  /* all candidates of a mixed ODE-SDE window */
} TimestepMode;

typedef enum TimestepCount {
    DG_TIMESTEPS_FLOOR_K, /* floor(fraction K) */
    DG_TIMESTEPS_CEIL_T   /* min(K, ceil(fraction T)) */
} TimestepCount;

typedef enum TimestepScope {
    DG_TIMESTEPS_PER_SAMPLE,
    DG_TIMESTEPS_PER_GROUP /* one subset for all samples of a prompt */
} TimestepScope;

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

#endif
