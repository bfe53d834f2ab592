/* AdamW against the published recursion in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "optim/adamw.h"

enum { N = 131 };

static void normals(float *x, uint32_t sample)
{
    const RngKey k = { .seed = 21, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, N, &k);
}

static void test_adamw_follows_the_double_recursion(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0.01 };
    float w[N], m[N] = { 0 }, v[N] = { 0 }, g[N];
    double rw[N], rm[N] = { 0 }, rv[N] = { 0 };

    (void)state;
    normals(w, 0);
    for (int i = 0; i < N; i++)
        rw[i] = w[i];
    for (int n = 1; n <= 50; n++) {
        const double lr = 1e-3 / n, scale = n % 3 ? 1 : 0.25;
        AdamwStep s;

        normals(g, (uint32_t)n);
        assert_int_equal(dg_adamw_step_init(&s, &o, lr, n, scale), DG_OK);
        dg_adamw_update(w, m, v, g, N, &s);
        for (int i = 0; i < N; i++) {
            const double x = g[i] * scale;

            rw[i] *= 1 - lr * 0.01;
            rm[i] = 0.9 * rm[i] + 0.1 * x;
            rv[i] = 0.999 * rv[i] + 0.001 * x * x;
            rw[i] -= lr * (rm[i] / (1 - pow(0.9, n))) /
                     (sqrt(rv[i] / (1 - pow(0.999, n))) + 1e-8);
        }
    }
    /* one float rounding of w a step, moments relative to their size */
    for (int i = 0; i < N; i++) {
        assert_true(fabs(w[i] - rw[i]) < 50 * 6e-8 * (fabs(rw[i]) + 1e-3));
        assert_true(fabs(m[i] - rm[i]) < 2e-6);
        assert_true(fabs(v[i] / rv[i] - 1) < 1e-5);
    }
}

static void test_adamw_first_step_is_the_sign(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0 };
    float w[3] = { 0, 0, 0 }, m[3] = { 0 }, v[3] = { 0 };
    const float g[3] = { 1e-3f, -50, 0 };
    AdamwStep s;

    (void)state;
    dg_adamw_step_init(&s, &o, 0.01, 1, 1);
    dg_adamw_update(w, m, v, g, 3, &s);
    assert_true(fabs(w[0] + 0.01) < 1e-6 && fabs(w[1] - 0.01) < 1e-6);
    assert_true(w[2] == 0);
}

/* m / (sqrt(v) + eps) with an eps that is not next to nothing. */
static void test_adamw_eps_stands_beside_the_root(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 0.5, 0 };
    float w[2] = { 0, 0 }, m[2] = { 0 }, v[2] = { 0 };
    const float g[2] = { 0.5f, -1.5f };
    AdamwStep s;

    (void)state;
    dg_adamw_step_init(&s, &o, 1, 1, 1);
    dg_adamw_update(w, m, v, g, 2, &s);
    assert_true(fabs(w[0] + 0.5) < 1e-6 && fabs(w[1] - 0.75) < 1e-6);
}

static void test_adamw_ranges_give_the_same_bits(void **state)
{
    const AdamwOpts o = dg_adamw_default();
    float w[2][N], m[2][N], v[2][N], g[N];
    AdamwStep s;

    (void)state;
    for (int r = 0; r < 2; r++) {
        normals(w[r], 1);
        normals(m[r], 2);
        memset(v[r], 0, sizeof v[r]);
    }
    normals(g, 3);
    dg_adamw_step_init(&s, &o, 1e-2, 7, 0.5);
    dg_adamw_update(w[0], m[0], v[0], g, N, &s);
    for (int at = 0, num = 1; at < N; at += num, num = num % 37 + 5) {
        const int take = num < N - at ? num : N - at;

        dg_adamw_update(w[1] + at, m[1] + at, v[1] + at, g + at, take, &s);
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_equal(m[0], m[1], sizeof m[0]);
    assert_memory_equal(v[0], v[1], sizeof v[0]);
}

static void test_adamw_decay_is_decoupled(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0.5 };
    float w[1] = { 2 }, m[1] = { 0 }, v[1] = { 0 };
    const float g[1] = { 0 };
    AdamwStep s;

    (void)state;
    dg_adamw_step_init(&s, &o, 0.5, 1, 1);
    dg_adamw_update(w, m, v, g, 1, &s);
    assert_true(w[0] == 1.5f && m[0] == 0 && v[0] == 0);
}

static void test_adamw_inv23_no_gradient_no_decay_no_move(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0 };
    float w[N], was[N], m[N] = { 0 }, v[N] = { 0 }, g[N] = { 0 };
    AdamwStep s;

    (void)state;
    normals(w, 0);
    memcpy(was, w, sizeof w);
    for (int n = 1; n < 20; n++) {
        dg_adamw_step_init(&s, &o, 0.1, n, 1);
        dg_adamw_update(w, m, v, g, N, &s);
    }
    assert_memory_equal(w, was, sizeof w);
}

static void test_adamw_refuses_bad_values(void **state)
{
    const AdamwOpts good = dg_adamw_default();
    const AdamwOpts bad[] = { { 1, 0.9, 1e-8, 0 },
                              { 0.9, 1, 1e-8, 0 },
                              { 0.9, 0.9, 0, 0 },
                              { 0.9, 0.9, 1e-8, -1 } };
    AdamwStep s = { .rate = 77 };

    (void)state;
    for (int k = 0; k < 4; k++)
        assert_int_equal(dg_adamw_step_init(&s, &bad[k], 1, 1, 1), DG_EINVAL);
    assert_int_equal(dg_adamw_step_init(&s, &good, NAN, 1, 1), DG_EINVAL);
    assert_int_equal(dg_adamw_step_init(&s, &good, -1, 1, 1), DG_EINVAL);
    assert_int_equal(dg_adamw_step_init(&s, &good, 1, 0, 1), DG_EINVAL);
    assert_true(s.rate == 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw_follows_the_double_recursion),
        cmocka_unit_test(test_adamw_first_step_is_the_sign),
        cmocka_unit_test(test_adamw_eps_stands_beside_the_root),
        cmocka_unit_test(test_adamw_ranges_give_the_same_bits),
        cmocka_unit_test(test_adamw_decay_is_decoupled),
        cmocka_unit_test(test_adamw_inv23_no_gradient_no_decay_no_move),
        cmocka_unit_test(test_adamw_refuses_bad_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
