#include "grpo/objective.h"

#include <math.h>

#include "base/error.h"

static double clamp(double x, double lo, double hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* Adds w l(A) and, to *slope, d (w l) / d ratio; 1 if the clip acted. */
static int add_clipped(double *loss, double *slope, const ObjectiveOpts *o,
                       double ratio, double advantage, double w)
{
    const double least = 1 - o->clip.low, most = 1 + o->clip.high;
    const double limit = o->advantage_clip;
    const double A = limit > 0 ? clamp(advantage, -limit, limit) : advantage;
    const double plain = -A * ratio;
    const double held = -A * clamp(ratio, least, most);
    const int clipped = (A > 0 && ratio > most) || (A < 0 && ratio < least);

    *loss += w * fmax(plain, held);
    if (!clipped)
        *slope -= w * A;
    return clipped && w != 0;
}

static int check(const ObjectiveOpts *o, const SdeStep *s,
                 const ObjectiveInput *in, double ratio)
{
    if (!s->stochastic)
        return dg_fail(DG_EINVAL,
                       "step %d is deterministic and cannot be trained",
                       s->index);
    if (!isfinite(ratio))
        return dg_fail(
            DG_ENUMERIC, "ratio at step %d is not finite (log-prob %g, was %g)",
            s->index, (double)in->log_prob, (double)in->log_prob_old);
    if (!isfinite(in->total))
        return dg_fail(DG_ENUMERIC, "advantage at step %d is not finite",
                       s->index);
    if (o->kl_beta != 0 && !isfinite(in->kl))
        return dg_fail(DG_ENUMERIC, "KL at step %d is not finite", s->index);
    if (o->ratio == DG_RATIO_GUARD && (s->precision != s->inv_var))
        return dg_fail(DG_EINVAL,
                       "step %d: grpo.ratio = guard needs a Gaussian density",
                       s->index);
    return DG_OK;
}

int dg_objective_term(ObjectiveTerm *out, const ObjectiveOpts *o,
                      const SdeStep *s, const ObjectiveInput *in)
{
    const int guard = o->ratio == DG_RATIO_GUARD;
    const double by = guard ? s->std : 1; /* of the logarithm */
    const double moved = (double)in->log_prob - (double)in->log_prob_old;
    const double ratio = exp(by * (moved + (guard ? in->drift : 0)));
    const double kappa = s->mean_u, share = 1.0 / in->divisor;
    const double pull = kappa * kappa * s->inv_var / (double)in->D * share;
    double loss = 0, slope = 0;
    int clipped = 0;
    const int err = check(o, s, in, ratio);

    if (err)
        return err;
    if (o->agg != DG_AGG_PER_REWARD)
        clipped = add_clipped(&loss, &slope, o, ratio, in->total, 1);
    else
        for (int k = 0; k < o->num_rewards; k++)
            clipped |= add_clipped(&loss, &slope, o, ratio, in->advantage[k],
                                   o->weights[k]);
    if (o->step_weight != NULL) {
        loss *= o->step_weight[s->index];
        slope *= o->step_weight[s->index];
    }
    if (o->kl_beta != 0)
        loss += o->kl_beta * in->kl;
    *out = (ObjectiveTerm) {
        .loss = loss * share,
        .ratio = ratio,
        .approx_kl = dg_objective_approx_kl(moved),
        .clipped = clipped,
        .coef =
            by * slope * ratio * kappa * s->precision / (double)in->D * share,
        .kl_coef = o->kl_beta * pull,
        /* no drift: u is the rollout's, which the seed then does not ask for */
        .drift_coef = guard && in->drift > 0 ? by * slope * ratio * pull : 0,
    };
    return DG_OK;
}

/* Near 0 the difference would be of what is left of rounding: there the series
 * of e^x - 1 - x, whose next term is x^5 / 2520 of it. */
double dg_objective_approx_kl(double log_ratio)
{
    const double x = log_ratio;

    if (fabs(x) >= 0.01)
        return expm1(x) - x;
    return x * x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6))));
}

void dg_objective_seed(float *grad_u, const ObjectiveTerm *term,
                       const SdeStep *s, const ObjectiveTensors *x, int64_t D)
{
    dg_sde_grad_u(grad_u, s, x->z, x->u, x->z_next, term->coef, D);
    if (term->kl_coef != 0)
        dg_sde_grad_kl(grad_u, x->u, x->u_ref, term->kl_coef, D);
    if (term->drift_coef != 0)
        dg_sde_grad_kl(grad_u, x->u, x->u_old, term->drift_coef, D);
}
