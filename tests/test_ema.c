#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "optim/ema.h"

enum { N = 77 };

static void normals(float *x, uint32_t sample)
{
    const RngKey k = { .seed = 22, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, N, &k);
}

static void test_ema_inv21_frozen_weights_are_a_fixed_point(void **state)
{
    float w[N], ema[N];

    (void)state;
    normals(w, 0);
    memcpy(ema, w, sizeof w);
    for (int n = 0; n < 100; n++)
        dg_ema_update(ema, w, N, 0.995);
    assert_memory_equal(ema, w, sizeof w);
}

static void test_ema_inv21_closed_form(void **state)
{
    const double decay = 0.98;
    float w0[N], w[N], ema[N];

    (void)state;
    normals(w0, 0);
    normals(w, 1);
    memcpy(ema, w0, sizeof ema);
    for (int n = 1; n <= 60; n++) {
        dg_ema_update(ema, w, N, decay);
        /* half an ulp of values below 4 for each update */
        for (int i = 0; i < N; i++) {
            const double dn = pow(decay, n);

            assert_true(fabs(ema[i] - (dn * w0[i] + (1 - dn) * w[i])) <
                        n * 3e-7);
        }
    }
}

static void test_ema_ends_of_the_range(void **state)
{
    float w[N], ema[N], was[N];

    (void)state;
    normals(w, 1);
    normals(ema, 0);
    memcpy(was, ema, sizeof ema);
    dg_ema_update(ema, w, N, 1);
    assert_memory_equal(ema, was, sizeof ema);
    dg_ema_update(ema, w, N, 0);
    for (int i = 0; i < N; i++)
        assert_true(fabsf(ema[i] - w[i]) < 5e-7f);
}

/* The published schedule, and what it makes of weights that stand still: the
 * start's share is the product of (1 + n) / (10 + n), which is 9! times
 * n! / (n + 9)!: of binomial(n + 9, 9) parts one. */
static void test_ema_ramp_is_as_published(void **state)
{
    static const double ten[] = { 1. / 10, 2. / 11, 3. / 12, 4. / 13, 5. / 14 };
    double share = 1, of = 1;

    (void)state;
    for (int n = 0; n < 5; n++)
        assert_true(fabs(dg_ema_decay(0.995, 1, n) - ten[n]) < 1e-15);
    for (int n = 0; n < 60; n++) {
        share *= dg_ema_decay(0.999, 1, n);
        of *= (n + 10.0) / (n + 1.0);
        assert_true(fabs(share * of - 1) < 1e-13);
    }
    assert_true(dg_ema_decay(0.9, 1, 79) < 0.9 - 1e-4);
    for (int64_t n = 80; n < (int64_t)1 << 40; n *= 3)
        assert_true(dg_ema_decay(0.9, 1, n) == 0.9);
    assert_true(dg_ema_decay(0.05, 1, 0) == 0.05);
    for (int n = 0; n < 5; n++)
        assert_true(dg_ema_decay(0.995, 0, n) == 0.995);
}

static void test_ema_leaves_what_is_behind(void **state)
{
    float w[N], ema[N], was[N];

    (void)state;
    normals(w, 1);
    normals(ema, 0);
    memcpy(was, ema, sizeof ema);
    for (int num = 0; num < N; num++) {
        dg_ema_update(ema, w, num, 0.5);
        assert_memory_equal(ema + num, was + num,
                            sizeof *ema * (size_t)(N - num));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ema_inv21_frozen_weights_are_a_fixed_point),
        cmocka_unit_test(test_ema_inv21_closed_form),
        cmocka_unit_test(test_ema_ends_of_the_range),
        cmocka_unit_test(test_ema_ramp_is_as_published),
        cmocka_unit_test(test_ema_leaves_what_is_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
