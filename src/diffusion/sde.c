#include "diffusion/sde.h"

#include <math.h>
#include <stddef.h>

#include "base/error.h"
#include "base/lanes.h"

static const double pi = 3.14159265358979323846;

/* Coefficients in double, before they are rounded once to float. */
typedef struct Affine {
    double mean_z, mean_u, std;
} Affine;

const char *dg_sde_kind_name(SdeKind kind)
{
    static const char *const names[] = { "ode", "dance", "flow_sde", "cps",
                                         "ddim" };

    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

static int check_opts(const SdeOpts *o, const Schedule *s, int index)
{
    if (index < 0 || index >= s->num_steps)
        return dg_fail(DG_EINVAL, "sde: step %d outside 0..%d", index,
                       s->num_steps - 1);
    if ((unsigned)o->kind > DG_SDE_DDIM)
        return dg_fail(DG_EINVAL, "sampler.sde: unknown kind %d", (int)o->kind);
    if (o->kind != DG_SDE_ODE &&
        (o->kind == DG_SDE_DDIM) != (s->kind == DG_SCHEDULE_DDIM))
        return dg_fail(DG_EINVAL,
                       "sampler.sde = %s: does not fit a %s schedule",
                       dg_sde_kind_name(o->kind),
                       s->kind == DG_SCHEDULE_DDIM ? "ddim" : "flow");
    if (!(o->eta >= 0) || !isfinite(o->eta))
        return dg_fail(DG_EINVAL, "sampler.eta = %g: must be >= 0", o->eta);
    if (o->kind == DG_SDE_CPS && o->eta > 1)
        return dg_fail(DG_EINVAL, "sampler.eta = %g: must be <= 1 for cps",
                       o->eta);
    return DG_OK;
}

/* eps: the diffusion coefficient of the reverse SDE at this step. */
static Affine reverse_sde(double sigma, double sigma_next, double eps)
{
    const double dt = sigma_next - sigma;
    const double half = 0.5 * eps * eps / sigma;

    return (Affine) { .mean_z = 1.0 + half * dt,
                      .mean_u = dt * (1.0 + half * (1.0 - sigma)),
                      .std = eps * sqrt(-dt) };
}

static Affine cps(double sigma, double sigma_next, double a)
{
    const double keep = sigma_next * cos(a * pi / 2);

    return (Affine) { .mean_z = 1.0 - sigma_next + keep,
                      .mean_u =
                          (1.0 - sigma) * keep - sigma * (1.0 - sigma_next),
                      .std = sigma_next * sin(a * pi / 2) };
}

static Affine flow_step(const SdeOpts *o, const Schedule *s, int index)
{
    const double sigma = s->sigma[index], next = s->sigma[index + 1];

    /* The ode must be z + Delta u exactly, whatever kind asked for it. */
    if (o->kind == DG_SDE_ODE || o->eta == 0)
        return (Affine) { 1.0, next - sigma, 0.0 };
    if (o->kind == DG_SDE_CPS)
        return cps(sigma, next, o->eta);
    if (o->kind == DG_SDE_DANCE)
        return reverse_sde(sigma, next, o->eta);

    const double below = sigma == 1.0 ? s->sigma[1] : sigma;

    return reverse_sde(sigma, next, o->eta * sqrt(sigma / (1.0 - below)));
}

static int ddim_step(Affine *out, const SdeOpts *o, const Schedule *s,
                     int index)
{
    const double a = s->alpha_bar[index], next = s->alpha_bar_next[index];
    const double eta = o->kind == DG_SDE_ODE ? 0.0 : o->eta;
    const double var = eta * eta * (1.0 - next) / (1.0 - a) * (1.0 - a / next);
    const double rest = 1.0 - next - var;

    if (rest < 0)
        return dg_fail(DG_EINVAL,
                       "sampler.eta = %g: too large for ddim at step %d", eta,
                       index);
    out->mean_z = sqrt(next / a);
    out->mean_u = sqrt(rest) - sqrt(next * (1.0 - a) / a);
    out->std = sqrt(var);
    return DG_OK;
}

static void set_density(SdeStep *step, LogProbForm form)
{
    const double std = step->std;

    /* std is 0 on an ode step and on cps's last one: no density, no log 0. */
    step->stochastic = std > 0;
    if (!step->stochastic)
        return;
    step->inv_var = 1.0 / (std * std);
    if (form == DG_LOG_PROB_SQUARED) {
        step->precision = 2.0;
    } else {
        step->precision = step->inv_var;
        step->offset = -log(std) - 0.5 * log(2 * pi);
    }
}

int dg_sde_step_init(SdeStep *out, const SdeOpts *o, const Schedule *s,
                     int index)
{
    SdeStep step = { .kind = o->kind, .index = index };
    Affine c;
    int err = check_opts(o, s, index);

    if (err)
        return err;
    if (s->kind == DG_SCHEDULE_FLOW) {
        c = flow_step(o, s, index);
        step.sigma = s->sigma[index];
        step.sigma_next = s->sigma[index + 1];
        step.x0_z = 1.0f;
        step.x0_u = -step.sigma;
    } else {
        const double a = s->alpha_bar[index];

        err = ddim_step(&c, o, s, index);
        if (err)
            return err;
        step.sigma = (float)sqrt(1.0 - a);
        step.sigma_next = (float)sqrt(1.0 - s->alpha_bar_next[index]);
        step.x0_z = (float)(1.0 / sqrt(a));
        step.x0_u = (float)-sqrt((1.0 - a) / a);
    }
    step.mean_z = (float)c.mean_z;
    step.mean_u = (float)c.mean_u;
    step.std = (float)c.std;
    set_density(&step, o->log_prob);
    *out = step;
    return DG_OK;
}

/* Half the log of the signal-to-noise ratio of a flow; no noise: Inf. */
static double lambda(double sigma)
{
    return log((1.0 - sigma) / sigma);
}

int dg_sde_step_init_2m(SdeStep *out, const Schedule *s, int index)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE };
    const int err = dg_sde_step_init(out, &ode, s, index);
    double here, q, c;

    if (err)
        return err;
    if (s->kind != DG_SCHEDULE_FLOW || index < 1)
        return dg_fail(DG_EINVAL,
                       "step %d: none of second order, which needs a flow "
                       "schedule and a step before",
                       index);
    if (s->sigma[index + 1] == 0 || s->sigma[index - 1] == 1)
        return DG_OK; /* infinitely far in lambda: the ode's */
    here = lambda(s->sigma[index]);
    q = (double)s->sigma[index + 1] / s->sigma[index];
    c = 0.5 * (lambda(s->sigma[index + 1]) - here) /
        (here - lambda(s->sigma[index - 1]));
    out->multistep = 1;
    out->mean_z = (float)(1.0 + (1.0 - q) * c);
    out->mean_u = (float)(((double)out->sigma_next - out->sigma) * (1.0 + c));
    out->mean_x0 = (float)((q - 1.0) * c);
    return DG_OK;
}

/* out = cz z + cu u */
static void weighted(float *out, float cz, const float *z, float cu,
                     const float *u, int64_t D)
{
#pragma omp simd
    for (int64_t i = 0; i < D; i++)
        out[i] = cz * z[i] + cu * u[i];
}

void dg_sde_mean(float *mean, const SdeStep *s, const float *z, const float *u,
                 int64_t D)
{
    weighted(mean, s->mean_z, z, s->mean_u, u, D);
}

void dg_sde_next(float *z_next, const SdeStep *s, const float *z,
                 const float *u, const float *noise, int64_t D)
{
    const float cz = s->mean_z, cu = s->mean_u, std = s->std;

    if (!s->stochastic) {
        dg_sde_mean(z_next, s, z, u, D);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < D; i++)
        z_next[i] = (cz * z[i] + cu * u[i]) + std * noise[i];
}

/* sum (z_next - mu)^2, squares exact in double */
static double sum_squares(const SdeStep *s, const float *z, const float *u,
                          const float *z_next, int64_t D)
{
    const float cz = s->mean_z, cu = s->mean_u;
    double lane[DG_LANES] = { 0 };
    int64_t i = 0;

    for (; i + DG_LANES <= D; i += DG_LANES)
#pragma omp simd
        for (int l = 0; l < DG_LANES; l++) {
            const float mu = cz * z[i + l] + cu * u[i + l];
            const double d = (double)(z_next[i + l] - mu);

            lane[l] += d * d;
        }
    for (int l = 0; i < D; i++, l++) {
        const double d = (double)(z_next[i] - (cz * z[i] + cu * u[i]));

        lane[l] += d * d;
    }
    return dg_lanes_fold(lane);
}

float dg_sde_log_prob(const SdeStep *s, const float *z, const float *u,
                      const float *z_next, int64_t D)
{
    if (!s->stochastic)
        return 0.0f;

    const double mean = sum_squares(s, z, u, z_next, D) / (double)D;

    return (float)(s->offset - 0.5 * s->precision * mean);
}

void dg_sde_x0(float *x0, const SdeStep *s, const float *z, const float *u,
               int64_t D)
{
    weighted(x0, s->x0_z, z, s->x0_u, u, D);
}

void dg_sde_grad_u(float *grad_u, const SdeStep *s, const float *z,
                   const float *u, const float *z_next, double coef, int64_t D)
{
    const float cz = s->mean_z, cu = s->mean_u, c = (float)coef;

#pragma omp simd
    for (int64_t i = 0; i < D; i++)
        grad_u[i] = c * (z_next[i] - (cz * z[i] + cu * u[i]));
}

double dg_sde_kl(const SdeStep *s, const float *u, const float *u_ref,
                 int64_t D)
{
    double lane[DG_LANES] = { 0 };
    int64_t i = 0;

    for (; i + DG_LANES <= D; i += DG_LANES)
#pragma omp simd
        for (int l = 0; l < DG_LANES; l++) {
            const double d = (double)(u[i + l] - u_ref[i + l]);

            lane[l] += d * d;
        }
    for (int l = 0; i < D; i++, l++) {
        const double d = (double)(u[i] - u_ref[i]);

        lane[l] += d * d;
    }
    const double k = s->mean_u;

    return 0.5 * s->inv_var * k * k * (dg_lanes_fold(lane) / (double)D);
}

void dg_sde_grad_kl(float *grad_u, const float *u, const float *u_ref,
                    double coef, int64_t D)
{
    const float c = (float)coef;

#pragma omp simd
    for (int64_t i = 0; i < D; i++)
        grad_u[i] += c * (u[i] - u_ref[i]);
}
