/* Classifier-free guidance, the formula: invariant 16. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "diffusion/guidance.h"

#include <math.h>
#include <string.h>

enum { N = 1003 };

static float uncond[N], cond[N], u[N];

static void fill(void)
{
    const RngKey a = { .seed = 1, .purpose = DG_RNG_TEST };
    const RngKey b = { .seed = 2, .purpose = DG_RNG_TEST };

    dg_rng_normal(uncond, 0, N, &a);
    dg_rng_normal(cond, 0, N, &b);
    uncond[5] = -0.0f;
    cond[6] = -0.0f;
    uncond[7] = 1e30f; /* loses cond in a difference */
}

static void test_guidance_inv16_ends_are_the_branches(void **state)
{
    (void)state;
    fill();
    dg_guidance_combine(u, uncond, cond, 1, N);
    assert_memory_equal(u, cond, sizeof u);
    dg_guidance_combine(u, uncond, cond, 0, N);
    assert_memory_equal(u, uncond, sizeof u);
}

static void test_guidance_inv16_equal_branches_stay(void **state)
{
    const double w[] = { 0.3, 1, 3, 7.5, 100 };

    (void)state;
    fill();
    for (size_t k = 0; k < sizeof w / sizeof *w; k++) {
        dg_guidance_combine(u, cond, cond, w[k], N);
        for (int i = 0; i < N; i++)
            assert_true(u[i] == cond[i]);
    }
}

/* Three roundings, of which the difference's is scaled by w: against double
 * at most 2^-24 (2 w |c - u| + |result|). Rounding at every operation is also
 * that of plain float arithmetic: no multiply-add. */
static void test_guidance_is_the_formula(void **state)
{
    const double w[] = { 0.25, 1.7, 5, 7.5 };

    (void)state;
    fill();
    for (size_t k = 0; k < sizeof w / sizeof *w; k++) {
        dg_guidance_combine(u, uncond, cond, w[k], N);
        for (int i = 0; i < N; i++) {
            const double d = (double)cond[i] - uncond[i];
            const double want = uncond[i] + (double)(float)w[k] * d;
            volatile float step = cond[i] - uncond[i];

            step = (float)w[k] * step;
            step = uncond[i] + step;
            assert_true(u[i] == step);
            assert_true(fabs(u[i] - want) <=
                        0x1p-24 * (2 * w[k] * fabs(d) + fabs(want)));
        }
    }
}

static void test_guidance_may_alias_either(void **state)
{
    float a[N], b[N];

    (void)state;
    fill();
    memcpy(a, uncond, sizeof a);
    memcpy(b, cond, sizeof b);
    dg_guidance_combine(u, uncond, cond, 2.5, N);
    dg_guidance_combine(a, a, cond, 2.5, N);
    dg_guidance_combine(b, uncond, b, 2.5, N);
    assert_memory_equal(a, u, sizeof u);
    assert_memory_equal(b, u, sizeof u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guidance_inv16_ends_are_the_branches),
        cmocka_unit_test(test_guidance_inv16_equal_branches_stay),
        cmocka_unit_test(test_guidance_is_the_formula),
        cmocka_unit_test(test_guidance_may_alias_either),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
