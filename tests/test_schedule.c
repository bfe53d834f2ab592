/* The time tables are those published in the reference implementation's runs
 * (t tables of the rectified-flow recipes, DDIM constants of SD v1.4). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/float_bits.h"
#include "diffusion/schedule.h"

static void check_table(int steps, double shift, const int *want)
{
    Schedule s;

    assert_int_equal(dg_schedule_init_flow(&s, steps, shift), DG_OK);
    assert_true(s.sigma[0] == 1.0f && s.sigma[steps] == 0.0f);
    for (int i = 0; i < steps; i++) {
        assert_int_equal(s.timestep[i], want[i]);
        assert_true(s.sigma[i] > s.sigma[i + 1]);
        assert_true(dg_schedule_time(&s, i, DG_TIME_INTEGER) == (float)want[i]);
        assert_true(dg_schedule_time(&s, i, DG_TIME_SIGMA) == s.sigma[i]);
    }
    dg_schedule_fini(&s);
}

static void test_schedule_inv17_flow_time_tables(void **state)
{
    static const int t16k3[] = { 1000, 978, 954, 928, 900, 868, 833, 794,
                                 750,  700, 642, 576, 500, 409, 300, 166 };
    static const int t12k3[] = { 1000, 970, 937, 900, 857, 807,
                                 750,  681, 599, 500, 375, 214 };
    static const int t20k3[] = { 1000, 982, 964, 944, 923, 900, 874,
                                 847,  818, 785, 750, 710, 666, 617,
                                 562,  500, 428, 346, 250, 136 };
    static const int t16k5[] = { 1000, 986, 972, 955, 937, 916, 892, 865,
                                 833,  795, 750, 694, 625, 535, 416, 250 };
    static const int t16k7[] = { 1000, 990, 980, 968, 954, 939, 921, 900,
                                 875,  844, 807, 760, 700, 617, 500, 318 };

    (void)state;
    check_table(16, 3, t16k3);
    check_table(12, 3, t12k3);
    check_table(20, 3, t20k3);
    check_table(16, 5, t16k5);
    check_table(16, 7, t16k7);
}

static void test_schedule_shift_one_is_linear(void **state)
{
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 8, 1), DG_OK);
    for (int i = 0; i <= 8; i++)
        assert_true(s.sigma[i] == 1.0f - 0.125f * (float)i);
    dg_schedule_fini(&s);
}

static void test_schedule_bf16_times_of_flux(void **state)
{
    static const struct {
        int t, want;
    } moved[] = { { 978, 976 }, { 954, 952 }, { 833, 832 }, { 794, 792 },
                  { 750, 752 }, { 642, 640 }, { 409, 408 } };
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 16, 3), DG_OK);
    for (int i = 0; i < 16; i++) {
        int want = s.timestep[i];

        for (size_t k = 0; k < sizeof moved / sizeof *moved; k++)
            if (moved[k].t == want)
                want = moved[k].want;
        assert_true(dg_schedule_time(&s, i, DG_TIME_BF16) == (float)want);
        assert_true(dg_schedule_time(&s, i, DG_TIME_UNIT) ==
                    (float)s.timestep[i] / 1000.0f);
    }
    dg_schedule_fini(&s);
    assert_true(dg_round_bf16(6018.0f) == 6016.0f);
    assert_true(dg_round_bf16(3500.0f) == 3504.0f);
    assert_true(isnan(dg_round_bf16(NAN)));
}

static void test_schedule_ddim_constants(void **state)
{
    static const struct {
        int t;
        double want;
    } v[] = { { 0, 0.99915 },    { 1, 0.998296 },    { 21, 0.980381 },
              { 501, 0.274999 }, { 981, 0.0057755 }, { 999, 0.0046601 } };
    float table[1000];

    (void)state;
    dg_schedule_alpha_bar_table(table);
    for (size_t k = 0; k < sizeof v / sizeof *v; k++)
        assert_true(fabs(table[v[k].t] - v[k].want) < 1e-6);
}

static void test_schedule_ddim_leading_times(void **state)
{
    Schedule s;
    float table[1000];

    (void)state;
    dg_schedule_alpha_bar_table(table);
    assert_int_equal(dg_schedule_init_ddim(&s, 50), DG_OK);
    for (int j = 0; j < 50; j++) {
        assert_int_equal(s.timestep[j], 981 - 20 * j);
        assert_true(s.alpha_bar[j] == table[981 - 20 * j]);
        if (j < 49)
            assert_true(s.alpha_bar_next[j] == s.alpha_bar[j + 1]);
        assert_true(dg_schedule_time(&s, j, DG_TIME_INTEGER) ==
                    (float)(981 - 20 * j));
        assert_true(dg_schedule_time(&s, j, DG_TIME_UNIT) ==
                    (float)(981 - 20 * j) / 1000);
        assert_true(dg_schedule_time_of(s.timestep[j], DG_TIME_BF16) ==
                    dg_schedule_time(&s, j, DG_TIME_BF16));
    }
    assert_true(s.alpha_bar_next[49] == table[0]);
    dg_schedule_fini(&s);
}

/* One step, and as many as there are times. */
static void test_schedule_shortest_and_longest(void **state)
{
    float table[1000];
    Schedule s;

    (void)state;
    dg_schedule_alpha_bar_table(table);
    assert_int_equal(dg_schedule_init_flow(&s, 1, 3), DG_OK);
    assert_true(s.sigma[0] == 1 && s.sigma[1] == 0);
    assert_int_equal(s.timestep[0], 1000);
    dg_schedule_fini(&s);
    assert_int_equal(dg_schedule_init_ddim(&s, 1), DG_OK);
    assert_int_equal(s.timestep[0], 1);
    assert_true(s.alpha_bar[0] == table[1] && s.alpha_bar_next[0] == table[0]);
    dg_schedule_fini(&s);
    assert_int_equal(dg_schedule_init_ddim(&s, 999), DG_OK);
    for (int j = 0; j < 999; j++) {
        assert_int_equal(s.timestep[j], 999 - j);
        assert_true(s.alpha_bar[j] == table[999 - j]);
        assert_true(s.alpha_bar_next[j] == table[998 - j]);
    }
    dg_schedule_fini(&s);
}

static void test_schedule_refuses_bad_values(void **state)
{
    Schedule s = { .num_steps = 77 };

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, 0, 3), DG_EINVAL);
    assert_int_equal(dg_schedule_init_flow(&s, 4, 0), DG_EINVAL);
    assert_int_equal(dg_schedule_init_flow(&s, 4, NAN), DG_EINVAL);
    assert_int_equal(dg_schedule_init_flow(&s, 64, 1e9), DG_EINVAL);
    assert_int_equal(dg_schedule_init_ddim(&s, 0), DG_EINVAL);
    assert_int_equal(dg_schedule_init_ddim(&s, 1000), DG_EINVAL);
    assert_int_equal(s.num_steps, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_inv17_flow_time_tables),
        cmocka_unit_test(test_schedule_shift_one_is_linear),
        cmocka_unit_test(test_schedule_bf16_times_of_flux),
        cmocka_unit_test(test_schedule_ddim_constants),
        cmocka_unit_test(test_schedule_ddim_leading_times),
        cmocka_unit_test(test_schedule_shortest_and_longest),
        cmocka_unit_test(test_schedule_refuses_bad_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
