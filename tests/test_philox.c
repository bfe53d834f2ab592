#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const RngKey key = { .seed = 0x123456789abcdef0u,
                            .purpose = DG_RNG_TEST,
                            .iteration = 3,
                            .prompt = 5,
                            .sample = 7,
                            .step = 11 };

/* Vectors of Random123's kat_vectors, philox4x32 with 10 rounds. */
static void test_philox_known_answers(void **state)
{
    static const uint32_t kat[3][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
          0x6d5451fd },
        { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822,
          0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 },
    };
    (void)state;

    for (int i = 0; i < 3; i++) {
        uint32_t out[4];

        dg_philox4x32(out, kat[i], kat[i] + 4);
        assert_memory_equal(out, kat[i] + 6, sizeof out);
    }
}

static void test_block_uses_documented_counter(void **state)
{
    const uint32_t ctr[4] = { 9, 7u << 12 | 11, 5, 3 };
    const uint32_t words[2] = { 0x9abcdef0u ^ DG_RNG_TEST, 0x12345678u };
    uint32_t a[4], b[4];
    (void)state;

    dg_philox4x32(a, ctr, words);
    dg_rng_block(b, &key, 9);
    assert_memory_equal(a, b, sizeof a);
}

/* Double Box-Muller on the same words. The float form rounds in u, log, sqrt,
 * the angle and the product: about 8 roundings of 2^-24. */
static void test_normal_matches_double_reference(void **state)
{
    enum { N = 400000 };
    static float z[N];
    double worst = 0;
    (void)state;

    dg_rng_normal(z, 0, N, &key);
    for (int i = 0; i < N; i += 2) {
        uint32_t w[4];
        const int at = i % 4;

        dg_rng_block(w, &key, (uint32_t)i / 4);
        /* u itself is rounded to float: part of the definition */
        const double u = (float)(((float)(w[at] >> 1) + 0.5f) * 0x1p-31f);
        const double r = sqrt(-2 * log(u));
        const double angle = 2 * M_PI * w[at + 1] / 4294967296.0;
        const double c = r * cos(angle), s = r * sin(angle);
        const double ec = fabs(z[i] - c) / (fabs(c) + 1e-30);
        const double es = fabs(z[i + 1] - s) / (fabs(s) + 1e-30);

        /* near a zero of cos the double reference itself loses digits */
        if (fabs(c) > 1e-6 && ec > worst)
            worst = ec;
        if (fabs(s) > 1e-6 && es > worst)
            worst = es;
    }
    assert_true(worst < 6e-7);
}

static void test_normal_extremes_are_finite(void **state)
{
    enum { N = 1 << 20 };
    float *z = malloc(N * sizeof *z);
    (void)state;

    assert_non_null(z);
    dg_rng_normal(z, ((int64_t)4 << 32) - N, N, &key);
    for (int i = 0; i < N; i++)
        assert_true(fabsf(z[i]) < 6.67f);
    free(z);
}

/* Moments of 4e6 numbers; limits are 5 standard errors. */
static void test_normal_moments(void **state)
{
    enum { N = 1 << 22 };
    float *z = malloc(N * sizeof *z);
    double m[5] = { 0 }, cross = 0;
    (void)state;

    assert_non_null(z);
    dg_rng_normal(z, 0, N, &key);
    for (int i = 0; i < N; i++) {
        double p = 1;

        for (int j = 1; j <= 4; j++)
            m[j] += (p *= z[i]);
        if (i > 0)
            cross += (double)z[i] * z[i - 1];
    }
    free(z);
    assert_true(fabs(m[1] / N) < 5 / sqrt(N));
    assert_true(fabs(m[2] / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(m[3] / N) < 5 * sqrt(15.0 / N));
    assert_true(fabs(m[4] / N - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(cross / N) < 5 / sqrt(N));
}

/* Any window of the stream holds the same bits, with guards around it. */
static void test_fill_is_independent_of_window(void **state)
{
    enum { N = 600 };
    float all[N], part[N + 2];
    (void)state;

    for (int kind = 0; kind < 2; kind++) {
        void (*fill)(float *, int64_t, int64_t, const RngKey *) =
            kind ? dg_rng_normal : dg_rng_uniform;

        fill(all, 0, N, &key);
        for (int first = 0; first < 70; first++)
            for (int num = 0; num < 200; num += 1 + num / 7) {
                memset(part, 0x5a, sizeof part);
                fill(part + 1, first, num, &key);
                assert_memory_equal(part + 1, all + first,
                                    (size_t)num * sizeof *part);
                assert_memory_equal(&part[0], &part[N + 1], sizeof *part);
                assert_memory_equal(&part[num + 1], &part[0], sizeof *part);
            }
    }
}

static void test_streams_differ_in_every_coordinate(void **state)
{
    RngKey k[7] = { key, key, key, key, key, key, key };
    float z[7][8];
    (void)state;

    k[1].seed ^= 1ull << 40;
    k[2].purpose = DG_RNG_SDE_NOISE;
    k[3].iteration++;
    k[4].prompt++;
    k[5].sample++;
    k[6].step++;
    for (int i = 0; i < 7; i++)
        dg_rng_normal(z[i], 0, 8, &k[i]);
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(z[i], z[j], sizeof z[i]);
}

static void test_uniform_stays_inside(void **state)
{
    enum { N = 1 << 20 };
    float *u = malloc(N * sizeof *u);
    double sum = 0;
    (void)state;

    assert_non_null(u);
    dg_rng_uniform(u, 1, N, &key);
    for (int i = 0; i < N; i++) {
        assert_true(u[i] > 0 && u[i] < 1);
        /* an odd multiple of 2^-24, so that 0 is never reached */
        assert_true(fmodf(u[i] * 0x1p24f, 2.0f) == 1.0f);
        sum += u[i];
    }
    free(u);
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
}

/* floor(x n / 2^64), x the element's two words. */
static void test_below_is_the_multiply_shift(void **state)
{
    static const uint32_t limits[] = { 1, 2, 3, 1000, 1u << 31, UINT32_MAX };
    const RngKey key = { .seed = 5, .purpose = DG_RNG_TEST };

    (void)state;
    for (int64_t e = 0; e < 3000; e++)
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            uint32_t w[4];

            dg_rng_block(w, &key, (uint32_t)(e / 2));
            const uint64_t x = (uint64_t)w[e % 2 * 2] << 32 | w[e % 2 * 2 + 1];
            /* in halves of the 96 bits, so that none is lost */
            const uint64_t low = (x & 0xffffffffu) * limits[k];
            const uint64_t high = (x >> 32) * limits[k] + (low >> 32);

            assert_int_equal(dg_rng_below(limits[k], e, &key), high >> 32);
        }
}

static void test_below_is_even(void **state)
{
    enum { N = 70000 };
    int count[7] = { 0 };
    (void)state;

    for (int i = 0; i < N; i++)
        count[dg_rng_below(7, i, &key)]++;
    for (int i = 0; i < 7; i++)
        assert_true(abs(count[i] - N / 7) < 5 * sqrt(N * 6.0 / 49));
    assert_int_equal(dg_rng_below(1, 12345, &key), 0);
}

static void test_permutation_holds_each_once(void **state)
{
    enum { N = 1000 };
    int32_t p[N];
    char seen[N] = { 0 };
    int fixed = 0;
    (void)state;

    dg_rng_permutation(p, N, &key);
    for (int i = 0; i < N; i++) {
        assert_in_range(p[i], 0, N - 1);
        assert_int_equal(seen[p[i]]++, 0);
        fixed += p[i] == i;
    }
    assert_true(fixed < 10);
    dg_rng_permutation(p, 1, &key);
    assert_int_equal(p[0], 0);
}

/* The bits are a promise: checkpoints and results of old runs rest on them. */
static void test_normal_bits_are_pinned(void **state)
{
    enum { N = 1 << 16 };
    static float z[N];
    uint64_t h = 1469598103934665603u;
    (void)state;

    dg_rng_normal(z, 0, N, &key);
    for (size_t i = 0; i < sizeof z; i++)
        h = (h ^ ((unsigned char *)z)[i]) * 1099511628211u;
    if (h != 0x1e2ad99dd5c0fb49u)
        print_message("hash 0x%llx\n", (unsigned long long)h);
    assert_true(h == 0x1e2ad99dd5c0fb49u);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Not a test of time: the speed is printed for who wants to know. */
static void test_normal_speed_is_printed(void **state)
{
    enum { N = 1 << 16 };
    static float z[N];
    const double t0 = now();
    (void)state;

    for (int i = 0; i < 100; i++)
        dg_rng_normal(z, (int64_t)i * N, N, &key);
    print_message("%.0f M normals/s\n", 100e-6 * N / (now() - t0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_block_uses_documented_counter),
        cmocka_unit_test(test_normal_matches_double_reference),
        cmocka_unit_test(test_normal_extremes_are_finite),
        cmocka_unit_test(test_normal_moments),
        cmocka_unit_test(test_fill_is_independent_of_window),
        cmocka_unit_test(test_streams_differ_in_every_coordinate),
        cmocka_unit_test(test_uniform_stays_inside),
        cmocka_unit_test(test_below_is_the_multiply_shift),
        cmocka_unit_test(test_below_is_even),
        cmocka_unit_test(test_permutation_holds_each_once),
        cmocka_unit_test(test_normal_bits_are_pinned),
        cmocka_unit_test(test_normal_speed_is_printed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
