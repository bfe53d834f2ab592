/* Steps against the formulas written out in double, finite differences and
 * the published constants of DDIM. invNN is the number in doc/invariants.md. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "diffusion/sde.h"

enum { D = 203, T = 16 };

typedef struct Fixture {
    Schedule flow, ddim;
    float z[D], u[D], noise[D], next[D], out[D];
} Fixture;

static Fixture fx;

static void fill(float *x, uint32_t sample)
{
    const RngKey k = { .seed = 5, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, D, &k);
}

static int setup(void **state)
{
    (void)state;
    fill(fx.z, 1);
    fill(fx.u, 2);
    fill(fx.noise, 3);
    return dg_schedule_init_flow(&fx.flow, T, 3) ||
           dg_schedule_init_ddim(&fx.ddim, 50);
}

static int teardown(void **state)
{
    (void)state;
    dg_schedule_fini(&fx.flow);
    dg_schedule_fini(&fx.ddim);
    return 0;
}

static SdeStep make(SdeKind kind, double eta, int index)
{
    const SdeOpts o = { .kind = kind, .eta = eta };
    SdeStep s;

    assert_int_equal(dg_sde_step_init(&s, &o,
                                      kind == DG_SDE_DDIM ? &fx.ddim : &fx.flow,
                                      index),
                     DG_OK);
    return s;
}

/* The stochastic kinds of this file with a usual eta each. */
static const struct {
    SdeKind kind;
    double eta;
} kinds[] = { { DG_SDE_DANCE, 0.3 },
              { DG_SDE_FLOW_SDE, 0.7 },
              { DG_SDE_CPS, 0.6 },
              { DG_SDE_DDIM, 1.0 } };

static void test_sde_inv01_score_is_a_function_of_z_and_u(void **state)
{
    (void)state;
    for (int i = 0; i < T; i++) {
        const SdeStep s = make(DG_SDE_DANCE, 0.3, i);
        const double sigma = s.sigma;

        dg_sde_x0(fx.out, &s, fx.z, fx.u, D);
        for (int d = 0; d < D; d++) {
            const double a = -(fx.z[d] - (1 - sigma) * fx.out[d]);
            const double b = -(fx.z[d] + (1 - sigma) * fx.u[d]) * sigma;

            assert_true(fabs(a - b) < 1e-6);
        }
    }
}

static double long_form(const SdeStep *s, double eps, double z, double u)
{
    const double dt = (double)s->sigma_next - s->sigma;
    const double x0 = z - s->sigma * u;
    const double score =
        -(z - (1 - (double)s->sigma) * x0) / ((double)s->sigma * s->sigma);

    return z + dt * u - 0.5 * eps * eps * score * dt;
}

static void test_sde_inv02_long_and_closed_mean_agree(void **state)
{
    (void)state;
    for (int i = 0; i < T; i++) {
        const SdeStep s = make(DG_SDE_DANCE, 0.3, i);
        const double dt = (double)s.sigma_next - s.sigma;

        assert_true(fabs(s.std - 0.3 * sqrt(-dt)) < 1e-7);
        dg_sde_mean(fx.out, &s, fx.z, fx.u, D);
        for (int d = 0; d < D; d++)
            assert_true(fabs(fx.out[d] - long_form(&s, 0.3, fx.z[d], fx.u[d])) <
                        1e-6);
    }
}

static void test_sde_inv02_flow_sde_is_dance_with_its_eps(void **state)
{
    (void)state;
    for (int i = 0; i < T; i++) {
        const SdeStep f = make(DG_SDE_FLOW_SDE, 0.7, i);
        /* at sigma = 1 only the denominator takes sigma_1 */
        const double below = i == 0 ? fx.flow.sigma[1] : fx.flow.sigma[i];
        const double eps = 0.7 * sqrt(fx.flow.sigma[i] / (1 - below));
        const SdeStep d = make(DG_SDE_DANCE, eps, i);

        assert_true(f.mean_z == d.mean_z && f.mean_u == d.mean_u);
        assert_true(f.std == d.std && f.stochastic);
        assert_true(f.offset == d.offset && f.precision == d.precision);
    }
}

static void test_sde_inv03_eta_zero_is_the_ode_exactly(void **state)
{
    static const SdeKind flow_kinds[] = { DG_SDE_ODE, DG_SDE_DANCE,
                                          DG_SDE_FLOW_SDE, DG_SDE_CPS };

    (void)state;
    for (int i = 0; i < T; i++)
        for (size_t k = 0; k < 4; k++) {
            const SdeStep s = make(flow_kinds[k], 0, i);
            const float dt = fx.flow.sigma[i + 1] - fx.flow.sigma[i];

            assert_false(s.stochastic);
            dg_sde_next(fx.next, &s, fx.z, fx.u, NULL, D);
            for (int d = 0; d < D; d++)
                assert_true(fx.next[d] == fx.z[d] + dt * fx.u[d]);
            assert_true(dg_sde_log_prob(&s, fx.z, fx.u, fx.next, D) == 0);
            assert_true(dg_sde_kl(&s, fx.z, fx.u, D) == 0);
        }
}

/* No other eta is without noise. */
static void test_sde_eta_one_is_stochastic(void **state)
{
    (void)state;
    for (int i = 0; i < T - 1; i++)
        for (SdeKind k = DG_SDE_DANCE; k <= DG_SDE_DDIM; k++) {
            const SdeStep s = make(k, 1, i);

            assert_true(s.stochastic && s.std > 0 && s.precision > 0);
        }
}

static void test_sde_inv03_ddim_eta_zero_is_deterministic(void **state)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE, .eta = 0.3 };

    (void)state;
    for (int i = 0; i < 50; i++) {
        const SdeStep s = make(DG_SDE_DDIM, 0, i);
        const double a = fx.ddim.alpha_bar[i], n = fx.ddim.alpha_bar_next[i];
        SdeStep t;

        assert_int_equal(dg_sde_step_init(&t, &ode, &fx.ddim, i), DG_OK);
        assert_false(s.stochastic || t.stochastic);
        assert_true(s.mean_z == t.mean_z && s.mean_u == t.mean_u);
        dg_sde_next(fx.next, &s, fx.z, fx.u, NULL, D);
        for (int d = 0; d < D; d++) {
            const double x0 = (fx.z[d] - sqrt(1 - a) * fx.u[d]) / sqrt(a);
            const double want = sqrt(n) * x0 + sqrt(1 - n) * fx.u[d];

            /* coefficients up to sqrt(n / a), a few float roundings */
            assert_true(fabs(fx.next[d] - want) < 3e-6);
        }
    }
}

/* Of data that noise was laid over to the step's level they are found again. */
static void test_sde_x0_is_the_data(void **state)
{
    (void)state;
    for (int i = 0; i < T; i++)
        for (int ddim = 0; ddim < 2; ddim++) {
            const SdeStep s = make(ddim ? DG_SDE_DDIM : DG_SDE_DANCE, 0.3, i);
            const double a = ddim ? fx.ddim.alpha_bar[i] : 0;
            const double keep = ddim ? sqrt(a) : 1 - (double)s.sigma;
            const double spoil = ddim ? sqrt(1 - a) : s.sigma;

            for (int d = 0; d < D; d++) {
                const double z = keep * fx.z[d] + spoil * fx.noise[d];
                const double x = fx.z[d], e = fx.noise[d];

                fx.next[d] = (float)z;
                fx.out[d] = (float)(ddim ? e : e - x);
            }
            dg_sde_x0(fx.out, &s, fx.next, fx.out, D);
            for (int d = 0; d < D; d++) /* roundings of z, by 1 / keep */
                assert_true(fabs(fx.out[d] - fx.z[d]) <
                            1e-6 * (1 + (ddim ? 1 / keep : 0)));
        }
}

static void test_sde_cps_matches_its_definition(void **state)
{
    (void)state;
    for (int i = 0; i < T; i++) {
        const SdeStep s = make(DG_SDE_CPS, 0.6, i);
        const double g = s.sigma_next, sg = s.sigma;
        const double sd = g * sin(0.6 * acos(-1) / 2);

        assert_true(fabs(s.std - sd) < 1e-7);
        assert_true(s.stochastic == (i < T - 1));
        dg_sde_mean(fx.out, &s, fx.z, fx.u, D);
        for (int d = 0; d < D; d++) {
            const double x0 = fx.z[d] - sg * fx.u[d];
            const double x1 = fx.z[d] + (1 - sg) * fx.u[d];
            const double want = (1 - g) * x0 + sqrt(g * g - sd * sd) * x1;

            assert_true(fabs(fx.out[d] - want) < 2e-6);
        }
    }
}

static void test_sde_inv07_ddim_std_table(void **state)
{
    static const struct {
        int t;
        double s;
    } want[] = { { 981, 0.45446 },
                 { 501, 0.29478 },
                 { 41, 0.09989 },
                 { 21, 0.03948 },
                 { 1, 0.02065 } };

    (void)state;
    for (int j = 0; j < 50; j++) {
        const SdeStep s = make(DG_SDE_DDIM, 1, j);
        const double a = fx.ddim.alpha_bar[j], n = fx.ddim.alpha_bar_next[j];
        /* what is left for u: read back from mean_u */
        const double rest = s.mean_u + sqrt(n * (1 - a) / a);

        assert_true(s.std > 0);
        assert_true(fabs(rest * rest + (double)s.std * s.std - (1 - n)) < 2e-6);
        for (size_t k = 0; k < sizeof want / sizeof *want; k++)
            if (fx.ddim.timestep[j] == want[k].t)
                assert_true(fabs(s.std - want[k].s) < 6e-6);
    }
}

static void test_sde_mean_u_is_the_derivative(void **state)
{
    float up[D], moved[D];

    (void)state;
    for (int i = 0; i < T; i++)
        for (size_t k = 0; k < 4; k++) {
            const SdeStep s = make(kinds[k].kind, kinds[k].eta, i);

            dg_sde_mean(fx.out, &s, fx.z, fx.u, D);
            for (int d = 0; d < D; d++)
                up[d] = fx.u[d] + 1;
            dg_sde_mean(moved, &s, fx.z, up, D);
            /* mu is affine: a unit step is exact up to float rounding of
             * values below 8 */
            for (int d = 0; d < D; d++)
                assert_true(fabs(moved[d] - fx.out[d] - s.mean_u) < 4e-6);
        }
}

/* log-density in double, straight from the Gaussian's definition */
static double ref_log_prob(const SdeStep *s, LogProbForm form, const float *z,
                           const double *u, const float *next)
{
    double sum = 0;

    for (int d = 0; d < D; d++) {
        const double mu = (double)s->mean_z * z[d] + s->mean_u * u[d];
        const double x = next[d] - mu, std = s->std;

        sum +=
            form == DG_LOG_PROB_SQUARED
                ? -x * x
                : -x * x / (2 * std * std) - log(std) - 0.5 * log(2 * acos(-1));
    }
    return sum / D;
}

static void test_sde_log_prob_is_the_gaussian_mean(void **state)
{
    double u[D];

    (void)state;
    for (int d = 0; d < D; d++)
        u[d] = fx.u[d];
    for (int f = 0; f < 2; f++)
        for (size_t k = 0; k < 4; k++)
            for (int i = 0; i < T - 1; i++) {
                const SdeOpts o = { .kind = kinds[k].kind,
                                    .eta = kinds[k].eta,
                                    .log_prob = (LogProbForm)f };
                SdeStep s;

                dg_sde_step_init(
                    &s, &o, o.kind == DG_SDE_DDIM ? &fx.ddim : &fx.flow, i);
                dg_sde_next(fx.next, &s, fx.z, fx.u, fx.noise, D);
                const double got = dg_sde_log_prob(&s, fx.z, fx.u, fx.next, D);
                const double want =
                    ref_log_prob(&s, o.log_prob, fx.z, u, fx.next);

                assert_true(fabs(got - want) < 2e-6);
            }
}

static void test_sde_inv09_replay_is_bitwise_wherever_it_lies(void **state)
{
    static float big[3 * (D + 40)];
    const SdeStep s = make(DG_SDE_DANCE, 0.3, 5);

    (void)state;
    dg_sde_next(fx.next, &s, fx.z, fx.u, fx.noise, D);
    const float want = dg_sde_log_prob(&s, fx.z, fx.u, fx.next, D);

    for (int shift = 0; shift < 17; shift++) {
        float *z = big + shift, *u = z + D + 11, *n = u + D + 7;

        for (size_t i = 0; i < sizeof big / sizeof *big; i++)
            big[i] = NAN; /* neighbours must not be read */
        memcpy(z, fx.z, sizeof fx.z);
        memcpy(u, fx.u, sizeof fx.u);
        memcpy(n, fx.noise, sizeof fx.noise);
        dg_sde_next(n, &s, z, u, n, D);
        assert_memory_equal(n, fx.next, sizeof fx.next);
        const float got = dg_sde_log_prob(&s, z, u, n, D);
        assert_memory_equal(&got, &want, sizeof got);
        assert_true(isnan(n[D]) && isnan(u[D]) && isnan(z[D]));
    }
}

static void test_sde_sum_order_is_sixteen_lanes(void **state)
{
    SdeStep s = { .stochastic = 1, .precision = 2 };
    float zero[D] = { 0 }, x[D];
    double lane[16] = { 0 };

    (void)state;
    /* One term of 2^54 makes every addition round to a multiple of 4, and
     * the offset takes it away again: the order decides what remains. */
    for (int d = 0; d < D; d++)
        x[d] = d == 5 ? 134217728.0f : 1 + fx.z[d] * fx.z[d];
    for (int d = 0; d < D; d++)
        lane[d % 16] += (double)x[d] * x[d];
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    s.offset = 18014398509481984.0 / D;
    assert_true(dg_sde_log_prob(&s, zero, zero, x, D) ==
                (float)(s.offset - 0.5 * 2 * (lane[0] / D)));
}

static void test_sde_inv10_grad_u_matches_finite_differences(void **state)
{
    double u[D];

    (void)state;
    for (int f = 0; f < 2; f++)
        for (size_t k = 0; k < 4; k++) {
            const SdeOpts o = { .kind = kinds[k].kind,
                                .eta = kinds[k].eta,
                                .log_prob = (LogProbForm)f };
            SdeStep s;

            dg_sde_step_init(&s, &o,
                             o.kind == DG_SDE_DDIM ? &fx.ddim : &fx.flow, 4);
            dg_sde_next(fx.next, &s, fx.z, fx.u, fx.noise, D);
            dg_sde_grad_u(fx.out, &s, fx.z, fx.u, fx.next,
                          s.mean_u * s.precision / D, D);
            for (int d = 0; d < D; d++)
                u[d] = fx.u[d];
            for (int d = 0; d < D; d += 13) {
                const double h = 1e-4;

                u[d] += h;
                const double hi =
                    ref_log_prob(&s, o.log_prob, fx.z, u, fx.next);
                u[d] -= 2 * h;
                const double lo =
                    ref_log_prob(&s, o.log_prob, fx.z, u, fx.next);
                u[d] = fx.u[d];
                /* quadratic in u: only float rounding of z' - mu is left */
                const double want = (hi - lo) / (2 * h);
                assert_true(fabs(fx.out[d] - want) < 2e-5 * fabs(want) + 1e-7);
            }
        }
}

static void test_sde_inv20_kl_vanishes_at_the_reference(void **state)
{
    const SdeStep s = make(DG_SDE_DANCE, 0.3, 7);
    float grad[D];
    double want = 0;

    (void)state;
    assert_true(dg_sde_kl(&s, fx.u, fx.u, D) == 0);
    memset(grad, 0, sizeof grad);
    dg_sde_grad_kl(grad, fx.u, fx.u, 12.5, D);
    for (int d = 0; d < D; d++)
        assert_true(grad[d] == 0);

    for (int d = 0; d < D; d++) {
        const double x = (double)s.mean_u * (fx.u[d] - fx.noise[d]);

        want += x * x / (2 * (double)s.std * s.std) / D;
    }
    assert_true(fabs(dg_sde_kl(&s, fx.u, fx.noise, D) / want - 1) < 1e-6);
}

static void test_sde_inv20_kl_gradient_matches_differences(void **state)
{
    const SdeStep s = make(DG_SDE_CPS, 0.6, 7);
    float grad[D], v[D];
    const double coef = s.mean_u * (double)s.mean_u * s.inv_var / D;

    (void)state;
    memset(grad, 0, sizeof grad);
    dg_sde_grad_kl(grad, fx.u, fx.noise, coef, D);
    memcpy(v, fx.u, sizeof v);
    for (int d = 0; d < D; d += 11) {
        const float h = 0.0625f;

        v[d] = fx.u[d] + h;
        const double hi = dg_sde_kl(&s, v, fx.noise, D);
        const double up = v[d];
        v[d] = fx.u[d] - h;
        const double lo = dg_sde_kl(&s, v, fx.noise, D);
        const double want = (hi - lo) / (up - v[d]);

        v[d] = fx.u[d];
        assert_true(fabs(grad[d] - want) < 1e-5 * fabs(want) + 1e-6 * coef);
    }
}

static void test_sde_refuses_what_does_not_fit(void **state)
{
    const struct {
        SdeKind kind;
        double eta;
        const Schedule *s;
        int index;
    } bad[] = { { DG_SDE_DANCE, 0.3, &fx.ddim, 0 },
                { DG_SDE_CPS, 0.3, &fx.ddim, 0 },
                { DG_SDE_DDIM, 0.3, &fx.flow, 0 },
                { DG_SDE_DANCE, -0.1, &fx.flow, 0 },
                { DG_SDE_DANCE, NAN, &fx.flow, 0 },
                { DG_SDE_CPS, 1.01, &fx.flow, 0 },
                { DG_SDE_DDIM, 3, &fx.ddim, 0 },
                { DG_SDE_DANCE, 0.3, &fx.flow, T },
                { DG_SDE_DANCE, 0.3, &fx.flow, -1 },
                { (SdeKind)9, 0.3, &fx.flow, 0 } };
    SdeStep s;

    (void)state;
    memset(&s, 0x5a, sizeof s);
    const SdeStep before = s;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        const SdeOpts o = { .kind = bad[k].kind, .eta = bad[k].eta };

        assert_int_equal(dg_sde_step_init(&s, &o, bad[k].s, bad[k].index),
                         DG_EINVAL);
        assert_memory_equal(&s, &before, sizeof s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sde_inv01_score_is_a_function_of_z_and_u),
        cmocka_unit_test(test_sde_inv02_long_and_closed_mean_agree),
        cmocka_unit_test(test_sde_inv02_flow_sde_is_dance_with_its_eps),
        cmocka_unit_test(test_sde_inv03_eta_zero_is_the_ode_exactly),
        cmocka_unit_test(test_sde_eta_one_is_stochastic),
        cmocka_unit_test(test_sde_inv03_ddim_eta_zero_is_deterministic),
        cmocka_unit_test(test_sde_x0_is_the_data),
        cmocka_unit_test(test_sde_cps_matches_its_definition),
        cmocka_unit_test(test_sde_inv07_ddim_std_table),
        cmocka_unit_test(test_sde_mean_u_is_the_derivative),
        cmocka_unit_test(test_sde_log_prob_is_the_gaussian_mean),
        cmocka_unit_test(test_sde_inv09_replay_is_bitwise_wherever_it_lies),
        cmocka_unit_test(test_sde_sum_order_is_sixteen_lanes),
        cmocka_unit_test(test_sde_inv10_grad_u_matches_finite_differences),
        cmocka_unit_test(test_sde_inv20_kl_vanishes_at_the_reference),
        cmocka_unit_test(test_sde_inv20_kl_gradient_matches_differences),
        cmocka_unit_test(test_sde_refuses_what_does_not_fit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
