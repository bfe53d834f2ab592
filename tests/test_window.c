/* The mixed ODE-SDE window: MixGRPO's script has T = 25, w = 4, one step
 * every 25 iterations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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
    };
    SdeWindow w = { 77, 77 };

    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_int_equal(dg_window_at(&w, &bad[k], T, 0), DG_EINVAL);
    assert_int_equal(dg_window_at(&w, &bad[0], 1, 0), DG_EINVAL);
    assert_int_equal(w.start, 77);
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
        cmocka_unit_test(test_window_refuses_bad_values),
        cmocka_unit_test(test_window_of_a_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
