#ifndef DG_DIFFUSION_SCHEDULE_H
#define DG_DIFFUSION_SCHEDULE_H
/*
 * Noise levels of a sampling run, and the times shown to the network.
 *
 * Flow (rectified flow, z = (1 - sigma) x + sigma noise), T steps:
 *   l_i = linspace(1, 0, T + 1) in float, symmetric about its middle;
 *   sigma_i = shift l_i / (1 + (shift - 1) l_i); sigma_0 = 1, sigma_T = 0;
 *   timestep_i = trunc(1000 sigma_i).
 * DDIM (Stable Diffusion 1.x): beta_i = linspace(sqrt .00085, sqrt .012,
 *   1000)^2, alpha_bar = cumprod(1 - beta); "leading" spacing with offset 1:
 *   timestep_j = (T - 1 - j) * (1000 / T) + 1, next time
 *   clamp(timestep_j - 1000 / T, 0, 999).
 * Sources: DanceGRPO eq. (3), its FLUX trainer's shifted table; diffusers
 * DDIMScheduler with Stable Diffusion v1.4's configuration.
 */
#include <stdint.h>

enum { DG_TRAIN_TIMES = 1000 }; /* integer timesteps of DDIM, 0..999 */

typedef enum ScheduleKind {
    DG_SCHEDULE_FLOW, /* velocity prediction */
    DG_SCHEDULE_DDIM  /* noise (epsilon) prediction */
} ScheduleKind;

/* What the network is given as its time. */
typedef enum ModelTime {
    DG_TIME_SIGMA,   /* sigma itself, in [0, 1], not quantised (flow only) */
    DG_TIME_INTEGER, /* the integer timestep, 0..1000 */
    DG_TIME_UNIT,    /* integer timestep / 1000 in float */
    DG_TIME_BF16     /* integer timestep / 1000 and the product with 1000
                        both rounded to bf16: FLUX as run by the reference */
} ModelTime;

typedef struct Schedule {
    ScheduleKind kind;
    int num_steps;         /* T: transitions of one trajectory */
    double shift;          /* flow: k */
    float *sigma;          /* [T + 1] flow: noise level, 1 .. 0; else NULL */
    int32_t *timestep;     /* [T] integer model times, falling */
    float *alpha_bar;      /* [T] DDIM: at timestep; else NULL */
    float *alpha_bar_next; /* [T] DDIM: after the step; else NULL */
} Schedule;

/**
 * Fills a rectified-flow schedule.
 * num_steps  T >= 1
 * shift      > 0; 1 leaves linspace as it is; refused when so extreme that
 *            two levels round to the same float
 * Not collective. Errors: DG_EINVAL naming sampler.steps or sampler.shift,
 * DG_ENOMEM; *out is then untouched. Release with dg_schedule_fini().
 */
int dg_schedule_init_flow(Schedule *out, int num_steps, double shift);

/**
 * A flow schedule whose steps behind level 'from' are fewer: l falls evenly from
 * there to 0 in num_steps, and is shifted as before. As many as there were are
 * those that there were.
 * out   has room for full's levels, as dg_schedule_init_flow() makes it
 * from  0 .. T - 1; num_steps 1 .. T - from, of full's T
 * Not collective. Breaking these panics.
 */
void dg_schedule_shorten(Schedule *out, const Schedule *full, int from,
                         int num_steps);

/**
 * Fills Stable Diffusion 1.x's DDIM schedule.
 * num_steps  1 <= T <= 999
 * Not collective. Errors: DG_EINVAL naming sampler.steps, DG_ENOMEM; *out is
 * then untouched. Release with dg_schedule_fini().
 */
int dg_schedule_init_ddim(Schedule *out, int num_steps);

/** Frees the tables; a zeroed or finished schedule is allowed. */
void dg_schedule_fini(Schedule *s);

/**
 * The time given to the network at step i, 0 <= i < T.
 * DG_TIME_SIGMA needs a flow schedule. Breaking either rule panics.
 */
float dg_schedule_time(const Schedule *s, int i, ModelTime mode);

/** The same for integer timestep t, 0..1000, of any schedule; mode is not
 *  DG_TIME_SIGMA, which panics. */
float dg_schedule_time_of(int32_t t, ModelTime mode);

/** alpha_bar of Stable Diffusion 1.x at integer time t, 0..999 (float table,
 *  running product in double). alpha_bar: [DG_TRAIN_TIMES] out. */
void dg_schedule_alpha_bar_table(float *alpha_bar);

#endif
