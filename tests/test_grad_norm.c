#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "optim/grad_norm.h"

enum { N = 5 * DG_GRAD_NORM_CHUNK + 321 };

static float g[N];

static int fill(void **state)
{
    const RngKey k = { .seed = 23, .purpose = DG_RNG_TEST };

    (void)state;
    dg_rng_normal(g, 0, N, &k);
    return 0;
}

static void test_grad_norm_matches_a_plain_sum(void **state)
{
    double part[6], sum = 0;

    (void)state;
    assert_int_equal(dg_grad_norm_num_chunks(N), 6);
    for (int i = 0; i < N; i++)
        sum += (double)g[i] * g[i];
    assert_true(fabs(dg_grad_norm(g, N, part) / sqrt(sum) - 1) < 1e-13);
    assert_true(dg_grad_norm(g, 0, part) == 0);
    assert_true(dg_grad_norm(g, 1, part) == fabs((double)g[0]));
}

static void test_grad_norm_shards_give_the_same_bits(void **state)
{
    double whole[6], part[6];

    (void)state;
    const double want = dg_grad_norm(g, N, whole);

    for (int cut = 1; cut < 6; cut++) {
        const int64_t at = (int64_t)cut * DG_GRAD_NORM_CHUNK;

        dg_grad_norm_chunks(part + cut, g + at, N - at);
        dg_grad_norm_chunks(part, g, at);
        assert_true(sqrt(dg_grad_norm_fold(part, 6)) == want);
    }
}

static void test_grad_norm_fold_is_a_fixed_tree(void **state)
{
    /* a + b loses b: only ((a + b) + (c + d)) + e gives this value */
    double x[5] = { 1e17, 3, -1e17, 5, 7 };
    const double want = ((x[0] + x[1]) + (x[2] + x[3])) + x[4];

    (void)state;
    assert_true(dg_grad_norm_fold(x, 5) == want);
}

static void test_grad_norm_scale_clips(void **state)
{
    double s = 77;

    (void)state;
    assert_int_equal(dg_grad_norm_scale(&s, 0.5, 1), DG_OK);
    assert_true(s == 1);
    assert_int_equal(dg_grad_norm_scale(&s, 4, 1), DG_OK);
    assert_true(fabs(s - 0.25) < 1e-6 && s < 0.25);
    assert_int_equal(dg_grad_norm_scale(&s, 4, 0), DG_OK);
    assert_true(s == 1);
    assert_int_equal(dg_grad_norm_scale(&s, 0, 1), DG_OK);
    assert_true(s == 1);
}

static void test_grad_norm_inv13_names_what_is_not_finite(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    double part[6], s = 77;

    (void)state;
    for (int k = 0; k < 3; k++) {
        const float was = g[9999];

        g[9999] = bad[k];
        const double norm = dg_grad_norm(g, N, part);
        g[9999] = was;
        assert_int_equal(dg_grad_norm_scale(&s, norm, 1), DG_ENUMERIC);
        assert_true(s == 77);
    }
    /* the largest floats still have a finite norm */
    g[0] = 3e38f;
    assert_true(isfinite(dg_grad_norm(g, N, part)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grad_norm_matches_a_plain_sum),
        cmocka_unit_test(test_grad_norm_shards_give_the_same_bits),
        cmocka_unit_test(test_grad_norm_fold_is_a_fixed_tree),
        cmocka_unit_test(test_grad_norm_scale_clips),
        cmocka_unit_test(test_grad_norm_inv13_names_what_is_not_finite),
    };

    return cmocka_run_group_tests(tests, fill, NULL);
}
