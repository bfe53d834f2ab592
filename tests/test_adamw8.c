/*
 * AdamW with moments in 8 bits: its code against a closed form, its steps
 * against the same recursion in double, its way against AdamW in float32.
 */
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
#include "optim/adamw8.h"
#include "optim/moment_code.h"

enum { N = 5 * DG_MOMENT_BLOCK + 83, BLOCKS = 6 };

typedef struct State8 {
    uint8_t m[N], v[N];
    float m_scale[BLOCKS], v_scale[BLOCKS];
} State8;

static Moments8 moments(State8 *s)
{
    return (Moments8) { s->m, s->v, s->m_scale, s->v_scale };
}

static void normals(float *x, int num, uint32_t sample)
{
    const RngKey k = { .seed = 22, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, num, &k);
}

/* --- the code --------------------------------------------------------------- */

/* the value of a code between 0 and 1, from the top one down: eight in an
 * octave, evenly */
static double level(int c, int top)
{
    const int below = top - c, octave = (below + 7) / 8;

    return c == 0 ? 0 : ldexp(1 + (8 * octave - below) / 8.0, -octave);
}

/* how far x is up the codes, in codes */
static double height(double x, int top)
{
    int e;
    const double mantissa = frexp(x, &e);

    return top + 8.0 * (e - 1) + 8 * (2 * mantissa - 1);
}

static void test_moment_codes_are_the_closed_form(void **state)
{
    (void)state;
    for (int c = 0; c <= 255; c++) {
        assert_true(dg_moment_v((uint32_t)c, 1) == level(c, 255));
        assert_true(dg_moment_m((uint32_t)c, 1) ==
                    (c > 127 ? -level(c - 128, 127) : level(c, 127)));
    }
    assert_true(level(255, 255) == 1 && level(127, 127) == 1);
    assert_true(level(1, 255) == 1.25 * ldexp(1, -32));
    assert_true(level(1, 127) == 1.25 * ldexp(1, -16));
    /* what a moment is divided by is no smaller than what is divided */
    assert_true(sqrt(level(1, 255)) > 0.89 * level(1, 127));
}

/* The largest error of all values, as a part of them; away from zero. */
static double worst(int top, uint32_t dither)
{
    const double least = level(1, top);
    double most = 0;

    for (double x = least; x <= 1; x *= 1.00037) {
        const float f = (float)x;
        const double got =
            top == 255 ? dg_moment_v(dg_moment_store_v(f, 1, dither), 1)
                       : dg_moment_m(dg_moment_store_m(f, 1, dither), 1);

        most = fmax(most, fabs(got - (double)f) / (double)f);
    }
    return most;
}

static void test_moment_error_is_an_eighth(void **state)
{
    static const int tops[] = { 127, 255 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        const double nearest = worst(tops[i], DG_MOMENT_NEAREST);

        /* 8.5 is as far from 8 as from 9 */
        assert_true(nearest <= 1 / 17.0 && nearest > 0.99 / 17);
        for (uint32_t d = 0; d < 1 << 20; d += 99991)
            assert_true(worst(tops[i], d) < 1 / 8.0);
        assert_true(worst(tops[i], 0) > 0.99 / 9);
        assert_true(worst(tops[i], (1 << 20) - 1) > 0.99 / 8);
    }
}

/* Below the least code: first moments may be none, second ones never. */
static void test_moment_of_nearly_nothing(void **state)
{
    const float least = 1.25f * ldexpf(1, -16);

    (void)state;
    assert_int_equal(dg_moment_store_v(1e-30f, 1, 0), 1);
    assert_int_equal(dg_moment_store_v(1e-30f, 1, (1 << 20) - 1), 1);
    assert_int_equal(dg_moment_store_v(0, 1, (1 << 20) - 1), 0);
    assert_int_equal(dg_moment_store_m(0.3f * least, 1, 0), 0);
    assert_int_equal(dg_moment_store_m(-0.3f * least, 1, 734004), 129);
    assert_int_equal(dg_moment_store_m(-0.3f * least, 1, 734002), 0);
    assert_int_equal(dg_moment_store_m(0, 1, (1 << 20) - 1), 0);
    assert_int_equal(dg_moment_store_v(1, 1, (1 << 20) - 1), 255);
    assert_int_equal(dg_moment_store_m(-1, 1, (1 << 20) - 1), 255);
}

/* Over updates the stored values' mean is the value. A part of the way is met
 * by N multiples of the golden ratio but for N D <= 2 + 3 log N of them. */
static void test_moment_rounding_is_even_over_updates(void **state)
{
    enum { UPDATES = 4096 };
    const double off = (2 + 3 * log(UPDATES)) / UPDATES;

    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        const float x = ldexpf(1 + (float)(i % 97) / 97, -(int)(i % 17));
        double m = 0, v = 0;

        for (uint32_t n = 1; n <= UPDATES; n++) {
            m += dg_moment_m(
                dg_moment_store_m(-x, 2, dg_moment_dither_m(i * 999, n)), 2);
            v += dg_moment_v(
                dg_moment_store_v(x, 2, dg_moment_dither_v(i * 999, n)), 2);
        }
        assert_true(fabs(m / UPDATES + x) <= off * fmax(x / 8, ldexp(1, -15)));
        assert_true(fabs(v / UPDATES - x) <= off * x / 8);
    }
}

/* All codes, at scales from the least one on, at which alone the largest code of
 * a block need not be the top one. */
static void test_moments_come_back_as_they_were(void **state)
{
    static const float scales[] = { 0, 1e-3f, 3.3f, 7e20f };
    float x[2 * DG_MOMENT_BLOCK];
    State8 was = { 0 }, is = { 0 };
    const Moments8 a = moments(&was), b = moments(&is);
    enum { NUM = 2 * DG_MOMENT_BLOCK };

    (void)state;
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < NUM; i++) {
            const int c = (i + 7) % 256; /* the first one is not nothing */

            was.m[i] = (uint8_t)(c == 128 ? 0 : k > 0 ? c : c % 100);
            was.v[i] = (uint8_t)(k > 0 ? c : c % 200);
        }
        for (int i = 0; i < 2; i++) {
            was.m_scale[i] = fmaxf(scales[k] * (float)(1 + i), 0x1p-100f);
            was.v_scale[i] = fmaxf(scales[k] * (float)(3 - i), 0x1p-90f);
        }
        memset(&is, 0x55, sizeof is);
        dg_moments8_read_m(x, &a, NUM);
        dg_moments8_write_m(&b, x, NUM);
        dg_moments8_read_v(x, &a, NUM);
        dg_moments8_write_v(&b, x, NUM);
        assert_memory_equal(was.m, is.m, NUM);
        assert_memory_equal(was.v, is.v, NUM);
        assert_memory_equal(was.m_scale, is.m_scale, 2 * sizeof(float));
        assert_memory_equal(was.v_scale, is.v_scale, 2 * sizeof(float));
        /* and nothing behind them */
        assert_int_equal(((uint8_t *)&is.m_scale[2])[0], 0x55);
        assert_int_equal(((uint8_t *)&is.v_scale[2])[0], 0x55);
    }
    for (int num = 0; num <= NUM; num++)
        assert_int_equal(dg_moments8_blocks(num),
                         (num > 0) + (num > DG_MOMENT_BLOCK));
}

/* --- an update -------------------------------------------------------------- */

typedef struct Double {
    double w[N], m[N], v[N];
} Double;

static void read_doubles(Double *d, const float *w, State8 *s)
{
    for (int i = 0; i < N; i++) {
        const int b = i / DG_MOMENT_BLOCK, c = s->m[i];

        d->w[i] = w[i];
        d->m[i] =
            (c > 127 ? -1 : 1) * level(c % 128, 127) * (double)s->m_scale[b];
        d->v[i] = level(s->v[i], 255) * (double)s->v_scale[b];
    }
}

static void check_code(int got, double x, int top, uint32_t dither)
{
    const double at = height(x, top), up = dither / 1048576.0;
    const int code = (int)floor(at + up);

    if (x < level(1, top)) {
        assert_true(got <= 1);
        return;
    }
    /* x is known to two roundings of float32: 2^-23 of 16 codes */
    if (fabs(at + up - rint(at + up)) < 4e-6)
        assert_true(abs(got - code) <= 1);
    else
        assert_int_equal(got, code);
}

static void check_stored(const Double *d, const State8 *s, uint32_t n)
{
    for (int b = 0; b < BLOCKS; b++) {
        const int from = b * DG_MOMENT_BLOCK;
        const int end = from + DG_MOMENT_BLOCK < N ? from + DG_MOMENT_BLOCK : N;
        double most_m = 0, most_v = 0;

        for (int i = from; i < end; i++) {
            most_m = fmax(most_m, fabs(d->m[i]));
            most_v = fmax(most_v, d->v[i]);
        }
        assert_true(fabs(s->m_scale[b] / most_m - 1) < 1e-6);
        assert_true(fabs(s->v_scale[b] / most_v - 1) < 1e-6);
        for (int i = from; i < end; i++) {
            const uint32_t u = (uint32_t)i;

            check_code(s->m[i] % 128, fabs(d->m[i]) / most_m, 127,
                       (u * 0x9E3779B1u + n * 0x91E10DA5u) >> 12);
            check_code(s->v[i], d->v[i] / most_v, 255,
                       (u * 0xC13FA9A9u + n * 0x9E3779B9u) >> 12);
            if (s->m[i] % 128 > 0)
                assert_int_equal(s->m[i] > 127, d->m[i] < 0);
        }
    }
}

static void test_adamw8_follows_the_double_recursion(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0.01 };
    static float w[N], g[N], before[N];
    static State8 s;
    static Double d;
    const Moments8 x = moments(&s);

    (void)state;
    memset(&s, 0, sizeof s);
    normals(w, N, 0);
    for (uint32_t n = 1; n <= 60; n++) {
        const double lr = 1e-3 / n, scale = n % 3 ? 1 : 0.25;
        AdamwStep step;

        memcpy(before, w, sizeof w);
        read_doubles(&d, w, &s);
        normals(g, N, n);
        for (int i = 0; i < N; i++) /* of very different sizes */
            g[i] *= ldexpf(1, -(i % 40));
        assert_int_equal(dg_adamw_step_init(&step, &o, lr, n, scale), DG_OK);
        dg_adamw8_update(w, &x, g, 0, N, &step);
        for (int i = 0; i < N; i++) {
            const double a = g[i] * scale;

            d.m[i] = 0.9 * d.m[i] + 0.1 * a;
            d.v[i] = 0.999 * d.v[i] + 0.001 * a * a;
            d.w[i] = d.w[i] * (1 - lr * 0.01) -
                     lr * (d.m[i] / (1 - pow(0.9, n))) /
                         (sqrt(d.v[i] / (1 - pow(0.999, n))) + 1e-8);
            assert_true(fabs(w[i] - d.w[i]) <=
                        2e-7 * fabs(d.w[i]) + 2e-5 * fabs(d.w[i] - before[i]) +
                            1e-12);
        }
        check_stored(&d, &s, n);
    }
}

static void test_adamw8_ranges_give_the_same_bits(void **state)
{
    const AdamwOpts o = dg_adamw_default();
    static float w[2][N], g[N];
    static State8 s[2];
    const Moments8 whole = moments(&s[0]), parts = moments(&s[1]);

    (void)state;
    memset(s, 0, sizeof s);
    normals(w[0], N, 1);
    memcpy(w[1], w[0], sizeof w[0]);
    for (int n = 1; n <= 5; n++) {
        AdamwStep step;

        normals(g, N, 100 + (uint32_t)n);
        dg_adamw_step_init(&step, &o, 1e-2, n, 0.5);
        dg_adamw8_update(w[0], &whole, g, 0, N, &step);
        for (int at = 0, num = DG_MOMENT_BLOCK; at < N; at += num, num *= 2) {
            const Moments8 here = dg_moments8_at(&parts, at);

            dg_adamw8_update(w[1] + at, &here, g + at, at,
                             N - at < num ? N - at : num, &step);
        }
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_equal(&s[0], &s[1], sizeof s[0]);
}

static void test_adamw8_no_gradient_no_decay_no_move(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0 };
    static float w[N], was[N], g[N];
    static State8 s;
    const Moments8 x = moments(&s);

    (void)state;
    memset(&s, 0, sizeof s);
    normals(w, N, 0);
    memcpy(was, w, sizeof w);
    for (int n = 1; n < 20; n++) {
        AdamwStep step;

        g[7] = n % 2 ? 1 : -3; /* the others of its block stay all the same */
        dg_adamw_step_init(&step, &o, 0.1, n, 1);
        dg_adamw8_update(w, &x, g, 0, N, &step);
    }
    assert_true(w[7] != was[7]);
    was[7] = w[7];
    assert_memory_equal(w, was, sizeof w);
}

/* A small gradient beside a large one takes steps no longer than AdamW's own
 * longest, by Cauchy's inequality (1 - beta1) / sqrt((1 - beta2) (1 - beta1^2 /
 * beta2)) times the rate, and what a code may add: 9/8 to a first moment, 8/7
 * under a root. Nor does it stand still, down to 2^-15 of the other. */
static void test_adamw8_small_beside_large_makes_no_leap(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-20, 0 };
    const double most =
        0.1 / sqrt(0.001 * (1 - 0.81 / 0.999)) * 9 / 8 * sqrt(8 / 7.0);
    static float w[N], was[N], g[N];
    static State8 s;
    const Moments8 x = moments(&s);

    (void)state;
    memset(&s, 0, sizeof s);
    memset(w, 0, sizeof w);
    for (int n = 1; n <= 3000; n++) {
        AdamwStep step;

        normals(g, N, 5000 + (uint32_t)n);
        for (int i = 0; i < N; i++)
            g[i] = (g[i] + 0.5f) * ldexpf(1, -(i % 24));
        memcpy(was, w, sizeof w);
        dg_adamw_step_init(&step, &o, 1, n, 1);
        dg_adamw8_update(w, &x, g, 0, N, &step);
        for (int i = 0; i < N; i++)
            assert_true(fabs(w[i] - was[i]) <= most * step.rate / step.root);
    }
    for (int i = 0; i < N; i++)
        assert_true(i % 24 > 15 || w[i] < (i % 24 < 12 ? -900 : 0));
}

/* --- as good as float32 ------------------------------------------------------ */

/* A second moment follows a gradient that grows beside one that does not: half
 * of a block's become five times as large. Means over 640 elements, whose
 * squares' EMA differs from its limit by 2 sqrt(0.001 / 640) of it and, after
 * 3000 updates, by exp(-3). */
static void test_adamw8_moments_follow_apart(void **state)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0 };
    static float w[N], g[N], v[N];
    static State8 s;
    const Moments8 x = moments(&s);
    double mean[2] = { 0 };
    enum { HALF = 1280 / 2 };

    (void)state;
    memset(&s, 0, sizeof s);
    for (int n = 1; n <= 4000; n++) {
        AdamwStep step;

        normals(g, N, 10000 + (uint32_t)n);
        for (int i = 0; i < N; i += 2)
            g[i] *= n > 1000 ? 5 : 1;
        dg_adamw_step_init(&step, &o, 0, n, 1);
        dg_adamw8_update(w, &x, g, 0, N, &step);
    }
    dg_moments8_read_v(v, &x, N);
    for (int i = 0; i < 2 * HALF; i++)
        mean[i % 2] += (double)v[i] / HALF;
    assert_true(fabs(mean[0] / (25 - 24 * exp(-3)) - 1) < 0.03);
    assert_true(fabs(mean[1] - 1) < 0.05);
}

/* Least squares, 1/2 sum c (w - a)^2 + noise, of curvatures and noises over four
 * and three decades: the mean square distance to a. */
static double distance(int eight, int updates, int noisy)
{
    const AdamwOpts o = { 0.9, 0.999, 1e-8, 0 };
    static float w[N], g[N], a[N], m[N], v[N];
    static State8 s;
    const Moments8 x = moments(&s);
    double sum = 0;

    memset(&s, 0, sizeof s);
    memset(w, 0, sizeof w);
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    normals(a, N, 1);
    for (int n = 1; n <= updates; n++) {
        AdamwStep step;

        normals(g, N, 20000 + (uint32_t)n);
        for (int i = 0; i < N; i++) {
            const double c = pow(10, (i * 37 % 41) / 10.0 - 2);
            const double e = pow(10, (i * 23 % 31) / 10.0 - 2);

            g[i] = (float)(c * (w[i] - a[i]) + noisy * e * g[i]);
        }
        dg_adamw_step_init(&step, &o, noisy ? 1e-3 : 3e-3, n, 1);
        if (eight)
            dg_adamw8_update(w, &x, g, 0, N, &step);
        else
            dg_adamw_update(w, m, v, g, N, &step);
    }
    for (int i = 0; i < N; i++)
        sum += pow(w[i] - a[i], 2) / N;
    return sum;
}

static void test_adamw8_converges_as_float32_does(void **state)
{
    static const int updates[] = { 100, 500, 2000 };

    (void)state;
    for (int i = 0; i < 3; i++) {
        const double full = distance(0, updates[i], 1);

        assert_true(fabs(distance(1, updates[i], 1) / full - 1) < 0.02);
    }
    assert_true(distance(0, 3000, 0) < 1e-3);
    assert_true(distance(1, 3000, 0) < 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moment_codes_are_the_closed_form),
        cmocka_unit_test(test_moment_error_is_an_eighth),
        cmocka_unit_test(test_moment_of_nearly_nothing),
        cmocka_unit_test(test_moment_rounding_is_even_over_updates),
        cmocka_unit_test(test_moments_come_back_as_they_were),
        cmocka_unit_test(test_adamw8_follows_the_double_recursion),
        cmocka_unit_test(test_adamw8_ranges_give_the_same_bits),
        cmocka_unit_test(test_adamw8_no_gradient_no_decay_no_move),
        cmocka_unit_test(test_adamw8_small_beside_large_makes_no_leap),
        cmocka_unit_test(test_adamw8_moments_follow_apart),
        cmocka_unit_test(test_adamw8_converges_as_float32_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
