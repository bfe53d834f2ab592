#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "diffusion/window.h"
#include "grpo/timesteps.h"

enum { T = 16, N = 4000 };

static const SdeWindow everything = { 0, T };

static TimestepOpts opts(TimestepMode mode, double fraction)
{
    return (TimestepOpts) { .mode = mode, .fraction = fraction, .seed = 3 };
}

static void test_timesteps_count_of_the_recipes(void **state)
{
    /* T, floor(0.6 (T - 1)), ceil(0.6 T) */
    static const int want[][3] = {
        { 12, 6, 8 }, { 16, 9, 10 }, { 20, 11, 12 }, { 25, 14, 15 }
    };
    TimestepOpts o = opts(DG_TIMESTEP_RANDOM, 0.6);
    SdeWindow w = { 0, 0 };
    int n;

    (void)state;
    for (int k = 0; k < 4; k++) {
        w.size = want[k][0];
        o.count = DG_COUNT_FLOOR_K;
        assert_int_equal(dg_timesteps_count(&n, &o, want[k][0], &w), DG_OK);
        assert_int_equal(n, want[k][1]);
        o.count = DG_COUNT_CEIL_T;
        assert_int_equal(dg_timesteps_count(&n, &o, want[k][0], &w), DG_OK);
        assert_int_equal(n, want[k][2]);
    }
    w.size = 50;
    o.fraction = 1;
    assert_int_equal(dg_timesteps_count(&n, &o, 50, &w), DG_OK);
    assert_int_equal(n, 49); /* ceil_t is capped at K */
    w.size = T;
    o.fraction = 1.0 / (T - 1); /* a single step is some */
    o.count = DG_COUNT_FLOOR_K;
    assert_int_equal(dg_timesteps_count(&n, &o, T, &w), DG_OK);
    assert_int_equal(n, 1);
}

static void test_timesteps_inv17_random_subset(void **state)
{
    const TimestepOpts o = opts(DG_TIMESTEP_RANDOM, 0.6);
    int32_t steps[T];
    int hits[T] = { 0 }, n;

    (void)state;
    assert_int_equal(dg_timesteps_count(&n, &o, T, &everything), DG_OK);
    for (uint32_t i = 0; i < N; i++) {
        const TimestepPlace place = { i / 40, i / 4 % 10, i % 4 };
        int seen[T] = { 0 };

        assert_int_equal(dg_timesteps_select(steps, &o, T, &everything, place),
                         DG_OK);
        for (int k = 0; k < n; k++) {
            assert_true(steps[k] >= 0 && steps[k] <= T - 2);
            assert_false(seen[steps[k]]);
            seen[steps[k]] = 1;
            hits[steps[k]]++;
        }
    }
    /* binomial with p = n / (T - 1): 5 standard deviations */
    const double p = n / (T - 1.0);

    for (int j = 0; j < T - 1; j++)
        assert_true(fabs(hits[j] - N * p) < 5 * sqrt(N * p * (1 - p)));
    assert_int_equal(hits[T - 1], 0);
}

static void test_timesteps_scope(void **state)
{
    TimestepOpts o = opts(DG_TIMESTEP_RANDOM, 0.6);
    const TimestepPlace a = { 5, 6, 0 }, b = { 5, 6, 1 }, c = { 5, 7, 0 },
                        d = { 6, 6, 0 };
    int32_t x[T], y[T];
    const size_t size = 9 * sizeof *x;

    (void)state;
    dg_timesteps_select(x, &o, T, &everything, a);
    dg_timesteps_select(y, &o, T, &everything, a);
    assert_memory_equal(x, y, size);
    dg_timesteps_select(y, &o, T, &everything, b);
    assert_memory_not_equal(x, y, size);
    o.scope = DG_SCOPE_GROUP;
    dg_timesteps_select(x, &o, T, &everything, a);
    dg_timesteps_select(y, &o, T, &everything, b);
    assert_memory_equal(x, y, size);
    dg_timesteps_select(y, &o, T, &everything, c);
    assert_memory_not_equal(x, y, size);
    dg_timesteps_select(y, &o, T, &everything, d);
    assert_memory_not_equal(x, y, size);
    o.seed++;
    dg_timesteps_select(y, &o, T, &everything, a);
    assert_memory_not_equal(x, y, size);
}

static void check_range(const TimestepOpts *o, const SdeWindow *w, int first,
                        int count)
{
    const TimestepPlace place = { 1, 2, 3 };
    int32_t steps[T];
    int n;

    assert_int_equal(dg_timesteps_count(&n, o, T, w), DG_OK);
    assert_int_equal(n, count);
    assert_int_equal(dg_timesteps_select(steps, o, T, w, place), DG_OK);
    for (int k = 0; k < n; k++)
        assert_int_equal(steps[k], first + k);
}

static void test_timesteps_fixed_modes(void **state)
{
    const SdeWindow w = { 5, 4 }, end = { 13, 2 };
    TimestepOpts o = opts(DG_TIMESTEP_FIRST, 0.3);

    (void)state;
    check_range(&o, &everything, 0, 4);
    o = opts(DG_TIMESTEP_LAST, 0.4);
    check_range(&o, &everything, 9, 6); /* ends with T - 2 */
    o = opts(DG_TIMESTEP_ALL, 0);
    check_range(&o, &everything, 0, T - 1);
    check_range(&o, &w, 5, 4);
    o = opts(DG_TIMESTEP_WINDOW, 0);
    check_range(&o, &w, 5, 4);
    check_range(&o, &end, 13, 2);
    o = opts(DG_TIMESTEP_LAST, 0.5);
    check_range(&o, &w, 7, 2);
}

static void test_timesteps_random_stays_in_the_window(void **state)
{
    const TimestepOpts o = opts(DG_TIMESTEP_RANDOM, 0.5);
    const SdeWindow w = { 5, 4 };
    int32_t steps[T];
    int hits[T] = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        const TimestepPlace place = { i, 0, 0 };

        dg_timesteps_select(steps, &o, T, &w, place);
        hits[steps[0]]++;
        hits[steps[1]]++;
    }
    for (int j = 0; j < T; j++)
        assert_true((hits[j] > 0) == (j >= 5 && j < 9));
}

static void test_timesteps_refuses_bad_values(void **state)
{
    const SdeWindow last = { T - 1, 1 };
    TimestepOpts o = opts(DG_TIMESTEP_RANDOM, 0);
    int n = 77;

    (void)state;
    assert_int_equal(dg_timesteps_count(&n, &o, T, &everything), DG_EINVAL);
    o.fraction = 1.01;
    assert_int_equal(dg_timesteps_count(&n, &o, T, &everything), DG_EINVAL);
    o.fraction = 0.05; /* floor(0.75) = 0 */
    assert_int_equal(dg_timesteps_count(&n, &o, T, &everything), DG_EINVAL);
    o = opts(DG_TIMESTEP_WINDOW, 1);
    assert_int_equal(dg_timesteps_count(&n, &o, T, &everything), DG_EINVAL);
    o = opts(DG_TIMESTEP_ALL, 1);
    assert_int_equal(dg_timesteps_count(&n, &o, T, &last), DG_EINVAL);
    assert_int_equal(n, 77);
}

/* By the width of a step's noise, of mean 1 over those that may be trained,
 * which of the last one nobody asks. */
static void test_timesteps_weights(void **state)
{
    const SdeOpts sde = { .kind = DG_SDE_FLOW_SDE, .eta = 0.7 };
    const SdeWindow w = { 5, 4 };
    Schedule flow;
    SdeStep steps[T];
    double weight[T], sum = 0;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&flow, T, 3), DG_OK);
    assert_int_equal(dg_window_steps(steps, &sde, &flow, &everything), DG_OK);
    dg_timesteps_weigh(weight, DG_WEIGHT_NONE, steps, T, &everything);
    for (int i = 0; i < T; i++)
        assert_true(weight[i] == 1);
    dg_timesteps_weigh(weight, DG_WEIGHT_STD, steps, T, &everything);
    for (int i = 0; i < T - 1; i++) {
        sum += weight[i];
        assert_true(fabs(weight[i] * steps[0].std - weight[0] * steps[i].std) <
                    1e-14);
    }
    assert_true(fabs(sum - (T - 1)) < 1e-12);
    dg_timesteps_weigh(weight, DG_WEIGHT_LENGTH, steps, T, &everything);
    sum = 0;
    for (int i = 0; i < T - 1; i++) {
        const double length = flow.sigma[i] - flow.sigma[i + 1];

        sum += weight[i];
        assert_true(
            fabs(weight[i] * length / (weight[0] * (1 - flow.sigma[1])) - 1) <
            1e-6);
    }
    assert_true(fabs(sum - (T - 1)) < 1e-12 && weight[0] > 2 * weight[T - 2]);
    assert_int_equal(dg_window_steps(steps, &sde, &flow, &w), DG_OK);
    dg_timesteps_weigh(weight, DG_WEIGHT_STD, steps, T, &w);
    assert_true(fabs(weight[5] + weight[6] + weight[7] + weight[8] - 4) <
                1e-12);
    assert_true(weight[5] > weight[8] && weight[8] > 0);
    dg_schedule_fini(&flow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timesteps_count_of_the_recipes),
        cmocka_unit_test(test_timesteps_inv17_random_subset),
        cmocka_unit_test(test_timesteps_scope),
        cmocka_unit_test(test_timesteps_fixed_modes),
        cmocka_unit_test(test_timesteps_random_stays_in_the_window),
        cmocka_unit_test(test_timesteps_weights),
        cmocka_unit_test(test_timesteps_refuses_bad_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
