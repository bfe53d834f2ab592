/* Closed forms and invariances of group advantages; invNN is the number in
 * doc/invariants.md. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "grpo/advantage.h"

enum { MAX = 24 * 8 * 2 };

static float reward[MAX], adv[MAX], total[MAX];

static const double plain[2] = { 1, 1 };

static AdvantageOpts opts(int G, int K)
{
    return (AdvantageOpts) { .num_generations = G,
                             .num_rewards = K,
                             .weights = plain };
}

static void random_rewards(int n, uint32_t sample)
{
    const RngKey k = { .seed = 8, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(reward, 0, n, &k);
}

static void test_advantage_inv12_sums_and_bound(void **state)
{
    static const int sizes[] = { 2, 8, 12, 16, 24 };

    (void)state;
    for (int s = 0; s < 5; s++) {
        const int G = sizes[s];
        const AdvantageOpts o = opts(G, 1);

        random_rewards(8 * G, (uint32_t)s);
        reward[0] = 1000; /* one outlier comes near the bound */
        assert_int_equal(
            dg_advantage_compute(adv, total, NULL, reward, NULL, 8, &o), DG_OK);
        for (int g = 0; g < 8; g++) {
            double sum = 0, squares = 0, worst = 0;

            for (int i = g * G; i < (g + 1) * G; i++) {
                sum += adv[i];
                squares += (double)adv[i] * adv[i];
                worst = fmax(worst, fabs(adv[i]));
            }
            /* G float roundings of values below 5 */
            assert_true(fabs(sum) < G * 3e-7);
            assert_true(fabs(squares - (G - 1)) < G * 2e-6);
            assert_true(worst <= (G - 1) / sqrt(G) + 1e-6);
            if (g == 0 && G > 2)
                assert_true(worst > 0.99 * (G - 1) / sqrt(G));
        }
    }
}

static void test_advantage_inv12_affine_invariance(void **state)
{
    const AdvantageOpts o = opts(12, 1);
    float want[24];

    (void)state;
    random_rewards(24, 1);
    dg_advantage_compute(want, total, NULL, reward, NULL, 2, &o);
    for (int i = 0; i < 24; i++)
        reward[i] = 0.25f * reward[i] - 7;
    dg_advantage_compute(adv, total, NULL, reward, NULL, 2, &o);
    /* the shifted float rewards carry 2.4e-7 each, divided by std ~ 0.25 */
    for (int i = 0; i < 24; i++)
        assert_true(fabs(adv[i] - want[i]) < 5e-6);
}

static void test_advantage_inv12_binary_formula(void **state)
{
    enum { G = 12 };
    const AdvantageOpts o = opts(G, 1);
    RewardStats stats;

    (void)state;
    for (int m = 0; m <= G; m++) {
        const double one = sqrt((G - 1.0) * (G - m) / (G * (double)m));
        const double zero = -sqrt((G - 1.0) * m / (G * (double)(G - m)));

        for (int i = 0; i < G; i++)
            reward[i] = i < m ? 1 : 0;
        dg_advantage_compute(adv, total, &stats, reward, NULL, 1, &o);
        for (int i = 0; i < G; i++)
            if (m == 0 || m == G)
                assert_true(adv[i] == 0);
            else
                assert_true(fabs(adv[i] - (i < m ? one : zero)) < 1e-6);
        assert_int_equal(stats.zero_std_groups, m == 0 || m == G);
        assert_true(fabs(stats.mean - (double)m / G) < 1e-15);
    }
}

/* Scores so near each other that what is added to std shows: a hundredth. */
static void test_advantage_inv12_small_spread(void **state)
{
    const AdvantageOpts o = opts(2, 1);
    const double apart = 0x1p-19, std = apart / sqrt(2);

    (void)state;
    reward[0] = 0;
    reward[1] = (float)apart;
    dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o);
    for (int i = 0; i < 2; i++)
        assert_true(fabs(adv[i] / ((i - 0.5) * apart / (std + 1e-8)) - 1) <
                    1e-6);
}

static void test_advantage_inv13_equal_rewards_are_zero(void **state)
{
    static const float levels[] = { 0.3f, -1, 0, 1, 1e-20f, 12345.678f };
    const AdvantageOpts o = opts(12, 1);
    RewardStats stats;

    (void)state;
    for (int l = 0; l < 6; l++) {
        for (int i = 0; i < 12; i++)
            reward[i] = levels[l];
        dg_advantage_compute(adv, total, &stats, reward, NULL, 1, &o);
        for (int i = 0; i < 12; i++)
            assert_true(adv[i] == 0 && total[i] == 0);
        assert_int_equal(stats.zero_std_groups, 1);
        assert_int_equal(stats.skipped_groups, 0);
    }
    /* rounding noise on a level is no spread; a real difference is */
    for (int i = 0; i < 12; i++)
        reward[i] = 0.3f;
    reward[3] = nextafterf(0.3f, 1);
    dg_advantage_compute(adv, total, &stats, reward, NULL, 1, &o);
    assert_true(adv[3] == 0 && stats.zero_std_groups == 1);
    reward[3] = 0.3001f;
    dg_advantage_compute(adv, total, &stats, reward, NULL, 1, &o);
    assert_true(adv[3] > 3 && stats.zero_std_groups == 0);
}

static void test_advantage_inv13_nan_stays_with_its_sample(void **state)
{
    enum { G = 8, N = 3 * G };
    static const float poison[] = { NAN, INFINITY, -INFINITY };
    const AdvantageOpts o = opts(G, 1);
    float clean[N];
    RewardStats stats;

    (void)state;
    random_rewards(N, 2);
    dg_advantage_compute(clean, total, NULL, reward, NULL, 3, &o);
    for (int p = 0; p < 3; p++) {
        double sum = 0;

        reward[G + 2] = poison[p];
        dg_advantage_compute(adv, total, &stats, reward, NULL, 3, &o);
        assert_memory_equal(adv, clean, G * sizeof *adv);
        assert_memory_equal(adv + 2 * G, clean + 2 * G, G * sizeof *adv);
        assert_true(adv[G + 2] == 0 && total[G + 2] == 0);
        for (int i = G; i < 2 * G; i++) {
            assert_true(isfinite(adv[i]) && isfinite(total[i]));
            sum += adv[i];
        }
        assert_true(fabs(sum) < 1e-5); /* the others are a group of G - 1 */
        assert_true(isfinite(stats.mean) && isfinite(stats.std));
        assert_int_equal(stats.missing, 1);
    }
}

static void test_advantage_missing_is_left_out(void **state)
{
    enum { G = 4 };
    const AdvantageOpts o = opts(G, 2);
    const AdvantageOpts three = opts(3, 1);
    uint8_t missing[2 * G] = { 0 };
    float want[3], rest[3];
    RewardStats stats[2];

    (void)state;
    random_rewards(2 * G, 3);
    missing[2 * 1 + 0] = 1;     /* sample 1 lacks reward 0 only */
    reward[2 * 1 + 0] = -1e30f; /* whatever stands there is not read */
    for (int i = 0, n = 0; i < G; i++)
        if (i != 1)
            rest[n++] = reward[2 * i];
    dg_advantage_compute(want, total, NULL, rest, NULL, 1, &three);
    dg_advantage_compute(adv, total, stats, reward, missing, 1, &o);
    for (int i = 0, n = 0; i < G; i++)
        if (i != 1)
            assert_true(adv[2 * i] == want[n++]);
    assert_true(adv[2] == 0 && adv[3] != 0);
    assert_true(total[1] == adv[3]);
    assert_int_equal(stats[0].missing, 1);
    assert_int_equal(stats[1].missing, 0);
}

static void test_advantage_fewer_than_two_skip_the_group(void **state)
{
    enum { G = 4 };
    const AdvantageOpts o = opts(G, 1);
    RewardStats stats;

    (void)state;
    for (int valid = 0; valid < 3; valid++) {
        for (int i = 0; i < G; i++)
            reward[i] = i < valid ? (float)i : NAN;
        dg_advantage_compute(adv, total, &stats, reward, NULL, 1, &o);
        assert_int_equal(stats.skipped_groups, valid < 2);
        assert_int_equal(stats.zero_std_groups, 0);
        for (int i = 0; i < G; i++)
            assert_true((adv[i] != 0) == (valid == 2 && i < 2));
        assert_true(isfinite(stats.mean) && isfinite(stats.std));
    }
}

static void test_advantage_inv15_sum_of_rewards(void **state)
{
    enum { G = 12 };
    const double w[2] = { 0.7, 1.4 };
    AdvantageOpts o = opts(G, 2), single = opts(G, 1);
    float column[G], one[G], alone[G];

    (void)state;
    o.weights = w;
    random_rewards(2 * G, 4);
    for (int i = 0; i < G; i++)
        reward[2 * i + 1] *= 100; /* scales must not matter */
    dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < G; i++)
            column[i] = reward[2 * i + k];
        dg_advantage_compute(one, alone, NULL, column, NULL, 1, &single);
        for (int i = 0; i < G; i++) {
            assert_true(adv[2 * i + k] == one[i]);
            assert_true(alone[i] == one[i]); /* K = 1, weight 1 */
        }
    }
    for (int i = 0; i < G; i++)
        assert_true(total[i] ==
                    (float)(0.7 * adv[2 * i] + 1.4 * adv[2 * i + 1]));
}

static void test_advantage_global_std(void **state)
{
    enum { G = 4, N = 3 * G };
    AdvantageOpts o = opts(G, 1);
    double mean = 0, var = 0;

    (void)state;
    o.std = DG_STD_GLOBAL;
    random_rewards(N, 5);
    for (int i = 0; i < N; i++)
        mean += (double)reward[i] / N;
    for (int i = 0; i < N; i++)
        var += (reward[i] - mean) * (reward[i] - mean) / N;
    dg_advantage_compute(adv, total, NULL, reward, NULL, 3, &o);
    for (int g = 0; g < 3; g++) {
        double group = 0;

        for (int i = 0; i < G; i++)
            group += (double)reward[g * G + i] / G;
        for (int i = g * G; i < (g + 1) * G; i++)
            assert_true(
                fabs(adv[i] - (reward[i] - group) / (sqrt(var) + 1e-4)) < 1e-6);
    }
}

/* The weighted sum of the columns, by plain loops. */
static void sums(double *out, const double *w, int n)
{
    for (int i = 0; i < n; i++)
        out[i] =
            w[0] * (double)reward[2 * i] + w[1] * (double)reward[2 * i + 1];
}

static void test_advantage_of_summed_rewards(void **state)
{
    enum { G = 6, N = 3 * G };
    const double w[2] = { 0.7, -20 };
    AdvantageOpts o = opts(G, 2);
    double s[N];
    RewardStats stats[2];

    (void)state;
    o.agg = DG_AGG_REWARD_SUM;
    o.weights = w;
    random_rewards(2 * N, 6);
    sums(s, w, N);
    dg_advantage_compute(adv, total, stats, reward, NULL, 3, &o);
    for (int g = 0; g < 3; g++) {
        double mean = 0, var = 0, part[2] = { 0, 0 };

        for (int i = g * G; i < (g + 1) * G; i++)
            mean += s[i] / G;
        for (int i = g * G; i < (g + 1) * G; i++) {
            var += (s[i] - mean) * (s[i] - mean) / (G - 1);
            part[0] += (double)reward[2 * i] / G;
            part[1] += (double)reward[2 * i + 1] / G;
        }
        for (int i = g * G; i < (g + 1) * G; i++) {
            const double of = sqrt(var) + 1e-8;

            /* one rounding to float of values below 3 */
            assert_true(fabs(total[i] - (s[i] - mean) / of) < 3e-7);
            for (int k = 0; k < 2; k++)
                assert_true(fabs(adv[2 * i + k] -
                                 (reward[2 * i + k] - part[k]) / of) < 3e-7);
            /* each with an error of 1.5e-8, of values below 0.2, times 20 */
            assert_true(fabs(total[i] - w[0] * adv[2 * i] -
                             w[1] * adv[2 * i + 1]) < 6e-7);
        }
    }
    for (int k = 0; k < 2; k++) { /* each reward's own, whatever its weight */
        double mean = 0;

        for (int i = 0; i < N; i++)
            mean += (double)reward[2 * i + k] / N;
        assert_true(fabs(stats[k].mean - mean) < 1e-12);
        assert_true(stats[k].std > 0.5 && stats[k].std < 2);
    }
}

/* The coarse reward of two counts as its spread does: with a sum of advantages
 * it would outweigh the one it is added to. */
static void test_advantage_of_summed_rewards_goes_by_their_scales(void **state)
{
    enum { G = 4 };
    AdvantageOpts o = opts(G, 2);
    float twice[G];
    double w[2] = { 1, 1 };

    (void)state;
    o.weights = w;
    for (int i = 0; i < G; i++) {
        reward[2 * i] = (float)i;
        reward[2 * i + 1] = i == 0 ? 0.5f : 0;
    }
    dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o);
    assert_true(total[0] > total[1]);
    o.agg = DG_AGG_REWARD_SUM;
    dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o);
    for (int i = 1; i < G; i++)
        assert_true(total[i] > total[i - 1]);
    w[0] = w[1] = 256; /* a common factor is none, but for the 1e-8 */
    dg_advantage_compute(adv, twice, NULL, reward, NULL, 1, &o);
    for (int i = 0; i < G; i++)
        assert_true(fabs(twice[i] - total[i]) < 5e-8);
}

/* Whoever lacks one score has no sum; sums may be alike where rewards are not. */
static void test_advantage_of_summed_rewards_leaves_out(void **state)
{
    enum { G = 4, N = 3 * G };
    AdvantageOpts o = opts(G, 2);
    uint8_t missing[2 * N] = { 0 };
    float want[3];
    RewardStats stats[2];

    (void)state;
    o.agg = DG_AGG_REWARD_SUM;
    random_rewards(2 * N, 7);
    for (int i = 0; i < 3; i++) { /* the first group without its sample 1 */
        const int from = i < 1 ? i : i + 1;

        reward[2 * (N + i)] = reward[2 * from];
        reward[2 * (N + i) + 1] = reward[2 * from + 1];
    }
    o.num_generations = 3;
    dg_advantage_compute(adv, want, NULL, reward + 2 * N, NULL, 1, &o);
    o.num_generations = G;
    missing[2 * 1 + 1] = 1;
    reward[2 * 1 + 1] = NAN;
    for (int i = G; i < 2 * G; i++) /* sums of 1 each */
        reward[2 * i + 1] = 1 - (reward[2 * i] = (float)i / 8);
    for (int i = 2 * G + 1; i < N; i++) /* one sample left of the last */
        reward[2 * i + i % 2] = INFINITY;
    dg_advantage_compute(adv, total, stats, reward, missing, 3, &o);
    for (int i = 0; i < 3; i++)
        assert_true(total[i < 1 ? i : i + 1] == want[i] && want[i] != 0);
    for (int i = 0; i < N; i++)
        if (i == 1 || i >= G)
            assert_true(total[i] == 0 && adv[2 * i] == 0 &&
                        adv[2 * i + 1] == 0);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(stats[k].zero_std_groups, 1);
        assert_int_equal(stats[k].skipped_groups, 1);
        assert_int_equal(stats[k].missing, k == 0 ? 1 : 3);
    }
}

/* A reward of weight 0 is watched, not needed. */
static void test_advantage_of_summed_rewards_watches(void **state)
{
    enum { G = 4 };
    const double w[2] = { 0, -2 };
    AdvantageOpts o = opts(G, 2), one = opts(G, 1);
    float want[G], plain_total[G], column[G];

    (void)state;
    o.agg = DG_AGG_REWARD_SUM;
    o.weights = w;
    random_rewards(2 * G, 9);
    reward[2] = NAN;
    for (int i = 0; i < G; i++)
        column[i] = reward[2 * i + 1];
    dg_advantage_compute(want, plain_total, NULL, column, NULL, 1, &one);
    dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o);
    for (int i = 0; i < G; i++) {
        assert_true(fabs(total[i] + want[i]) < 5e-7 && total[i] != 0);
        assert_true((adv[2 * i] == 0) == (i == 1) && isfinite(adv[2 * i]));
    }
}

/* Of Flow-GRPO's own code: flow_grpo/stat_tracking.py of github.com/yifan123/
 * flow_grpo at ac4c86e, run by numpy 2.4.6 with global_std = True on the sums
 * of its multi_score() for {image_similarity: 0.2, geneval: 0.8}. */
static void test_advantage_of_summed_rewards_is_flow_grpos(void **state)
{
    static const float scores[12] = { 0.81f, 1,     0.74f, 0, 0.9f,  0.5f,
                                      0.66f, 0.25f, 0.71f, 1, 0.58f, 0 };
    static const double want[6] = { 1.155564244,  -1.203873774, 0.048309530,
                                    -0.380679172, 1.387450031,  -1.006770859 };
    const double w[2] = { 0.2, 0.8 };
    AdvantageOpts o = opts(3, 2);

    (void)state;
    o.agg = DG_AGG_REWARD_SUM;
    o.std = DG_STD_GLOBAL;
    o.weights = w;
    dg_advantage_compute(adv, total, NULL, scores, NULL, 2, &o);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(total[i] - want[i]) < 1e-7);
}

static void test_advantage_refuses_bad_options(void **state)
{
    const double bad_weight = NAN;
    AdvantageOpts o = opts(1, 1);

    (void)state;
    adv[0] = 77;
    assert_int_equal(
        dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o), DG_EINVAL);
    o = opts(4, 0);
    assert_int_equal(
        dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o), DG_EINVAL);
    o = opts(4, 1);
    o.weights = &bad_weight;
    assert_int_equal(
        dg_advantage_compute(adv, total, NULL, reward, NULL, 1, &o), DG_EINVAL);
    assert_true(adv[0] == 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_advantage_inv12_sums_and_bound),
        cmocka_unit_test(test_advantage_inv12_affine_invariance),
        cmocka_unit_test(test_advantage_inv12_binary_formula),
        cmocka_unit_test(test_advantage_inv12_small_spread),
        cmocka_unit_test(test_advantage_inv13_equal_rewards_are_zero),
        cmocka_unit_test(test_advantage_inv13_nan_stays_with_its_sample),
        cmocka_unit_test(test_advantage_missing_is_left_out),
        cmocka_unit_test(test_advantage_fewer_than_two_skip_the_group),
        cmocka_unit_test(test_advantage_inv15_sum_of_rewards),
        cmocka_unit_test(test_advantage_global_std),
        cmocka_unit_test(test_advantage_of_summed_rewards),
        cmocka_unit_test(test_advantage_of_summed_rewards_goes_by_their_scales),
        cmocka_unit_test(test_advantage_of_summed_rewards_leaves_out),
        cmocka_unit_test(test_advantage_of_summed_rewards_watches),
        cmocka_unit_test(test_advantage_of_summed_rewards_is_flow_grpos),
        cmocka_unit_test(test_advantage_refuses_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
