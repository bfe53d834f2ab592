/* DPM-Solver++ (2M) behind a window: its update as it is published, its order
 * where the exact path is known, and the levels that it is given. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "diffusion/window.h"
#include "gaussian_bed.h"

static const double mean_of_bed = 0.8, sd_of_bed = 0.5;

/* One update in the paper's own quantities, alpha = 1 - sigma, from the data
 * predicted here and before. */
static double published(double z, double x0, double x0_before,
                        const double sigma[3])
{
    double l[3], h, r;

    for (int i = 0; i < 3; i++)
        l[i] = log(1 - sigma[i]) - log(sigma[i]);
    h = l[2] - l[1];
    r = (l[1] - l[0]) / h;
    return sigma[2] / sigma[1] * z -
           (1 - sigma[2]) * expm1(-h) *
               ((1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before);
}

static void test_multistep_is_the_published_update(void **state)
{
    static const double shifts[] = { 0.5, 1, 3, 7 };
    const double z = 1.3, u = -0.7, x0_before = 0.4;

    (void)state;
    for (int k = 0; k < 4; k++) {
        Schedule s;

        assert_int_equal(dg_schedule_init_flow(&s, 20, shifts[k]), DG_OK);
        for (int i = 2; i < 19; i++) {
            const double sigma[] = { s.sigma[i - 1], s.sigma[i],
                                     s.sigma[i + 1] };
            SdeStep step;
            double got, want;

            assert_int_equal(dg_sde_step_init_2m(&step, &s, i), DG_OK);
            assert_true(step.multistep && !step.stochastic);
            assert_int_equal(step.index, i);
            want = published(z, z - sigma[1] * u, x0_before, sigma);
            got = step.mean_z * z + step.mean_u * u + step.mean_x0 * x0_before;
            /* three coefficients below 2, each rounded to float */
            assert_true(fabs(got - want) < 4e-7);
            assert_true(step.mean_x0 < -1e-3f);
        }
        dg_schedule_fini(&s);
    }
}

/* A data prediction that does not change leaves nothing to the second order. */
static void test_multistep_of_constant_data_is_the_ode(void **state)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE };
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 12, 3), DG_OK);
    for (int i = 2; i < 11; i++) {
        const double z = 0.9, x0 = -0.6, u = (z - x0) / s.sigma[i];
        SdeStep two, one;

        assert_int_equal(dg_sde_step_init_2m(&two, &s, i), DG_OK);
        assert_int_equal(dg_sde_step_init(&one, &ode, &s, i), DG_OK);
        assert_true(fabs(two.mean_z * z + two.mean_u * u + two.mean_x0 * x0 -
                         (one.mean_z * z + one.mean_u * u)) < 4e-7);
    }
    dg_schedule_fini(&s);
}

/* Where the first or the last of the three levels is infinitely far in lambda
 * the step is the ode's, to the bit; before the first there is none. */
static void test_multistep_ends_are_the_ode(void **state)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE };
    Schedule s, ddim;
    SdeStep two, one;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 10, 3), DG_OK);
    assert_int_equal(dg_schedule_init_ddim(&ddim, 10), DG_OK);
    for (int i = 1; i < 10; i += 8) {
        assert_int_equal(dg_sde_step_init_2m(&two, &s, i), DG_OK);
        assert_int_equal(dg_sde_step_init(&one, &ode, &s, i), DG_OK);
        assert_true(!two.multistep && two.mean_x0 == 0);
        assert_true(two.mean_z == one.mean_z && two.mean_u == one.mean_u);
    }
    assert_int_equal(dg_sde_step_init_2m(&two, &s, 0), DG_EINVAL);
    assert_int_equal(dg_sde_step_init_2m(&two, &s, 10), DG_EINVAL);
    assert_int_equal(dg_sde_step_init_2m(&two, &ddim, 3), DG_EINVAL);
    dg_schedule_fini(&s);
    dg_schedule_fini(&ddim);
}

/* From sigma = 0.8, where a window ends, to 0.1 in T steps: how far z is from the
 * exact path, on which z - (1 - sigma) m goes as sqrt(v). */
static double error_of(int T, int solve)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE };
    const SdeWindow w = { 0, 2 * T / 7 };
    double z, x0_before = 0, worst;
    SdeStep steps[T * 10 / 7];
    Schedule s;

    assert_int_equal(dg_schedule_init_flow(&s, T * 10 / 7, 1), DG_OK);
    assert_true(fabs(s.sigma[w.size] - 0.8) < 1e-6);
    assert_int_equal(dg_window_steps(steps, &ode, &s, &w), DG_OK);
    if (solve)
        assert_int_equal(dg_window_solve(steps, &s, &w), DG_OK);
    z = 0.2 * mean_of_bed + sqrt(bed_var(0.8, sd_of_bed));
    for (int i = w.size; i < w.size + T; i++) {
        const double m = (1 - (double)steps[i].sigma) * mean_of_bed;
        const double u =
            -mean_of_bed + bed_slope(steps[i].sigma, sd_of_bed) * (z - m);
        const double x0 = z - steps[i].sigma * u;

        z = steps[i].mean_z * z + steps[i].mean_u * u +
            steps[i].mean_x0 * x0_before;
        x0_before = x0;
    }
    worst = fabs(z - 0.9 * mean_of_bed - sqrt(bed_var(0.1, sd_of_bed)));
    dg_schedule_fini(&s);
    return worst;
}

/* Twice the steps: a quarter of the error, of Euler's half; and in 7 steps it is
 * nearer than Euler's in 28. */
static void test_multistep_is_of_second_order(void **state)
{
    (void)state;
    for (int T = 28; T <= 112; T *= 2) {
        const double two = error_of(T, 1) / error_of(2 * T, 1);
        const double one = error_of(T, 0) / error_of(2 * T, 0);

        assert_true(fabs(log2(two) - 2) < 0.15);
        assert_true(fabs(log2(one) - 1) < 0.15);
    }
    assert_true(error_of(7, 1) < error_of(28, 0));
}

/* The first behind the window and the last are the ode's, those between not. */
static void test_multistep_stands_behind_the_window(void **state)
{
    enum { T = 11 };
    const SdeOpts o = { .kind = DG_SDE_DANCE, .eta = 0.3 };
    Schedule s;
    SdeStep steps[T];

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, T, 3), DG_OK);
    for (int start = 0; start < T - 1; start++)
        for (int size = 1; size <= T - 1 - start; size++) {
            const SdeWindow w = { start, size };

            assert_int_equal(dg_window_steps(steps, &o, &s, &w), DG_OK);
            assert_int_equal(dg_window_solve(steps, &s, &w), DG_OK);
            for (int i = 0; i < T; i++) {
                assert_int_equal(steps[i].stochastic, dg_window_has(&w, i));
                assert_int_equal(steps[i].multistep,
                                 i > start + size && i < T - 1);
            }
        }
    dg_schedule_fini(&s);
}

/* MixGRPO-Flash's 25 steps: 21 behind the first window are 8. */
static void test_number_of_steps_behind(void **state)
{
    (void)state;
    assert_int_equal(dg_window_behind(4, 25, 0.4), 8);
    assert_int_equal(dg_window_behind(4, 25, 1), 21);
    assert_int_equal(dg_window_behind(5, 25, 0.4), 8);
    assert_int_equal(dg_window_behind(24, 25, 0.4), 1);
    assert_int_equal(dg_window_behind(15, 25, 0.2), 2);
    assert_int_equal(dg_window_behind(5, 25, 0.001), 1);
    for (int end = 1; end < 1000; end++)
        for (int tenth = 1; tenth <= 10; tenth++) {
            const int n = dg_window_behind(end, 1000, tenth / 10.0);
            const int want = (1000 - end) * tenth / 10;

            assert_int_equal(n, want > 1 ? want : 1);
        }
}

/* Fewer levels: the same up to there, then even before the shift, down to 0. */
static void test_levels_behind_are_even(void **state)
{
    enum { T = 25 };
    Schedule full, s;

    (void)state;
    for (int shift = 1; shift <= 7; shift += 3) {
        assert_int_equal(dg_schedule_init_flow(&full, T, shift), DG_OK);
        assert_int_equal(dg_schedule_init_flow(&s, T, shift), DG_OK);
        for (int from = 0; from < T; from++)
            for (int n = 1; n <= T - from; n++) {
                dg_schedule_shorten(&s, &full, from, n);
                assert_int_equal(s.num_steps, from + n);
                assert_true(s.sigma[from + n] == 0);
                for (int i = 0; i <= from + n; i++) {
                    const int far = i <= from || n == T - from;
                    const double behind = (double)(i - from) / n;
                    const double l = (1 - (double)from / T) * (1 - behind);

                    assert_true(i > from || s.sigma[i] == full.sigma[i]);
                    assert_true(!far || s.sigma[i] == full.sigma[i]);
                    assert_true(far ||
                                fabs(s.sigma[i] -
                                     shift * l / (1 + (shift - 1) * l)) < 4e-7);
                    assert_true(i == 0 || s.sigma[i] < s.sigma[i - 1]);
                    assert_true(i == from + n ||
                                s.timestep[i] ==
                                    (int32_t)(s.sigma[i] * 1000.0f));
                }
            }
        dg_schedule_fini(&full);
        dg_schedule_fini(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multistep_is_the_published_update),
        cmocka_unit_test(test_multistep_of_constant_data_is_the_ode),
        cmocka_unit_test(test_multistep_ends_are_the_ode),
        cmocka_unit_test(test_multistep_is_of_second_order),
        cmocka_unit_test(test_multistep_stands_behind_the_window),
        cmocka_unit_test(test_number_of_steps_behind),
        cmocka_unit_test(test_levels_behind_are_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
