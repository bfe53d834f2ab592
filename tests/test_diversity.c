/* How unlike the pictures of a group are: against closed forms, against the
 * definition in long doubles, and the same bits in any order and any parts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "grpo/diversity.h"

enum { SIDE = DG_DIVERSITY_SIDE, MOST = 12 };

static GroupPictures group;
static int32_t cells[DG_DIVERSITY_CELLS];

/* A picture of one value. */
static void fill(float *rgb, int64_t num, float value)
{
    for (int64_t i = 0; i < num; i++)
        rgb[i] = value;
}

/* Numbers in [low, low + range), by sample. */
static void draw(float *rgb, int64_t num, uint32_t sample, float low,
                 float range)
{
    const RngKey key = { .seed = 5, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(rgb, 0, num, &key);
    for (int64_t i = 0; i < num; i++) {
        const float u = rgb[i] - floorf(rgb[i]);

        rgb[i] = low + range * (u < 1 ? u : 0);
    }
}

static void add(GroupPictures *to, const float *rgb, int64_t height,
                int64_t width)
{
    assert_int_equal(dg_diversity_cells(cells, rgb, height, width), 1);
    dg_diversity_add(to, cells);
}

/* Of flat pictures it is the unbiased spread of their values, here multiples of
 * 1/4095: nothing is rounded but the last operations. */
static void test_of_flat_pictures_is_their_spread(void **state)
{
    static const int level[] = { 0, 4095, 1000, 1001, 4095, 7 };
    float rgb[5 * 7 * 3];

    (void)state;
    memset(&group, 0, sizeof group);
    assert_true(isnan(dg_diversity_of(&group)));
    for (int n = 1; n <= 6; n++) {
        double mean = 0, squares = 0;

        fill(rgb, 5 * 7 * 3, (float)level[n - 1] / 4095);
        add(&group, rgb, 5, 7);
        for (int i = 0; i < n; i++)
            mean += level[i] / 4095.0 / n;
        for (int i = 0; i < n; i++)
            squares += (level[i] / 4095.0 - mean) * (level[i] / 4095.0 - mean);
        if (n == 1)
            assert_true(isnan(dg_diversity_of(&group)));
        else
            assert_true(fabs(dg_diversity_of(&group) / sqrt(squares / (n - 1)) -
                             1) < 1e-14);
    }
}

/* The most that a sum has to hold: half of the largest group black, half white. */
static void test_the_largest_group_fits(void **state)
{
    const double n = DG_DIVERSITY_MOST;
    float rgb[3];

    (void)state;
    memset(&group, 0, sizeof group);
    for (int i = 0; i < DG_DIVERSITY_MOST; i++) {
        fill(rgb, 3, (float)(i % 2));
        add(&group, rgb, 1, 1);
    }
    assert_true(fabs(dg_diversity_of(&group) / sqrt(n / (n - 1) / 4) - 1) <
                1e-14);
    memset(&group, 0, sizeof group);
    for (int i = 0; i < DG_DIVERSITY_MOST; i++)
        add(&group, rgb, 1, 1);
    assert_true(dg_diversity_of(&group) == 0); /* all white, all alike */
}

/* A cell's mean by the definition: pixels from floor(c n / 32) to below
 * floor((c + 1) n / 32), one at least. */
static long double cell_mean(const float *rgb, int64_t height, int64_t width,
                             int64_t y, int64_t x, int k)
{
    const int64_t top = y * height / SIDE, left = x * width / SIDE;
    int64_t bottom = (y + 1) * height / SIDE, right = (x + 1) * width / SIDE;
    long double sum = 0;

    bottom = bottom > top ? bottom : top + 1;
    right = right > left ? right : left + 1;
    for (int64_t i = top; i < bottom; i++)
        for (int64_t j = left; j < right; j++)
            sum += (long double)rgb[(i * width + j) * 3 + k];
    return sum / (long double)((bottom - top) * (right - left));
}

/* Half the mean square difference of two pictures, over all pairs. */
static double by_pairs(const float *rgb, int n, int64_t height, int64_t width)
{
    const int64_t size = 3 * height * width;
    long double sum = 0;

    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            for (int m = 0; m < DG_DIVERSITY_CELLS; m++) {
                const int64_t y = m / 3 / SIDE, x = m / 3 % SIDE;
                const long double d =
                    cell_mean(rgb + i * size, height, width, y, x, m % 3) -
                    cell_mean(rgb + j * size, height, width, y, x, m % 3);

                sum += d * d / 2;
            }
    return sqrt((double)sum / (n * (n - 1) / 2.0 * DG_DIVERSITY_CELLS));
}

/* Rounding a cell moves it by r, |r| <= 1/8190, of variance v = 1/(12 4095^2)
 * and independent of the picture: diversity^2 gains v, within some of its own
 * Monte-Carlo error sqrt(2 / (3072 (n - 1))) and of a cross term of spread
 * 2 diversity sqrt(v / 3072). */
static void test_diversity_inv25_is_half_the_mean_square_difference(
    void **state)
{
    static const struct {
        int64_t height, width;
        int n;
        float range;
    } of[] = { { 32, 32, 4, 1 },     { 64, 96, 3, 1 }, { 50, 45, 5, 0.5f },
               { 20, 33, 4, 0.01f }, { 1, 70, 12, 1 }, { 128, 32, 2, 0.1f } };
    const double v = 1 / (12.0 * 4095 * 4095);

    (void)state;
    for (size_t c = 0; c < sizeof of / sizeof *of; c++) {
        const int64_t size = 3 * of[c].height * of[c].width;
        float *rgb = malloc(sizeof *rgb * (size_t)(size * of[c].n));
        double want, got, error;

        assert_non_null(rgb);
        memset(&group, 0, sizeof group);
        for (int i = 0; i < of[c].n; i++) {
            draw(rgb + i * size, size, (uint32_t)(10 * c) + (uint32_t)i, 0.3f,
                 of[c].range * 0.7f);
            add(&group, rgb + i * size, of[c].height, of[c].width);
        }
        want = by_pairs(rgb, of[c].n, of[c].height, of[c].width);
        got = dg_diversity_of(&group);
        error = 5 * (v * sqrt(2.0 / DG_DIVERSITY_CELLS) +
                     2 * want * sqrt(v / DG_DIVERSITY_CELLS));
        /* pixels that are there twice are fewer numbers */
        if (of[c].height < SIDE)
            error *= sqrt((double)SIDE / (double)of[c].height);
        if (fabs(got * got - want * want - v) > error)
            fail_msg("%lld x %lld: %.9g, by pairs %.9g",
                     (long long)of[c].height, (long long)of[c].width, got,
                     want);
        free(rgb);
    }
}

/* What differs from pixel to pixel only, as an SDE's grain, hardly counts in a
 * large picture: of 16 x 16 pixels a cell, a sixteenth. */
static void test_grain_averages_out(void **state)
{
    enum { LARGE = 16 * SIDE };
    const int64_t size = 3 * (int64_t)LARGE * LARGE;
    float *rgb = malloc(sizeof *rgb * (size_t)size);
    double got;

    (void)state;
    assert_non_null(rgb);
    memset(&group, 0, sizeof group);
    for (uint32_t i = 0; i < 4; i++) {
        draw(rgb, size, 200 + i, 0, 1);
        add(&group, rgb, LARGE, LARGE);
    }
    got = dg_diversity_of(&group) * 16 * sqrt(12); /* of uniform numbers */
    /* 3 x 3072 degrees of freedom: 1 / sqrt(2 x 9216) of it, five times */
    assert_true(fabs(got - 1) < 5 / sqrt(2.0 * 9216));
    free(rgb);
}

/* Any order, and any parts added by whoever has them, are the same bits. */
static void test_diversity_inv25_sums_do_not_know_their_order(void **state)
{
    static const int order[MOST] = { 7, 3, 11, 0, 5, 1, 10, 2, 9, 4, 8, 6 };
    static GroupPictures part[3], shuffled;
    float *rgb = malloc(sizeof *rgb * 3 * 40 * 40);
    int64_t *sum = (int64_t *)&part[0];

    (void)state;
    assert_non_null(rgb);
    memset(part, 0, sizeof part);
    memset(&group, 0, sizeof group);
    memset(&shuffled, 0, sizeof shuffled);
    for (int i = 0; i < MOST; i++) {
        draw(rgb, 3 * 40 * 40, (uint32_t)i, 0, 1);
        add(&group, rgb, 40, 40);
        add(&part[i / 5], rgb, 40, 40);
        draw(rgb, 3 * 40 * 40, (uint32_t)order[i], 0, 1);
        add(&shuffled, rgb, 40, 40);
    }
    for (int p = 1; p < 3; p++)
        for (size_t i = 0; i < sizeof *part / sizeof *sum; i++)
            sum[i] += ((const int64_t *)&part[p])[i];
    assert_memory_equal(&group, &shuffled, sizeof group);
    assert_memory_equal(&group, &part[0], sizeof group);
    free(rgb);
}

/* Cells are rounded to the nearest level. */
static void test_cells_are_rounded(void **state)
{
    static const float level[] = { 0, 0.4f, 0.6f, 1000.4f, 1000.6f, 4094.9f };
    static const int want[] = { 0, 0, 1, 1000, 1001, 4095 };
    float rgb[3];

    (void)state;
    for (int i = 0; i < 6; i++) {
        fill(rgb, 3, level[i] / 4095);
        assert_int_equal(dg_diversity_cells(cells, rgb, 1, 1), 1);
        for (int m = 0; m < DG_DIVERSITY_CELLS; m++)
            assert_int_equal(cells[m], want[i]);
    }
}

static void test_what_is_no_picture_is_left_out(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY, -0.5f, 2.0f };
    float rgb[32 * 32 * 3];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fill(rgb, 32 * 32 * 3, 0.5f);
        rgb[3 * (32 * 31 + 31) + 2] = bad[i]; /* its last number */
        assert_int_equal(dg_diversity_cells(cells, rgb, 32, 32), 0);
    }
}

/* Over groups it is the mean of those that can tell. */
static void test_mean_is_of_groups_with_two(void **state)
{
    static GroupPictures groups[4];
    float rgb[3];

    (void)state;
    memset(groups, 0, sizeof groups);
    assert_true(isnan(dg_diversity_mean(groups, 4)));
    fill(rgb, 3, 1);
    add(&groups[0], rgb, 1, 1); /* alone */
    assert_true(isnan(dg_diversity_mean(groups, 4)));
    add(&groups[1], rgb, 1, 1);
    add(&groups[1], rgb, 1, 1); /* alike */
    assert_true(dg_diversity_mean(groups, 4) == 0);
    add(&groups[3], rgb, 1, 1);
    fill(rgb, 3, 0);
    add(&groups[3], rgb, 1, 1); /* as unlike as can be */
    assert_true(dg_diversity_mean(groups, 4) ==
                dg_diversity_of(&groups[3]) / 2);
    assert_true(fabs(dg_diversity_of(&groups[3]) - sqrt(0.5)) < 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_flat_pictures_is_their_spread),
        cmocka_unit_test(test_the_largest_group_fits),
        cmocka_unit_test(
            test_diversity_inv25_is_half_the_mean_square_difference),
        cmocka_unit_test(test_grain_averages_out),
        cmocka_unit_test(test_diversity_inv25_sums_do_not_know_their_order),
        cmocka_unit_test(test_cells_are_rounded),
        cmocka_unit_test(test_what_is_no_picture_is_left_out),
        cmocka_unit_test(test_mean_is_of_groups_with_two),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
