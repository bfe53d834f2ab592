/* Pictures for networks against Pillow's and torch's resampling:
 * tests/golden/make_clip_fixture.py; and closed forms. */
#include "clip_golden.h"

#include "base/error.h"
#include "reward/picture.h"

static void prepare(float *out, const PictureOpts *o, const float *rgb,
                    int height, int width)
{
    Arena count, a;

    dg_arena_init_count(&count, "test");
    assert_int_equal(dg_picture_prepare(NULL, o, NULL, height, width, &count),
                     DG_OK);
    /* what was counted is enough, to the byte */
    assert_int_equal(dg_arena_init(&a, "test", count.peak), DG_OK);
    if (dg_picture_prepare(out, o, rgb, height, width, &a))
        fail_msg("%s", dg_last_error()->text);
    assert_int_equal(a.peak, count.peak);
    assert_int_equal(a.used, 0);
    dg_arena_fini(&a);
}

static void compare(const char *name, const PictureOpts *o, double tolerance)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    float out[CLIP_SIDE * CLIP_SIDE * 3], seen[CLIP_SEEN], want[CLIP_SEEN];

    assert_non_null(rgb);
    for (int i = 0; i < CLIP_SIZES; i++) {
        int n = 0;

        clip_picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
        prepare(out, o, rgb, clip_sizes[i][0], clip_sizes[i][1]);
        for (int y = 1; y < CLIP_SIDE; y += 5)
            for (int x = 2; x < CLIP_SIDE; x += 3)
                for (int c = 0; c < 3; c++)
                    seen[n++] = out[(y * CLIP_SIDE + x) * 3 + c];
        assert_int_equal(n, CLIP_SEEN);
        clip_golden(want, CLIP_SEEN, name, i);
        clip_near(name, seen, want, CLIP_SEEN, tolerance);
    }
    free(rgb);
}

/* To the bit in 8-bit values, a step of which is 1/255/0.26 = 0.015: what is
 * left is the last bit of the normalisation. */
static void test_bytes_as_pillow(void **state)
{
    const PictureOpts o = { .side = CLIP_SIDE, .crop_low = 1 };

    (void)state;
    compare("u8_pixels", &o, 1e-6);
}

/* f32 weights and sums of at most 13 + 13 taps: 26 eps max|v| */
static void test_floats_as_torch(void **state)
{
    const PictureOpts o = { .side = CLIP_SIDE, .resampler = DG_RESAMPLE_F32 };

    (void)state;
    compare("f32_pixels", &o, 4e-6);
}

/* In an odd surplus of 3 the halves differ: 1, and to even 2. */
static void test_middle_of_an_odd_surplus(void **state)
{
    float rgb[4 * 7 * 3], out[4 * 4 * 3];
    PictureOpts o = { .side = 4, .crop_low = 1 };

    (void)state;
    for (int i = 0; i < 4 * 7 * 3; i++)
        rgb[i] = (float)(i / 3 % 7) / 255;
    prepare(out, &o, rgb, 4, 7);
    assert_true(fabs((double)out[0] - (1.0 / 255 - 0.48145466) / 0.26862954) <
                1e-6);
    o.crop_low = 0;
    prepare(out, &o, rgb, 4, 7);
    assert_true(fabs((double)out[0] - (2.0 / 255 - 0.48145466) / 0.26862954) <
                1e-6);
}

/* Squeezed, a ramp stays a ramp from edge to edge; its middle does not. */
static void test_squash_keeps_the_edges(void **state)
{
    float rgb[8 * 64 * 3], out[8 * 8 * 3];
    PictureOpts o = { .side = 8, .squash = 1, .resampler = DG_RESAMPLE_F32 };

    (void)state;
    for (int i = 0; i < 8 * 64 * 3; i++)
        rgb[i] = (float)(i / 3 % 64) * 4 / 255;
    for (o.squash = 0; o.squash < 2; o.squash++) {
        prepare(out, &o, rgb, 8, 64);
        for (int x = 2; x < 6; x++) {
            const double level = o.squash ? 4 * (8 * x + 3.5) : 4 * (28 + x);
            const double v =
                (double)out[(3 * 8 + x) * 3 + 1] * 0.26130258 + 0.4578275;

            assert_true(fabs(v - level / 255) < 1e-6);
        }
    }
}

static void test_eight_bits(void **state)
{
    static const float in[] = { 0,          1,     0.5f / 255, 1.5f / 255,
                                2.6f / 255, -0.2f, 1.7f,       254.9f / 255 };
    static const uint8_t nearest[] = { 0, 255, 0, 2, 3, 0, 255, 255 };
    static const uint8_t cut[] = { 0, 255, 0, 1, 2, 0, 255, 254 };
    uint8_t out[8];

    (void)state;
    assert_int_equal(dg_picture_quantize(out, in, 8, DG_QUANTIZE_RINT), DG_OK);
    assert_memory_equal(out, nearest, 8);
    assert_int_equal(dg_picture_quantize(out, in, 8, DG_QUANTIZE_TRUNC), DG_OK);
    assert_memory_equal(out, cut, 8);
}

static void test_what_is_not_finite_is_named(void **state)
{
    float rgb[2 * 2 * 3] = { 0 }, out[2 * 2 * 3];
    const PictureOpts o = { .side = 2 };
    Arena a;

    (void)state;
    assert_int_equal(dg_arena_init(&a, "test", 1 << 16), DG_OK);
    rgb[7] = NAN;
    assert_int_equal(dg_picture_prepare(out, &o, rgb, 2, 2, &a), DG_ENUMERIC);
    assert_non_null(strstr(dg_last_error()->text, "channel 1 of pixel 2"));
    rgb[7] = INFINITY;
    assert_int_equal(dg_picture_prepare(out, &o, rgb, 2, 2, &a), DG_ENUMERIC);
    dg_arena_fini(&a);
    assert_int_equal(dg_arena_init(&a, "test", 300), DG_OK);
    rgb[7] = 0;
    assert_int_equal(dg_picture_prepare(out, &o, rgb, 2, 2, &a), DG_ENOMEM);
    dg_arena_fini(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_as_pillow),
        cmocka_unit_test(test_floats_as_torch),
        cmocka_unit_test(test_middle_of_an_odd_surplus),
        cmocka_unit_test(test_squash_keeps_the_edges),
        cmocka_unit_test(test_eight_bits),
        cmocka_unit_test(test_what_is_not_finite_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
