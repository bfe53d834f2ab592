/*
 * The cpu kernels against plain double loops, finite differences, and the
 * promises of tensor/backend.h: ref_checks.c, and what is theirs alone.
 */
#include "cpu/cpu.h"
#include "ref_checks.h"
#include "ref_kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_embed_looks_up_and_adds_back(void **unused)
{
    const int32_t ids[] = { 4, 0, 4, 2, 4 };
    float table[5 * 19], y[5 * 19], want[5 * 19], d[2][5 * 19];
    EmbedArgs a = { 5, 19, 5, ids, table, y, table, d[0] };

    (void)unused;
    kernel_draws_from(6);
    for (int i = 0; i < 5 * 19; ++i) {
        table[i] = kernel_draw();
        d[0][i] = d[1][i] = kernel_draw();
    }
    dg_backend_cpu()->embed(&a);
    a.y = want;
    ref_backend()->embed(&a);
    assert_memory_equal(y, want, sizeof y);
    dg_backend_cpu()->embed_grad(&a);
    a.dtable = d[1];
    ref_backend()->embed_grad(&a);
    assert_memory_equal(d[0], d[1], sizeof d[0]);
}

static void test_first_nonfinite_finds_the_first(void **unused)
{
    enum { N = 10007 };
    static const int64_t places[] = { 0, 15, 16, 4095, 4096, 9999, N - 1 };
    float *x = malloc(N * sizeof *x);

    (void)unused;
    kernel_draws_from(7);
    for (int i = 0; i < N; ++i)
        x[i] = kernel_draw() * 1e38f;
    assert_int_equal(dg_backend_cpu()->first_nonfinite(x, N), -1);
    for (size_t i = sizeof places / sizeof *places; i-- > 0;) {
        x[places[i]] = i & 1 ? NAN : -INFINITY;
        assert_int_equal(dg_backend_cpu()->first_nonfinite(x, N), places[i]);
    }
    free(x);
}

/* A sample of one row, such as a time's embedding, among more of them than rows
 * are few: the library's bits of one row are others. */
static void test_single_rows_do_not_depend_on_neighbours(void **unused)
{
    enum { IN = 40, OUT = 33, NUM = 24 };
    float x[NUM * IN], w[OUT * IN], all[NUM * OUT], one[OUT];
    LinearArgs a = { .rows = NUM,
                     .in = IN,
                     .out = OUT,
                     .ldw = IN,
                     .rows_per_sample = 1,
                     .x = x,
                     .w = w,
                     .y = all };

    (void)unused;
    kernel_draws_from(8);
    for (int i = 0; i < NUM * IN; ++i)
        x[i] = kernel_draw();
    for (int i = 0; i < OUT * IN; ++i)
        w[i] = kernel_draw();
    dg_backend_cpu()->linear(&a);
    a.rows = 1;
    a.y = one;
    for (int i = 0; i < NUM; ++i) {
        a.x = x + i * IN;
        dg_backend_cpu()->linear(&a);
        assert_memory_equal(one, all + i * OUT, sizeof one);
    }
}

/* Relative error over the whole range, tails included. */
static void test_activations_are_accurate_everywhere(void **unused)
{
    (void)unused;
    for (int act = DG_ACT_SILU; act <= DG_ACT_QUICK_GELU; ++act)
        for (double x = -9.0; x < 9.0; x += 0.00173) {
            const float at = (float)x;
            float y, want;
            dg_backend_cpu()->act(&(ActArgs) { (Act)act, 1, &at, NULL, &y, 0 });
            ref_backend()->act(&(ActArgs) { (Act)act, 1, &at, NULL, &want, 0 });
            /* e^-a of a rounded exponent a <= 90: 90 eps / 2 in the tails */
            const double rel = fabs((double)y - want) / fabs(want);
            const double allowed = (4.0 + 3.0 * x * x) * FLT_EPSILON;
            if (want != 0.0f && fabs(want) > 1e-30 && rel > allowed)
                fail_msg("act %d at %.9g: %.9g is not %.9g", act, x, y, want);
        }
}

int main(void)
{
    const KernelsUnderTest cpu = { dg_backend_cpu(), 8, NULL };
    const struct CMUnitTest tests[] = {
        KERNEL_CHECKS,
        cmocka_unit_test(test_embed_looks_up_and_adds_back),
        cmocka_unit_test(test_first_nonfinite_finds_the_first),
        cmocka_unit_test(test_single_rows_do_not_depend_on_neighbours),
        cmocka_unit_test(test_activations_are_accurate_everywhere),
    };

    kernel_checks_use(&cpu);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
