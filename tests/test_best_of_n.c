#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "grpo/best_of_n.h"

enum { G = 24 };

static void random_totals(float *x, uint32_t sample)
{
    const RngKey k = { .seed = 9, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, G, &k);
}

static void test_best_of_n_inv19_keeps_both_ends(void **state)
{
    float x[G], before[G];
    int32_t kept[G];

    (void)state;
    for (uint32_t s = 0; s < 20; s++)
        for (int k = 1; k <= G / 2; k++) {
            int in[G] = { 0 }, above = 0;

            random_totals(x, s);
            memcpy(before, x, sizeof x);
            assert_int_equal(dg_best_of_n_select(kept, x, NULL, G, k, k),
                             DG_OK);
            /* advantages are unchanged by the selection */
            assert_memory_equal(x, before, sizeof x);
            for (int i = 0; i < 2 * k; i++) {
                assert_true(i == 0 || kept[i] > kept[i - 1]);
                in[kept[i]] = 1;
            }
            /* every one left out lies between k kept above and k below */
            for (int i = 0; i < G; i++) {
                int below = 0;

                above = 0;
                for (int j = 0; j < G; j++) {
                    above += in[j] && x[j] > x[i];
                    below += in[j] && x[j] < x[i];
                }
                if (!in[i])
                    assert_true(above == k && below == k);
            }
        }
}

static void test_best_of_n_inv19_half_is_a_permutation(void **state)
{
    float x[G];
    int32_t kept[G];

    (void)state;
    random_totals(x, 1);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, G, G / 2, G / 2),
                     DG_OK);
    for (int i = 0; i < G; i++)
        assert_int_equal(kept[i], i);
}

static void test_best_of_n_ties_go_by_index(void **state)
{
    const float x[6] = { 1, 1, 1, 1, 1, 1 }, y[6] = { 0, 2, 2, 0, 0, 2 };
    int32_t kept[6];

    (void)state;
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 6, 1, 1), DG_OK);
    assert_int_equal(kept[0], 0);
    assert_int_equal(kept[1], 5);
    assert_int_equal(dg_best_of_n_select(kept, y, NULL, 6, 2, 2), DG_OK);
    assert_int_equal(kept[0], 1);
    assert_int_equal(kept[1], 2);
    assert_int_equal(kept[2], 3);
    assert_int_equal(kept[3], 4);
}

static void test_best_of_n_uneven_ends(void **state)
{
    const float x[5] = { 3, 1, 5, 2, 4 };
    int32_t kept[3];

    (void)state;
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 5, 2, 1), DG_OK);
    assert_int_equal(kept[0], 1);
    assert_int_equal(kept[1], 2);
    assert_int_equal(kept[2], 4);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 5, 0, 1), DG_OK);
    assert_int_equal(kept[0], 1);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 5, 1, 0), DG_OK);
    assert_int_equal(kept[0], 2);
}

/* A total of 0, which is what a sample without a score has, is a place in the
 * middle, and in a group of few good ones a good one. */
static void test_best_of_n_wants_scores(void **state)
{
    const float x[6] = { 0, -1, 3, 0, -2, -3 };
    const uint8_t unscored[6] = { 1, 0, 0, 1, 0, 0 };
    int32_t kept[6];

    (void)state;
    assert_int_equal(dg_best_of_n_select(kept, x, unscored, 6, 2, 1), DG_OK);
    assert_int_equal(kept[0], 1);
    assert_int_equal(kept[1], 2);
    assert_int_equal(kept[2], 5);
    assert_int_equal(dg_best_of_n_select(kept, x, unscored, 6, 0, 4), DG_OK);
    assert_int_equal(kept[0], 1);
    assert_int_equal(kept[1], 2);
    assert_int_equal(kept[2], 4);
    assert_int_equal(kept[3], 5);
    /* four have a score, five places: all four, and a place goes empty */
    assert_int_equal(dg_best_of_n_select(kept, x, unscored, 6, 1, 4), DG_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(kept[i], i);
    assert_int_equal(kept[3], 4);
    assert_int_equal(kept[4], 5);
    assert_int_equal(dg_best_of_n_select(kept, x, unscored, 6, 3, 3), DG_OK);
    for (int i = 0; i < 6; i++)
        assert_int_equal(kept[i], i);
}

/* The totals of groups lie one behind the other. */
static void test_best_of_n_reads_its_group_alone(void **state)
{
    const float x[6] = { NAN, 3, 1, 2, 4, NAN };
    int32_t kept[4];

    (void)state;
    assert_int_equal(dg_best_of_n_select(kept, x + 1, NULL, 4, 4, 0), DG_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(kept[i], i);
}

static void test_best_of_n_refuses_bad_values(void **state)
{
    float x[4] = { 0, 1, 2, 3 };
    int32_t kept[4] = { 7 };

    (void)state;
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, 0, 0), DG_EINVAL);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, 2, 3), DG_EINVAL);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, -1, 3), DG_EINVAL);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, 3, -1), DG_EINVAL);
    assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, 5, 0), DG_EINVAL);
    for (int i = 0; i < 4; i++) {
        x[i] = NAN;
        assert_int_equal(dg_best_of_n_select(kept, x, NULL, 4, 1, 1),
                         DG_ENUMERIC);
        x[i] = (float)i;
    }
    assert_int_equal(kept[0], 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_of_n_inv19_keeps_both_ends),
        cmocka_unit_test(test_best_of_n_inv19_half_is_a_permutation),
        cmocka_unit_test(test_best_of_n_ties_go_by_index),
        cmocka_unit_test(test_best_of_n_uneven_ends),
        cmocka_unit_test(test_best_of_n_wants_scores),
        cmocka_unit_test(test_best_of_n_reads_its_group_alone),
        cmocka_unit_test(test_best_of_n_refuses_bad_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
