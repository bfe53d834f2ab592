#ifndef DG_DIFFUSION_SDE_H
#define DG_DIFFUSION_SDE_H
/*
 * One denoising step as a policy: mean, standard deviation, log-density.
 *
 * Every kind is affine in the latent z and the network's output u, with the
 * same two numbers for all elements:
 *   mu = mean_z z + mean_u u,   z_next = mu + std noise,   noise ~ N(0, I)
 * u is a velocity (noise - x) on a flow schedule, a noise prediction on a
 * DDIM schedule. With Delta = sigma_next - sigma < 0 and eps the diffusion
 * coefficient (the paper's eps_t):
 *   ode       mu = z + Delta u; on a DDIM schedule DDIM with eta = 0
 *   dance     mu = z (1 + eps^2 Delta / (2 sigma))
 *                + u Delta (1 + eps^2 (1 - sigma) / (2 sigma)),
 *             std = eps sqrt(-Delta), eps = eta
 *   flow_sde  the same with eps = eta sqrt(sigma / (1 - sigma)); where
 *             sigma = 1 the denominator takes sigma_1 of the schedule
 *   cps       x0 = z - sigma u, x1 = z + (1 - sigma) u,
 *             std = sigma_next sin(eta pi / 2),
 *             mu = (1 - sigma_next) x0 + sqrt(sigma_next^2 - std^2) x1
 *   ddim      x0 = (z - sqrt(1 - a) u) / sqrt(a), a = alpha_bar,
 *             std^2 = eta^2 (1 - a_next)/(1 - a) (1 - a / a_next),
 *             mu = sqrt(a_next) x0 + sqrt(1 - a_next - std^2) u
 * eta = 0 gives exactly the ode coefficients of the schedule. A step of second
 * order of the ode on a flow schedule, DPM-Solver++ (2M), goes on from what the
 * step before predicted, too, x0 = z - sigma u there. With lambda =
 * ln((1 - sigma) / sigma), h this step's and h_before the last one's, c = h /
 * (2 h_before) and q = sigma_next / sigma,
 *             z_next = q z + (1 - q) ((1 + c) x0 - c x0_before)
 *                    = mean_z z + mean_u u + mean_x0 x0_before
 * c = 0 is the ode's step.
 * Sources: DanceGRPO eq. (7), (8); Flow-GRPO; Flow-CPS arXiv:2509.05952;
 * DDIM eq. (12), (16); DPM-Solver++, arXiv:2211.01095, Algorithm 2.
 *
 * A kernel works on one sample of D elements; samples never meet. Sums run
 * in the fixed order of base/lanes.h, in double, so a result depends on the
 * inputs alone. Arithmetic per element is float, without contraction.
 * None of these functions is collective.
 */
#include <stdint.h>

#include "config/choices.h"
#include "diffusion/schedule.h"

typedef enum LogProbForm {
    DG_LOG_PROB_GAUSSIAN, /* -(z' - mu)^2/(2 std^2) - ln std - ln(2 pi)/2 */
    DG_LOG_PROB_SQUARED   /* -(z' - mu)^2, constants dropped (Flow-CPS) */
} LogProbForm;

typedef struct SdeOpts {
    SdeKind kind;
    LogProbForm log_prob;
    double eta; /* eps (dance), a (flow_sde, cps), eta (ddim); >= 0 */
} SdeOpts;

typedef struct SdeStep {
    SdeKind kind;
    int index;        /* i: from level i to level i + 1 */
    int stochastic;   /* 0: std = 0, z_next = mu, no log-density */
    float sigma;      /* flow: noise level; ddim: sqrt(1 - alpha_bar) */
    float sigma_next; /* the same after the step */
    float mean_z;     /* d mu / d z */
    float mean_u;     /* d mu / d u, the spec's kappa */
    float std;        /* of z_next given z */
    float x0_z, x0_u; /* decoded x0 = x0_z z + x0_u u */
    int multistep;    /* 1: + mean_x0 x0_before, by who runs the steps */
    float mean_x0;
    double precision; /* log_prob = offset - precision/2 mean (z' - mu)^2 */
    double offset;    /* -ln std - ln(2 pi)/2, or 0 (squared form) */
    double inv_var;   /* 1 / std^2; 0 when deterministic. For the KL term */
} SdeStep;

/** The name in a configuration: "ode", "dance", "flow_sde", "cps", "ddim". */
const char *dg_sde_kind_name(SdeKind kind);

/**
 * Coefficients of step index of schedule s.
 * index  0 <= index < s->num_steps
 * o->kind must fit the schedule: dance, flow_sde and cps need a flow, ddim
 * needs DDIM, ode takes both.
 * Errors: DG_EINVAL naming sampler.sde or sampler.eta (eta negative or not
 * finite, cps above 1, ddim so large that no variance is left for u); *out
 * is then untouched.
 */
int dg_sde_step_init(SdeStep *out, const SdeOpts *o, const Schedule *s,
                     int index);

/**
 * The step of DPM-Solver++ (2M) that goes on from step index - 1, in data
 * prediction; the ode's where either ends of both are infinitely far in lambda:
 * sigma_next = 0, or sigma = 1 before.
 * index  1 <= index < s->num_steps
 * Errors: DG_EINVAL for another index or a DDIM schedule.
 */
int dg_sde_step_init_2m(SdeStep *out, const Schedule *s, int index);

/**
 * mu of the transition.
 * mean, z, u  [D] f32; mean may alias z or u
 */
void dg_sde_mean(float *mean, const SdeStep *s, const float *z, const float *u,
                 int64_t D);

/**
 * Draws the next latent: z_next = mu + std noise.
 * z_next, z, u  [D] f32; z_next may alias z, u or noise
 * noise         [D] f32, N(0, 1); unused (may be NULL) when deterministic
 */
void dg_sde_next(float *z_next, const SdeStep *s, const float *z,
                 const float *u, const float *noise, int64_t D);

/**
 * Log-density of a stored next latent, in nats per element: the mean over D,
 * not the sum (DanceGRPO's objective; the sum overflows the ratio).
 * Rollout and replay both call this with the stored (z, u, z_next), which
 * makes their ratio exactly 1 before the first update. Deterministic: 0.
 */
float dg_sde_log_prob(const SdeStep *s, const float *z, const float *u,
                      const float *z_next, int64_t D);

/**
 * Noise-free estimate of the data: z - sigma u (flow). Of the last step this
 * is what is decoded.
 * x0, z, u  [D] f32; x0 may alias z or u
 */
void dg_sde_x0(float *x0, const SdeStep *s, const float *z, const float *u,
               int64_t D);

/**
 * grad_u = coef (z_next - mu): with coef = kappa precision / D this is
 * d log_prob / d u. z_next counts as a constant.
 * grad_u  [D] f32 out; may alias z, u or z_next
 */
void dg_sde_grad_u(float *grad_u, const SdeStep *s, const float *z,
                   const float *u, const float *z_next, double coef, int64_t D);

/**
 * KL divergence per element between the transitions of two outputs of the
 * network at the same z: mean (mu - mu_ref)^2 / (2 std^2), exactly 0 for
 * u == u_ref. Deterministic step: 0.
 * u, u_ref  [D] f32
 */
double dg_sde_kl(const SdeStep *s, const float *u, const float *u_ref,
                 int64_t D);

/** grad_u += coef (u - u_ref): with coef = beta kappa^2 / (std^2 D) the
 *  gradient of beta times dg_sde_kl() with respect to u. [D] f32 each. */
void dg_sde_grad_kl(float *grad_u, const float *u, const float *u_ref,
                    double coef, int64_t D);

#endif
