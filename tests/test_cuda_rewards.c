/* Rewards with a network on the GPU: transformers' scores, as on the CPU, and
 * in the memory that was planned. */
#include "clip_bed.h"

#include "cuda/cuda.h"
#include "cuda_test.h"

static void test_texts_as_transformers(void **state)
{
    (void)state;
    clip_check_texts(dg_backend_cuda());
}

static void test_scores_as_transformers(void **state)
{
    (void)state;
    clip_check_scores(dg_backend_cuda());
}

/* Cosines of unit vectors, each value of which differs by a few roundings of
 * sums of some hundred terms: far below 1e-5. */
static void test_scores_are_the_cpus(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    ClipBed host, device;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&host, dg_backend_cpu(), clip_three);
    clip_open(&device, dg_backend_cuda(), clip_three);
    for (int k = 0; k < 4; k++)
        for (int p = 0; p < CLIP_PROMPTS; p++) {
            const float want = clip_score(&host, k, rgb, 64, p).value;
            const float got = clip_score(&device, k, rgb, 64, p).value;

            clip_near("score", &got, &want, 1, 1e-5);
            assert_true(clip_score(&device, k, rgb, 64, p).value == got);
        }
    assert_int_equal(device.ctx.arena.peak, device.plan.bytes);
    free(rgb);
    clip_close(&host);
    clip_close(&device);
}

/* The aesthetic predictor, which has no texts: its weights add up to some tens,
 * each of a feature that differs as above. */
static void test_aesthetic_scores_are_the_cpus(void **state)
{
    static const char alone[] =
        "rewards=({name=\"aesthetic\";path=\"" CLIP_FOLDER
        "\";head=\"tests/golden/head_tiny.pth\";})";
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    ClipBed host, device;
    float want, got;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&host, dg_backend_cpu(), alone);
    clip_open(&device, dg_backend_cuda(), alone);
    want = clip_score(&host, 0, rgb, 64, 0).value;
    got = clip_score(&device, 0, rgb, 64, 0).value;
    clip_near("score", &got, &want, 1, 1e-4);
    for (int i = 0; i < 3; i++) /* as graphs are replayed */
        assert_true(clip_score(&device, 0, rgb, 64, 0).value == got);
    assert_int_equal(device.ctx.arena.peak, device.plan.bytes);
    rgb[0] = 1 - rgb[0];
    assert_true(clip_score(&device, 0, rgb, 64, 0).value != got);
    free(rgb);
    clip_close(&host);
    clip_close(&device);
}

/* A picture that is not finite has no score, and the reason is told. */
static void test_bad_picture_is_missing(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    rgb[100] = NAN;
    clip_open(&b, dg_backend_cuda(), clip_three);
    assert_int_equal(clip_score(&b, 0, rgb, 64, 0).missing, 1);
    assert_non_null(strstr(dg_last_error()->text, "pixel 33"));
    rgb[100] = 0.5f;
    assert_int_equal(clip_score(&b, 0, rgb, 64, 0).missing, 0);
    free(rgb);
    clip_close(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_texts_as_transformers),
    cmocka_unit_test(test_scores_as_transformers),
    cmocka_unit_test(test_scores_are_the_cpus),
    cmocka_unit_test(test_aesthetic_scores_are_the_cpus),
    cmocka_unit_test(test_bad_picture_is_missing),
};

CUDA_COMM_MAIN(tests, tiny_comm)
