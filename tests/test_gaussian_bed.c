/* Samplers on Gaussian data, where every marginal is known in closed form.
 * The expected variances were computed in double from the recursion
 * V <- (1 + Delta (k + eps^2 / (2 v)))^2 V - eps^2 Delta, V_0 = 1. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "diffusion/sde.h"
#include "gaussian_bed.h"

static const double shift_of_bed = 3, mean_of_bed = 0.8, sd_of_bed = 0.5;

/* max over the levels 1..T-1 of |V - v|; V[i] out when not NULL. Affine field: the
 * factor of z - (1 - sigma) m in one step is mean_z + mean_u slope. */
static double recurse(SdeKind kind, double eta, int T, double sd, double *V)
{
    const SdeOpts o = { .kind = kind, .eta = eta };
    Schedule s;
    SdeStep step;
    double var = 1, worst = 0;

    assert_int_equal(dg_schedule_init_flow(&s, T, shift_of_bed), DG_OK);
    for (int i = 0; i < T; i++) {
        assert_int_equal(dg_sde_step_init(&step, &o, &s, i), DG_OK);
        const double c = step.mean_z + step.mean_u * bed_slope(step.sigma, sd);
        const double next = s.sigma[i + 1];

        var = c * c * var + (double)step.std * step.std;
        if (V != NULL)
            V[i + 1] = var;
        if (i < T - 1) /* the step to sigma = 0 is not trained */
            worst = fmax(worst, fabs(var - bed_var(next, sd)));
    }
    dg_schedule_fini(&s);
    return worst;
}

static void test_bed_inv04_variance_recursion(void **state)
{
    static const struct {
        int i;
        double V;
    } want[] = { { 1, .95703782 },  { 4, .81208356 },  { 8, .57655565 },
                 { 12, .30567434 }, { 14, .19376486 }, { 15, .16663297 } };
    double V[17] = { 1 };

    (void)state;
    recurse(DG_SDE_DANCE, 0.3, 16, sd_of_bed, V);
    for (size_t k = 0; k < sizeof want / sizeof *want; k++)
        assert_true(fabs(V[want[k].i] - want[k].V) < 1e-6);
}

/* Runs n elements through T steps; mean and variance after each step. */
static void simulate(SdeKind kind, double eta, int T, int64_t n, double *mean,
                     double *var)
{
    const SdeOpts o = { .kind = kind, .eta = eta };
    RngKey key = { .seed = 11, .purpose = DG_RNG_TEST };
    float *z = malloc(3 * (size_t)n * sizeof *z), *u = z + n, *e = u + n;
    Schedule s;
    SdeStep step;

    assert_non_null(z);
    assert_int_equal(dg_schedule_init_flow(&s, T, shift_of_bed), DG_OK);
    dg_rng_normal(z, 0, n, &key);
    for (int i = 0; i < T; i++) {
        double m = 0, v = 0;

        key.step = (uint32_t)i + 1;
        dg_rng_normal(e, 0, n, &key);
        dg_sde_step_init(&step, &o, &s, i);
        bed_velocity(u, z, n, step.sigma, mean_of_bed, sd_of_bed);
        dg_sde_next(z, &step, z, u, e, n);
        for (int64_t d = 0; d < n; d++)
            m += z[d];
        m /= (double)n;
        for (int64_t d = 0; d < n; d++)
            v += (z[d] - m) * (z[d] - m);
        mean[i + 1] = m;
        var[i + 1] = v / (double)n;
    }
    dg_schedule_fini(&s);
    free(z);
}

static void test_bed_inv04_sampled_marginals(void **state)
{
    enum { T = 16, N = 400000 };
    double V[T + 1] = { 1 }, mean[T + 1], var[T + 1];
    Schedule s;

    (void)state;
    recurse(DG_SDE_DANCE, 0.3, T, sd_of_bed, V);
    simulate(DG_SDE_DANCE, 0.3, T, N, mean, var);
    assert_int_equal(dg_schedule_init_flow(&s, T, shift_of_bed), DG_OK);
    for (int i = 1; i <= T; i++) {
        const double next = s.sigma[i];

        /* 5 standard errors: sqrt(V / N), V sqrt(2 / N) */
        assert_true(fabs(mean[i] - (1 - next) * mean_of_bed) <
                    5 * sqrt(V[i] / N));
        assert_true(fabs(var[i] / V[i] - 1) < 5 * sqrt(2.0 / N));
        /* and the discrete V is told from the continuous v */
        if (i >= 12 && i < T)
            assert_true(fabs(var[i] - bed_var(next, sd_of_bed)) >
                        4 * V[i] * sqrt(2.0 / N));
    }
    dg_schedule_fini(&s);
}

static void test_bed_inv05_convergence_in_steps(void **state)
{
    static const struct {
        int T;
        double worst;
    } want[] = { { 16, .03475592 },
                 { 64, .01615012 },
                 { 256, .00479421 },
                 { 1024, .00125254 },
                 { 4096, .00031662 } };

    (void)state;
    for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
        const double got =
            recurse(DG_SDE_DANCE, 0.3, want[k].T, sd_of_bed, NULL);

        /* float levels and coefficients: a random walk of 6e-8 each */
        assert_true(fabs(got - want[k].worst) < 2e-6);
    }
    assert_true(fabs(recurse(DG_SDE_ODE, 0, 16, sd_of_bed, NULL) - .03997244) <
                2e-6);
    assert_true(
        fabs(recurse(DG_SDE_ODE, 0, 4096, sd_of_bed, NULL) - .00035534) < 2e-6);
}

static void test_bed_inv06_point_mass_decodes_free_of_noise(void **state)
{
    enum { T = 16, N = 500 };
    static const struct {
        SdeKind kind;
        double eta;
    } kinds[] = { { DG_SDE_DANCE, 0.3 },
                  { DG_SDE_FLOW_SDE, 0.7 },
                  { DG_SDE_CPS, 0.8 } };
    float z[N], u[N], e[N], x0[N];
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, T, shift_of_bed), DG_OK);
    for (int k = 0; k < 3; k++) {
        const SdeOpts o = { .kind = kinds[k].kind, .eta = kinds[k].eta };
        RngKey key = { .seed = 4, .purpose = DG_RNG_TEST };

        dg_rng_normal(z, 0, N, &key);
        for (int i = 0; i < T; i++) {
            SdeStep step;

            key.step = (uint32_t)i + 1;
            dg_rng_normal(e, 0, N, &key);
            dg_sde_step_init(&step, &o, &s, i);
            bed_velocity(u, z, N, step.sigma, mean_of_bed, 0);
            dg_sde_x0(x0, &step, z, u, N);
            /* |u| sigma < 8: a few roundings of values of that size */
            for (int d = 0; d < N; d++)
                assert_true(fabs(x0[d] - mean_of_bed) < 2e-6);
            dg_sde_next(z, &step, z, u, e, N);
        }
    }
    dg_schedule_fini(&s);
}

static void test_bed_inv06_point_mass_variance(void **state)
{
    double V[17] = { 1 };
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 16, shift_of_bed), DG_OK);
    recurse(DG_SDE_DANCE, 0.3, 16, 0, V);
    assert_true(fabs(V[15] - .03451691) < 1e-7);
    assert_true(fabs((double)s.sigma[15] * s.sigma[15] - .02777778) < 1e-7);
    for (double a = 0; a <= 1; a += 0.125) {
        recurse(DG_SDE_CPS, a, 16, 0, V);
        for (int i = 1; i <= 16; i++)
            assert_true(fabs(V[i] - (double)s.sigma[i] * s.sigma[i]) < 2e-7);
    }
    dg_schedule_fini(&s);
}

/* DDIM: z = sqrt(a) x + sqrt(1 - a) n; exact noise prediction for N(0, sd^2)
 * data is sqrt(1 - a) z / Vx, Vx = a sd^2 + 1 - a. */
static void test_bed_inv07_ddim_variance(void **state)
{
    enum { T = 50 };
    const SdeOpts o = { .kind = DG_SDE_DDIM, .eta = 1 };
    double var = 1, ref = 1;
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_ddim(&s, T), DG_OK);
    for (int i = 0; i < T; i++) {
        const double a = s.alpha_bar[i], n = s.alpha_bar_next[i];
        const double sd2 = sd_of_bed * sd_of_bed, vx = a * sd2 + 1 - a;
        const double s2 = (1 - n) / (1 - a) * (1 - a / n);
        const double c =
            sqrt(a * n) * sd2 / vx + sqrt(1 - n - s2) * sqrt(1 - a) / vx;
        SdeStep step;

        assert_int_equal(dg_sde_step_init(&step, &o, &s, i), DG_OK);
        const double got = step.mean_z + step.mean_u * sqrt(1 - a) / vx;

        var = got * got * var + (double)step.std * step.std;
        ref = c * c * ref + s2;
        assert_true(fabs(got - c) < 1e-6);
        assert_true(fabs(var - ref) < 1e-6);
    }
    dg_schedule_fini(&s);
}

static void test_bed_inv08_moments_of_the_log_prob(void **state)
{
    enum { T = 16, SIZE = 256, N = 4000 };
    const SdeOpts o = { .kind = DG_SDE_DANCE, .eta = 0.3 };
    float z[SIZE], u[SIZE], e[SIZE], next[SIZE];
    RngKey key = { .seed = 6, .purpose = DG_RNG_TEST };
    double m = 0, v = 0;
    Schedule s;
    SdeStep step;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, T, shift_of_bed), DG_OK);
    assert_int_equal(dg_sde_step_init(&step, &o, &s, 6), DG_OK);
    dg_rng_normal(z, 0, SIZE, &key);
    bed_velocity(u, z, SIZE, step.sigma, mean_of_bed, sd_of_bed);
    const double expected =
        -0.5 - log((double)step.std) - 0.5 * log(2 * acos(-1));

    for (int k = 0; k < N; k++) {
        key.sample = (uint32_t)k + 1;
        dg_rng_normal(e, 0, SIZE, &key);
        dg_sde_next(next, &step, z, u, e, SIZE);
        const double x = dg_sde_log_prob(&step, z, u, next, SIZE) - expected;

        m += x / N;
        v += x * x / N;
    }
    /* variance 1 / (2 D); 5 standard errors of mean and of variance */
    const double var = 1.0 / (2 * SIZE);

    assert_true(fabs(m) < 5 * sqrt(var / N));
    assert_true(fabs(v / var - 1) < 5 * sqrt(2.0 / N));
    dg_schedule_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bed_inv04_variance_recursion),
        cmocka_unit_test(test_bed_inv04_sampled_marginals),
        cmocka_unit_test(test_bed_inv05_convergence_in_steps),
        cmocka_unit_test(test_bed_inv06_point_mass_decodes_free_of_noise),
        cmocka_unit_test(test_bed_inv06_point_mass_variance),
        cmocka_unit_test(test_bed_inv07_ddim_variance),
        cmocka_unit_test(test_bed_inv08_moments_of_the_log_prob),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
