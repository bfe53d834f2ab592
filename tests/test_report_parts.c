#include "../src/report/axis.h"
#include "../src/report/page.h"
#include "../src/report/trend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void assert_near(double a, double b, double room)
{
    if (!(fabs(a - b) <= room))
        fail_msg("%.17g is not within %g of %.17g", a, room, b);
}

/* Noise that a test can repeat: a Weyl sequence in [-1, 1). */
static double noise(int i)
{
    return 2 * fmod(i * 0.6180339887498949, 1) - 1;
}

static void test_base64_matches_rfc4648(void **state)
{
    static const char *const pairs[][2] = {
        { "", "" },
        { "f", "Zg==" },
        { "fo", "Zm8=" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" },
        { "\xff\xfe\xfd", "//79" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        Page p = { 0 };

        dg_page_put(&p, "x");
        dg_page_base64(&p, pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(p.bytes + 1, pairs[i][1]);
        dg_page_free(&p);
    }
}

static void test_text_is_escaped(void **state)
{
    Page p = { 0 };

    (void)state;
    dg_page_text(&p, "<a href=\"x\">'&'\x01\xff\xc3(é)");
    assert_string_equal(p.bytes, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;"
                                 "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd(é)");
    dg_page_free(&p);
}

static void test_values_are_for_people(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        { 0, "0" },         { 0.73149, "0.731" },   { 1.5e-5, "1.5e−5" },
        { -2, "−2.00" },    { 1e-4, "1e−4" },       { 12.34, "12.3" },
        { 99.97, "100" },   { 5.1234e7, "5.12e7" }, { NAN, "–" },
        { 0.005, "0.005" }, { -0.0, "0" },
    };
    char text[DG_VALUE_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dg_value_text(text, cases[i].value);
        assert_string_equal(text, cases[i].text);
    }
    dg_signed_text(text, 0.25);
    assert_string_equal(text, "+0.250");
    dg_count_text(text, 1234567);
    assert_string_equal(text, "1\u202f234\u202f567");
    dg_percent_text(text, 0.0004);
    assert_string_equal(text, "< 0.1\u202f%");
}

static void test_ticks_are_round_and_cover(void **state)
{
    Axis a = { .from = 0, .to = 100 };
    char text[DG_VALUE_BYTES];

    (void)state;
    dg_axis_round(&a, 0.34, 0.87, 4);
    assert_near(a.low, 0.2, 1e-12);
    assert_near(a.high, 1.0, 1e-12);
    assert_int_equal(a.num_ticks, 5);
    assert_near(dg_axis_place(&a, 0.6), 50, 1e-9);
    dg_axis_label(text, &a, a.tick[1]);
    assert_string_equal(text, "0.4");
    dg_axis_round(&a, 3, 3, 4); /* a flat curve has an axis too */
    assert_true(a.low < 3 && a.high > 3 && a.num_ticks > 1);
    dg_axis_round(&a, 0, 0, 4);
    assert_true(a.low == 0 && a.high > 0);
}

/* Neighbours differ, however small the range is beside its values. */
static void test_ticks_are_told_apart(void **state)
{
    static const struct {
        double low, high;
        const char *label[2]; /* of the first two */
    } cases[] = {
        { 0.001, 0.001, { "0.00090", "0.00095" } },
        { 1e-4, 1e-4, { "9e−5", "9.5e−5" } },
        { 1.23e6, 1.232e6, { "1.23e6", "1.2305e6" } },
        { 0, 2e5, { "0", "5e4" } },
        { -2e-7, 2e-7, { "−2e−7", "−1e−7" } },
        { -4e-5, 4e-5, { "−4e−5", "−2e−5" } }, /* not −0.00004: too long */
    };
    char text[2][DG_VALUE_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Axis a = { .to = 100 };

        dg_axis_round(&a, cases[i].low, cases[i].high, 4);
        dg_axis_label(text[1], &a, a.tick[0]);
        assert_string_equal(text[1], cases[i].label[0]);
        for (int k = 1; k < a.num_ticks; k++) {
            dg_axis_label(text[k % 2 == 0], &a, a.tick[k]);
            assert_string_not_equal(text[0], text[1]);
            if (k == 1)
                assert_string_equal(text[0], cases[i].label[1]);
        }
    }
}

/* The slope of a line with a fifth of wild outliers; Kendall's p for ten
 * rising values: S = 45, variance 10 * 9 * 25 / 18 = 125. */
static void test_trend_matches_closed_forms(void **state)
{
    double x[100], y[100];
    Trend t;

    (void)state;
    for (int i = 0; i < 100; i++) {
        x[i] = i + 1;
        y[i] = i % 5 == 2 ? 1e6 * noise(i) : 1 + 2 * x[i];
    }
    y[50] = NAN;
    assert_true(dg_trend_find(&t, x, y, 100));
    assert_near(t.slope, 2, 0.2);
    assert_int_equal(t.points, 99);
    for (int i = 0; i < 10; i++)
        y[i] = exp(i);
    assert_true(dg_trend_find(&t, x, y, 10));
    assert_near(t.p, erfc(44 / sqrt(2 * 125.0)), 1e-12);
    for (int i = 0; i < 10; i++)
        y[i] = -exp(i);
    assert_true(dg_trend_find(&t, x, y, 10));
    assert_near(t.p, erfc(44 / sqrt(2 * 125.0)), 1e-12);
    assert_true(t.slope < 0);
    for (int i = 0; i < 10; i++)
        y[i] = 3;
    assert_true(dg_trend_find(&t, x, y, 10));
    assert_near(t.p, 1, 0);
    assert_near(t.slope, 0, 0);
}

/* A random walk's neighbours hang together; plain noise must not pass for a
 * trend more often than the level says. */
static void test_noise_is_no_trend(void **state)
{
    double x[2000], y[2000];
    int found = 0;
    Trend t;

    (void)state;
    for (int run = 0; run < 100; run++) {
        uint64_t s = (uint64_t)run * 7919 + 1;

        for (int i = 0; i < 2000; i++) {
            s = s * 6364136223846793005u + 1442695040888963407u;
            x[i] = i;
            y[i] = (double)(s >> 11) * 0x1p-53;
        }
        assert_true(dg_trend_find(&t, x, y, 2000));
        found += t.p < 0.01;
    }
    /* 100 tries at 0.01: five or more have a chance of 0.0034 */
    assert_true(found < 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_matches_rfc4648),
        cmocka_unit_test(test_text_is_escaped),
        cmocka_unit_test(test_values_are_for_people),
        cmocka_unit_test(test_ticks_are_round_and_cover),
        cmocka_unit_test(test_ticks_are_told_apart),
        cmocka_unit_test(test_trend_matches_closed_forms),
        cmocka_unit_test(test_noise_is_no_trend),
    };

    return cmocka_run_group_tests_name("report parts", tests, NULL, NULL);
}
