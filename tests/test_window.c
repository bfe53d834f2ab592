/* The mixed ODE-SDE window: MixGRPO's script has T = 25, w = 4, one step
 * every 25 iterations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "config/config.h"
#include "diffusion/window.h"

enum { T = 25 };

static void test_window_advances_and_wraps(void **state)
{
    const WindowOpts o = { .size = 4, .every = 25 };
    SdeWindow w;

    (void)state;
    for (int it = 0; it < 25 * (T - 1) * 2; it++) {
        const int start = it / 25 % (T - 1);

        assert_int_equal(dg_window_at(&w, &o, T, it), DG_OK);
        assert_int_equal(w.start, start);
        assert_true(w.size >= 1 && w.size <= 4);
        assert_true(w.size == 4 || w.start + w.size == T - 1);
        assert_false(dg_window_has(&w, T - 1)); /* never the last step */
    }
}

static void test_window_start_and_long_runs(void **state)
{
    const WindowOpts o = { .start = 20, .size = 2, .every = 1 };
    SdeWindow w;

    (void)state;
    assert_int_equal(dg_window_at(&w, &o, T, 9), DG_OK);
    assert_int_equal(w.start, 29 % 24);
    assert_int_equal(dg_window_at(&w, &o, T, INT64_C(1) << 62), DG_OK);
    assert_true(w.start >= 0 && w.start < T - 1);
}

static void test_window_can_stay_fixed(void **state)
{
    const WindowOpts o = { .start = 3, .size = 4 };
    SdeWindow w;

    (void)state;
    assert_int_equal(dg_window_at(&w, &o, T, 1000), DG_OK);
    assert_int_equal(w.start, 3);
    assert_int_equal(w.size, 4);
}

/* The longest window, and the shortest run. */
static void test_window_of_all_but_the_last(void **state)
{
    SdeWindow w;

    (void)state;
    for (int num = 2; num <= T; num++) {
        const WindowOpts all = { .size = num - 1, .every = 1 };
        const WindowOpts last = { .start = num - 2, .size = 1 };

        assert_int_equal(dg_window_at(&w, &all, num, 0), DG_OK);
        assert_int_equal(w.start, 0);
        assert_int_equal(w.size, num - 1);
        assert_int_equal(dg_window_at(&w, &all, num, num - 2), DG_OK);
        assert_int_equal(w.start, num - 2);
        assert_int_equal(w.size, 1);
        assert_int_equal(dg_window_at(&w, &last, num, 9), DG_OK);
        assert_int_equal(w.start, num - 2);
        assert_int_equal(w.size, 1);
    }
}

static void test_window_off_is_every_step(void **state)
{
    const WindowOpts o = { .size = 0 };
    SdeWindow w;

    (void)state;
    assert_int_equal(dg_window_at(&w, &o, T, 7), DG_OK);
    for (int i = 0; i < T; i++)
        assert_true(dg_window_has(&w, i));
    assert_false(dg_window_has(&w, T));
    assert_false(dg_window_has(&w, -1));
}

static void test_window_steps_are_ode_outside(void **state)
{
    const SdeOpts o = { .kind = DG_SDE_FLOW_SDE, .eta = 0.7 };
    const SdeWindow w = { 3, 4 };
    Schedule s;
    SdeStep steps[T], one;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, T, 3), DG_OK);
    assert_int_equal(dg_window_steps(steps, &o, &s, &w), DG_OK);
    for (int i = 0; i < T; i++) {
        assert_int_equal(steps[i].index, i);
        assert_int_equal(steps[i].stochastic, i >= 3 && i < 7);
        assert_int_equal(steps[i].kind,
                         i >= 3 && i < 7 ? DG_SDE_FLOW_SDE : DG_SDE_ODE);
        if (steps[i].stochastic) {
            dg_sde_step_init(&one, &o, &s, i);
            assert_true(steps[i].std == one.std);
        }
    }
    dg_schedule_fini(&s);
}

/* Before an end it slides over the steps there are, and is cut there. */
static void test_window_stays_before_its_end(void **state)
{
    const WindowOpts o = { .start = 1, .size = 3, .every = 2, .end = 6 };
    const WindowOpts fixed = { .start = 4, .size = 3, .end = 6 };
    SdeWindow w;

    (void)state;
    for (int it = 0; it < 50; it++) {
        const int start = (1 + it / 2) % 6;

        assert_int_equal(dg_window_at(&w, &o, T, it), DG_OK);
        assert_int_equal(w.start, start);
        assert_int_equal(w.size, start < 3 ? 3 : 6 - start);
    }
    assert_int_equal(dg_window_at(&w, &fixed, T, 9), DG_OK);
    assert_int_equal(w.start, 4);
    assert_int_equal(w.size, 2);
}

/* A place of as many as there are, whole and the same for as long as it stays,
 * each as often as any other: of 8000 draws 1000 within 5 deviations of 30. */
static void test_window_is_drawn(void **state)
{
    const WindowOpts o = { .start = 2,
                           .size = 4,
                           .every = 3,
                           .end = 13,
                           .move = DG_WINDOW_RANDOM,
                           .seed = 7 };
    WindowOpts other = o;
    int times[T] = { 0 }, differ = 0;
    SdeWindow w, first, of_other;

    (void)state;
    other.seed = 8;
    for (int k = 0; k < 8000; k++) {
        assert_int_equal(dg_window_at(&first, &o, T, 3 * k), DG_OK);
        assert_int_equal(first.size, 4);
        assert_true(first.start >= 2 && first.start <= 9);
        times[first.start]++;
        for (int i = 1; i < 3; i++) {
            assert_int_equal(dg_window_at(&w, &o, T, 3 * k + i), DG_OK);
            assert_int_equal(w.start, first.start);
        }
        assert_int_equal(dg_window_at(&of_other, &other, T, 3 * k), DG_OK);
        differ += of_other.start != first.start;
    }
    for (int i = 2; i <= 9; i++)
        assert_in_range(times[i], 850, 1150);
    assert_in_range(differ, 6700, 7300); /* 7 of 8 */
}

/* The only place there is, and the last that there may be. */
static void test_window_is_drawn_to_the_last_place(void **state)
{
    const WindowOpts one = {
        .start = 21, .size = 3, .every = 1, .move = DG_WINDOW_RANDOM
    };
    const WindowOpts two = {
        .start = 20, .size = 3, .every = 1, .move = DG_WINDOW_RANDOM
    };
    int seen[T] = { 0 };
    SdeWindow w;

    (void)state;
    for (int it = 0; it < 40; it++) {
        assert_int_equal(dg_window_at(&w, &one, T, it), DG_OK);
        assert_int_equal(w.start, 21);
        assert_int_equal(w.size, 3);
        assert_int_equal(dg_window_at(&w, &two, T, it), DG_OK);
        seen[w.start]++;
    }
    assert_true(seen[20] > 0 && seen[21] > 0 && seen[20] + seen[21] == 40);
}

/* Where it is in every iteration, told by how long it stays at each place. */
static void expect_places(const WindowOpts *o, int (*place)[2], int num)
{
    int64_t it = 0;
    SdeWindow w;

    for (int k = 0; k < num; k++) {
        const int64_t until = it + place[k][1];

        for (; it < until; it++) {
            assert_int_equal(dg_window_at(&w, o, T, it), DG_OK);
            assert_int_equal(w.start, place[k][0]);
            if (k + 1 < num)
                assert_int_equal(dg_window_next(o, T, it), until);
        }
    }
}

/* MixGRPO's window without overlap moves by its size, and so do others: its
 * places are 0, 4, ... 20 of 24 steps, or from 5 on in the first pass. */
static void test_window_strides(void **state)
{
    const WindowOpts o = { .size = 4, .every = 3, .stride = 4 };
    const WindowOpts five = { .start = 5, .size = 3, .every = 2, .stride = 7 };
    int first[][2] = { { 5, 2 }, { 12, 2 }, { 19, 2 }, { 0, 2 },
                       { 7, 2 }, { 14, 2 }, { 21, 2 }, { 0, 2 } };
    const int64_t far = (INT64_C(1) << 61) / (6 * 3) * (6 * 3);
    SdeWindow w;

    (void)state;
    for (int it = 0; it < 100; it++) {
        assert_int_equal(dg_window_at(&w, &o, T, it), DG_OK);
        assert_int_equal(w.start, it / 3 % 6 * 4);
        assert_int_equal(w.size, 4);
        assert_int_equal(dg_window_at(&w, &o, T, far + it), DG_OK);
        assert_int_equal(w.start, it / 3 % 6 * 4);
        assert_int_equal(dg_window_next(&o, T, it), it / 3 * 3 + 3);
    }
    expect_places(&five, first, 8);
    assert_int_equal(dg_window_at(&w, &five, T, 13), DG_OK);
    assert_int_equal(w.size, 3); /* 21, 22, 23: whole */
}

/* Without another pass it stays at its last place. */
static void test_window_comes_to_its_last_place(void **state)
{
    const WindowOpts o = {
        .start = 1, .size = 4, .every = 2, .end = 12, .stride = 5, .no_wrap = 1
    };
    int places[][2] = { { 1, 2 }, { 6, 2 }, { 11, 90 } };
    SdeWindow w;

    (void)state;
    expect_places(&o, places, 3);
    assert_int_equal(dg_window_at(&w, &o, T, INT64_C(1) << 62), DG_OK);
    assert_int_equal(w.start, 11);
    assert_int_equal(w.size, 1);
    assert_true(dg_window_next(&o, T, 3) == 4);
    assert_true(dg_window_next(&o, T, 4) == INT64_MAX);
}

/* MixGRPO's decay with 25 steps, of which its window has the first 23: numbers
 * of iterations at step 0, 1, ... as double precision makes them. From 25 to 2
 * whole numbers are met, so that floor shows the last bit: 18 at step 6, not 19.
 * Without rounding it is every - (every - least) t / 23. */
static void test_window_decays_linearly(void **state)
{
    static const int ten[] = { 10, 9, 9, 8, 8, 8, 7, 7, 6, 6, 6, 5,
                               5,  4, 4, 4, 3, 3, 2, 2, 2, 1, 1 };
    static const int other[] = { 25, 24, 23, 22, 21, 20, 18, 18, 17, 16, 15, 14,
                                 13, 12, 10, 10, 9,  8,  6,  6,  5,  4,  2 };
    WindowOpts o = {
        .size = 4, .every = 10, .end = 23, .decay = DG_WINDOW_LINEAR, .least = 1
    };
    int places[2 * 23][2];

    (void)state;
    for (int i = 0; i < 2 * 23; i++) {
        places[i][0] = i % 23;
        places[i][1] = ten[i % 23];
    }
    expect_places(&o, places, 2 * 23);
    o.every = 25;
    o.least = 2;
    for (int i = 0; i < 2 * 23; i++)
        places[i][1] = other[i % 23];
    expect_places(&o, places, 2 * 23);
    for (int i = 0; i < 23; i++) {
        assert_true(other[i] <= 25 - i);
        assert_true(other[i] >= 24 - i);
    }
}

/* Its exp_decay with its own constants, 13 and 0.1, and 25 iterations; and a
 * decay to a single one, with strides. */
static void test_window_decays_exponentially(void **state)
{
    static const int stays[] = { 25, 23, 21, 19, 17, 16, 14, 13, 12, 11 };
    const WindowOpts o = { .size = 4,
                           .every = 25,
                           .end = 23,
                           .decay = DG_WINDOW_EXP,
                           .from = 13,
                           .rate = 0.1 };
    const WindowOpts steep = { .size = 4,
                               .every = 6,
                               .stride = 6,
                               .decay = DG_WINDOW_EXP,
                               .from = 2,
                               .rate = 100 };
    int few[][2] = { { 0, 6 }, { 6, 1 }, { 12, 1 }, { 18, 1 }, { 0, 6 } };
    int places[2 * 23][2];

    (void)state;
    for (int i = 0; i < 2 * 23; i++) {
        places[i][0] = i % 23;
        places[i][1] = i % 23 > 13 ? stays[i % 23 - 13] : 25;
    }
    expect_places(&o, places, 2 * 23);
    expect_places(&steep, few, 5);
}

/* A window that is drawn anew, or never moves. */
static void test_window_next_of_others(void **state)
{
    const WindowOpts drawn = { .size = 4,
                               .every = 3,
                               .move = DG_WINDOW_RANDOM };
    const WindowOpts fixed = { .size = 4 }, off = { .every = 3 };

    (void)state;
    for (int it = 0; it < 9; it++)
        assert_int_equal(dg_window_next(&drawn, T, it), it / 3 * 3 + 3);
    assert_true(dg_window_next(&fixed, T, 5) == INT64_MAX);
    assert_true(dg_window_next(&off, T, 5) == INT64_MAX);
}

static void test_window_refuses_bad_values(void **state)
{
    const WindowOpts bad[] = {
        { .size = -1, .every = 1 },
        { .size = T, .every = 1 },
        { .start = T - 1, .size = 4, .every = 1 },
        { .start = -1, .size = 4, .every = 1 },
        { .size = 4, .every = -1 },
        { .size = 4, .every = 1, .end = -1 },
        { .size = 4, .every = 1, .end = T },
        { .start = 6, .size = 4, .every = 1, .end = 6 },
        { .size = 7, .every = 1, .end = 6 },
        { .start = 3,
          .size = 4,
          .every = 1,
          .end = 6,
          .move = DG_WINDOW_RANDOM },
        { .size = 4, .move = DG_WINDOW_RANDOM },
        { .size = 4, .every = 1, .stride = -1 },
        { .size = 4, .decay = DG_WINDOW_EXP },
        { .size = 4,
          .every = 2,
          .decay = DG_WINDOW_EXP,
          .move = DG_WINDOW_RANDOM },
        { .size = 4, .every = 2, .decay = DG_WINDOW_EXP, .rate = -1 },
        { .size = 4, .every = 2, .decay = DG_WINDOW_LINEAR },
        { .size = 4, .every = 2, .decay = DG_WINDOW_LINEAR, .least = 3 },
    };
    SdeWindow w = { 77, 77 };

    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_int_equal(dg_window_at(&w, &bad[k], T, 0), DG_EINVAL);
    assert_int_equal(dg_window_at(&w, &bad[0], 1, 0), DG_EINVAL);
    assert_int_equal(w.start, 77);
}

/* What is at the edge of the allowed is allowed, and a message names the edge. */
static void test_window_takes_the_last_of_what_it_says(void **state)
{
    const WindowOpts good[] = {
        { .size = T - 1, .every = 1 },
        { .start = T - 2, .size = 4, .every = 1 },
        { .size = 4, .every = 1, .end = T - 1 },
        { .size = 6, .every = 1, .end = 6 },
        { .start = 2,
          .size = 4,
          .every = 1,
          .end = 6,
          .move = DG_WINDOW_RANDOM },
        { .size = 4, .every = 2, .decay = DG_WINDOW_EXP, .rate = 0 },
        { .size = 4, .every = 2, .decay = DG_WINDOW_LINEAR, .least = 1 },
        { .size = 4, .every = 2, .decay = DG_WINDOW_LINEAR, .least = 2 },
    };
    const WindowOpts late = { .size = 4, .every = 1, .end = T };
    const WindowOpts behind = { .start = 6, .size = 4, .every = 1, .end = 6 };
    SdeWindow w;
    char want[64];

    (void)state;
    for (size_t k = 0; k < sizeof good / sizeof *good; k++)
        assert_int_equal(dg_window_at(&w, &good[k], T, 0), DG_OK);
    assert_int_equal(dg_window_at(&w, &late, T, 0), DG_EINVAL);
    snprintf(want, sizeof want, "must be 0 (off) to %d (", T - 1);
    assert_non_null(strstr(dg_last_error()->text, want));
    assert_int_equal(dg_window_at(&w, &behind, T, 0), DG_EINVAL);
    assert_string_equal(dg_last_error()->text,
                        "sampler.window_start = 6: must be 0 to 5");
}

/* A configuration is refused before anything is computed, by its keys. */
static void test_window_of_a_configuration(void **state)
{
    static const struct {
        int64_t start, size, end;
        WindowMove move;
        const char *part;
    } bad[] = {
        { 0, 4, 16, DG_WINDOW_SLIDE,
          "window_end = 16: must be at most sampler.steps - 1 = 15" },
        { 0, 4, 3, DG_WINDOW_SLIDE,
          "window_size = 4: must be at most sampler.window_end = 3" },
        { 3, 1, 3, DG_WINDOW_SLIDE,
          "window_start = 3: must be less than sampler.window_end = 3" },
        { 12, 4, 0, DG_WINDOW_RANDOM,
          "at most sampler.steps - 1 - sampler.window_start = 3" },
        { 0, 4, 0, DG_WINDOW_RANDOM,
          "window_move = random: needs sampler.window_every > 0" },
    };
    Config c;

    (void)state;
    dg_config_defaults(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c.sampler.window_start = bad[i].start;
        c.sampler.window_size = bad[i].size;
        c.sampler.window_end = bad[i].end;
        c.sampler.window_move = bad[i].move;
        assert_int_equal(dg_config_check(&c), DG_EINVAL);
        assert_non_null(strstr(dg_last_error()->text, bad[i].part));
    }
    c.sampler.window_move = DG_WINDOW_SLIDE;
    c.sampler.window_decay = DG_WINDOW_EXP;
    assert_int_equal(dg_config_check(&c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "window_decay = exp: needs sampler.window_every >"));
    c.sampler.window_every = 3;
    c.sampler.window_decay = DG_WINDOW_LINEAR;
    c.sampler.window_every_least = 4;
    assert_int_equal(dg_config_check(&c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "window_every_least = 4: must be at most "
                           "sampler.window_every = 3"));
    c.sampler.window_every_least = 3;
    c.sampler.window_move = DG_WINDOW_RANDOM;
    assert_int_equal(dg_config_check(&c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "window_decay = linear: needs sampler.window_move"));
    c.sampler.window_decay = DG_WINDOW_EVEN;
    c.sampler.window_every = 1;
    dg_clear_error();
    dg_config_check(&c); /* other keys may be missing, none of these is wrong */
    assert_null(strstr(dg_last_error()->text, "sampler."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_advances_and_wraps),
        cmocka_unit_test(test_window_start_and_long_runs),
        cmocka_unit_test(test_window_can_stay_fixed),
        cmocka_unit_test(test_window_of_all_but_the_last),
        cmocka_unit_test(test_window_off_is_every_step),
        cmocka_unit_test(test_window_steps_are_ode_outside),
        cmocka_unit_test(test_window_stays_before_its_end),
        cmocka_unit_test(test_window_is_drawn),
        cmocka_unit_test(test_window_is_drawn_to_the_last_place),
        cmocka_unit_test(test_window_strides),
        cmocka_unit_test(test_window_comes_to_its_last_place),
        cmocka_unit_test(test_window_decays_linearly),
        cmocka_unit_test(test_window_decays_exponentially),
        cmocka_unit_test(test_window_next_of_others),
        cmocka_unit_test(test_window_refuses_bad_values),
        cmocka_unit_test(test_window_takes_the_last_of_what_it_says),
        cmocka_unit_test(test_window_of_a_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
