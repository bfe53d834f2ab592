#ifndef DG_GRPO_OBJECTIVE_H
#define DG_GRPO_OBJECTIVE_H
/*
 * The clipped objective of one (sample, step), and its gradient seed.
 *
 *   ratio = exp(log_prob - log_prob_old), A clamped to +-advantage_clip,
 *   l(A)  = max(-A ratio, -A clamp(ratio, 1 - low, 1 + high))
 * sum, reward_sum: loss = l(sum_k w_k A^k)
 * per_reward mode: loss = sum_k w_k l(A^k), each A^k clamped by itself
 * times the step's weight, plus kl_beta KL(new || reference) per element. All
 * divided by the number
 * of terms of the update, which the caller knows.
 *   d loss / d mu = -A ratio m (z_next - mu) precision / D,  d/du = kappa ..
 * with m = 0 where the clip is active (A > 0 and ratio > 1 + high, A < 0 and
 * ratio < 1 - low), else 1. z_next counts as a constant.
 * guard: ratio = exp(std (log_prob - log_prob_old + drift)). With noise n of the
 * rollout and mu moved by d the plain logarithm is mean(n d) / std - mean(d^2) /
 * (2 std^2), whose second part, the drift, is never positive and grows with D's
 * elements alike; guard's is mean(n d) alone, of one size for all steps. Its
 * gradient is the plain one's, and that of the drift, kappa^2 (u - u_old) / (std^2
 * D). log_prob is Gaussian then.
 * Sources: PPO, arXiv:1707.06347; its clip by sides, DAPO, arXiv:2503.14476;
 * GRPO-Guard, arXiv:2510.22319; DanceGRPO eq. (9); per_reward: its HunyuanVideo trainer.
 */
#include <stdint.h>

#include "config/choices.h"
#include "diffusion/sde.h"

/* What a ratio may be, 1 - low to 1 + high, and still have a gradient. */
typedef struct ClipRange {
    double low, high; /* > 0 */
} ClipRange;

typedef struct ObjectiveOpts {
    ClipRange clip;
    double advantage_clip; /* > 0; 0: no clamp */
    AdvantageAgg agg;
    double kl_beta;        /* 0: off */
    int num_rewards;       /* K */
    const double *weights; /* [K]; used in per_reward mode */
    RatioKind ratio;
    const double *step_weight; /* [T] factor of l by step; NULL: 1 each */
} ObjectiveOpts;

typedef struct ObjectiveInput {
    float log_prob, log_prob_old; /* of dg_sde_log_prob() */
    float total;                  /* dg_advantage_compute()'s, unclamped */
    const float *advantage;       /* [K], used in per_reward mode */
    double kl;                    /* of dg_sde_kl(); used when kl_beta > 0 */
    double drift;   /* the same to the rollout's u; used by guard */
    int64_t D;      /* elements of one latent */
    double divisor; /* terms of one update, > 0 */
} ObjectiveInput;

typedef struct ObjectiveTerm {
    double loss;      /* this term's share of the update's loss */
    double ratio;     /* exactly 1 when both log-probs are equal */
    double approx_kl; /* dg_objective_approx_kl() of log_prob - log_prob_old */
    int clipped;      /* 1: the clip took (part of) the gradient away */
    double coef;      /* grad_u = coef (z_next - mu) + kl_coef (u - u_ref)
                    + drift_coef (u - u_old) */
    double kl_coef, drift_coef;
} ObjectiveTerm;

/**
 * Loss and seed coefficients of one term.
 * s  the step's coefficients; must be stochastic
 * When all three coefficients are 0 the backward pass can be left out.
 * Not collective. Errors: DG_EINVAL for a deterministic step, DG_ENUMERIC
 * naming the step where a log-prob, the advantage, the KL or the ratio is
 * not finite; *out is then untouched.
 */
int dg_objective_term(ObjectiveTerm *out, const ObjectiveOpts *o,
                      const SdeStep *s, const ObjectiveInput *in);

/**
 * Schulman's estimator of KL(old || new) from one sample of the old policy,
 *
 *   k3 = ratio - 1 - log ratio >= 0,  log_ratio = log_prob - log_prob_old
 *
 * to 13 digits however small it is. In nats of the densities as the objective
 * has them. Those of dg_sde_log_prob() are means over D elements: there, with
 * KL the divergence of a whole step, the mean of k3 over samples is
 * (KL + KL^2 / 2) / D^2, as long as |log_ratio| is small.
 * Source: J. Schulman, Approximating KL Divergence (2020).
 */
double dg_objective_approx_kl(double log_ratio);

/** The tensors a seed is made of, [D] f32 each. */
typedef struct ObjectiveTensors {
    const float *z, *u, *z_next;
    const float *u_ref; /* may be NULL when kl_coef is 0, and */
    const float *u_old; /* when drift_coef is 0: the rollout's u */
} ObjectiveTensors;

/**
 * d loss / d u of the term.
 * grad_u  [D] f32 out; must not alias u, u_ref or u_old
 */
void dg_objective_seed(float *grad_u, const ObjectiveTerm *term,
                       const SdeStep *s, const ObjectiveTensors *x, int64_t D);

#endif
