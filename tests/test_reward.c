/* Rewards: thresholds, and scores that cannot be had. */
#include "base/error.h"
#include "reward/reward.h"
#include "tiny_run.h"

#include <math.h>

static int first_of(const RewardInput *in, RewardScore *out)
{
    out->value = in->rgb[0];
    out->strict = in->rgb[0] > 0.5f;
    return DG_OK;
}

static int refuses(const RewardInput *in, RewardScore *out)
{
    first_of(in, out);
    return dg_fail(DG_EIO, "the judge is asleep");
}

static const RewardKind first_value = {
    .name = "first", .has_strict = 1, .scratch_bytes = 24, .score = first_of
};
static const RewardKind sleepy = { .name = "sleepy",
                                   .scratch_bytes = 80,
                                   .score = refuses };
static const Prompt prompt = { .text = "a red circle" };

static RewardScore score(const RewardKind *kind, double threshold, float value)
{
    const Reward r = {
        .kind = kind, .name = "mine", .weight = 1, .threshold = threshold
    };
    const RewardInput in = {
        .rgb = &value, .height = 1, .width = 1, .prompt = &prompt
    };
    RewardScore s;

    dg_clear_error();
    dg_reward_score(&r, &in, &s);
    return s;
}

static void test_score_passes_through(void **state)
{
    const RewardScore s = score(&first_value, NAN, 0.7f);

    (void)state;
    assert_true(s.value == 0.7f && s.strict == 1 && !s.missing);
}

static void test_threshold_makes_one_and_zero(void **state)
{
    (void)state;
    assert_true(score(&first_value, 0.5, 0.7f).value == 1);
    assert_true(score(&first_value, 0.5, 0.3f).value == 0);
    assert_true(score(&first_value, 0.5, 0.5f).value == 0);  /* not above */
    assert_true(score(&first_value, 0.9, 0.7f).strict == 1); /* untouched */
    assert_true(score(&first_value, -1, 0).value == 1);
}

static void test_what_is_not_finite_is_missing(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };

    (void)state;
    for (int i = 0; i < 6; i++) {
        const RewardScore s =
            score(&first_value, i < 3 ? NAN : 0.5, bad[i % 3]);

        assert_int_equal(s.missing, DG_SCORE_FAILED);
        assert_true(isnan(s.value) && isnan(s.strict));
        assert_non_null(strstr(dg_last_error()->text, "its score is "));
    }
}

static void test_what_fails_is_missing_with_its_reason(void **state)
{
    const RewardScore s = score(&sleepy, 0.5, 1);

    (void)state;
    assert_int_equal(s.missing, DG_SCORE_FAILED);
    assert_true(isnan(s.value) && isnan(s.strict));
    assert_string_equal(dg_last_error()->text, "the judge is asleep");
}

static void test_scratch_is_the_largest(void **state)
{
    static const RewardKind wide = { .scratch_bytes = 7, .pixel_bytes = 3 };
    const Reward r[] = { { .kind = &first_value }, { .kind = &sleepy } };
    const Reward by_pixels = { .kind = &wide };

    (void)state;
    assert_int_equal(dg_rewards_scratch(r, 1, 8, 8), 24);
    assert_int_equal(dg_rewards_scratch(r, 2, 8, 8), 80);
    assert_int_equal(dg_rewards_scratch(r, 0, 8, 8), 0);
    assert_int_equal(dg_rewards_scratch(&by_pixels, 1, 5, 7), 7 + 3 * 35);
}

static void test_names_are_known_or_listed(void **state)
{
    Config c;
    Reward r[DG_CONFIG_REWARDS];

    (void)state;
    dg_config_defaults(&c);
    MUST(dg_config_set(&c, "rewards=({name=\"brightness\";weight=2.0;},"
                           "{name=\"shapes\";threshold=0.5;})"));
    MUST(dg_rewards_init(r, &c));
    assert_string_equal(r[0].kind->name, "brightness");
    assert_true(r[0].weight == 2 && isnan(r[0].threshold));
    assert_string_equal(r[1].kind->name, "shapes");
    assert_true(r[1].weight == 1 && r[1].threshold == 0.5);
    assert_true(r[1].kind->has_strict && !r[0].kind->has_strict);
    MUST(dg_config_set(&c, "rewards=({name=\"beauty\";})"));
    assert_int_equal(dg_rewards_init(r, &c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "\"beauty\""));
    assert_non_null(strstr(dg_last_error()->text, "shapes"));
}

static void test_keys_of_networks_are_checked(void **state)
{
    Config c;
    Reward r[DG_CONFIG_REWARDS];

    (void)state;
    dg_config_defaults(&c);
    MUST(dg_config_set(&c, "rewards=({name=\"shapes\";path=\"x.pt\";})"));
    assert_int_equal(dg_rewards_init(r, &c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "rewards[0].path"));
    MUST(dg_config_set(&c, "rewards=({name=\"shapes\";},{name=\"hpsv2\";})"));
    assert_int_equal(dg_rewards_init(r, &c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "rewards[1].path"));
}

/* Keys of other kinds would have no effect: they are told, and so are files
 * that must be there. */
static void test_keys_are_of_the_kind(void **state)
{
    static const struct {
        const char *reward, *text;
    } wrong[] = {
        { "name=\"aesthetic\";", "rewards[0].path = \"\"" },
        { "name=\"aesthetic\";path=\"x\";", "rewards[0].head = \"\"" },
        { "name=\"aesthetic\";path=\"x\";head=\"y\";tokenizer=\"z\";",
          "rewards[0].tokenizer = \"z\": must be empty, aesthetic has no "
          "tokenizer" },
        { "name=\"aesthetic\";path=\"x\";head=\"y\";scale=\"logit\";",
          "rewards[0].scale: must be cos" },
        { "name=\"clip\";path=\"x\";head=\"y\";", "rewards[0].head = \"y\"" },
        { "name=\"clip\";path=\"x\";target=0.5;",
          "rewards[0].target: must be left out" },
        { "name=\"jpeg_size\";path=\"x\";", "jpeg_size has no network" },
        { "name=\"colourfulness\";quantize=\"trunc\";",
          "rewards[0].quantize: must be rint, colourfulness" },
        { "name=\"brightness\";scale=\"logit_26\";", "rewards[0].scale" },
        { "name=\"shapes\";target=0.5;", "rewards[0].target" },
    };
    Config c;
    Reward r[DG_CONFIG_REWARDS];

    (void)state;
    dg_config_defaults(&c);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char set[200];

        snprintf(set, sizeof set, "rewards=({%s})", wrong[i].reward);
        MUST(dg_config_set(&c, set));
        assert_int_equal(dg_rewards_init(r, &c), DG_EINVAL);
        if (strstr(dg_last_error()->text, wrong[i].text) == NULL)
            fail_msg("%s: %s", wrong[i].reward, dg_last_error()->text);
    }
    MUST(dg_config_set(&c, "rewards=({name=\"jpeg_size\";quantize=\"trunc\";},"
                           "{name=\"brightness\";target=0.5;})"));
    MUST(dg_rewards_init(r, &c));
}

/* What the only reward of a configuration says of a picture. */
static float plain_score(const char *reward, const float *rgb, int64_t height,
                         int64_t width)
{
    char set[200];
    Config c;
    Reward r;
    RewardScore s;
    void *scratch;

    dg_config_defaults(&c);
    snprintf(set, sizeof set, "rewards=({%s})", reward);
    MUST(dg_config_set(&c, set));
    MUST(dg_rewards_init(&r, &c));
    scratch = malloc(dg_rewards_scratch(&r, 1, height, width) + 1);
    assert_non_null(scratch);
    dg_reward_score(&r,
                    &(RewardInput) { .rgb = rgb,
                                     .height = height,
                                     .width = width,
                                     .prompt = &prompt,
                                     .scratch = scratch },
                    &s);
    free(scratch);
    return s.missing ? NAN : s.value;
}

static void test_brightness_is_the_mean_luma(void **state)
{
    float rgb[3 * 4 * 4];
    double mean = 0;

    (void)state;
    for (int i = 0; i < 48; i++) {
        static const double luma[] = { 0.299, 0.587, 0.114 };

        rgb[i] = (float)(i % 7) / 7;
        mean += luma[i % 3] * (double)rgb[i] / 16;
    }
    assert_true(fabs((double)plain_score("name=\"brightness\";", rgb, 4, 4) -
                     mean) < 1e-6);
    /* with a target, the distance from it, on either side */
    assert_true(
        fabs((double)plain_score("name=\"brightness\";target=0.9;", rgb, 4, 4) -
             (mean - 0.9)) < 1e-6);
    assert_true(
        fabs((double)plain_score("name=\"brightness\";target=0.0;", rgb, 4, 4) +
             mean) < 1e-6);
}

/* rg and yb of red are 255 and 127.5, of blue 0 and -255, of grey 0 and 0. */
static void test_colourfulness_in_closed_form(void **state)
{
    static const float grey[] = { 0.2f, 0.2f, 0.2f, 0.9f, 0.9f, 0.9f };
    static const float red[] = { 1, 0, 0, 1, 0, 0 };
    static const float three[] = { 1, 0, 0, 0, 0, 1, 0.5f, 0.5f, 0.5f };
    const double length = sqrt(255 * 255 + 127.5 * 127.5);
    const double rg = 255.0 / 3, yb = -127.5 / 3;
    const double var =
        (255 * 255 + 127.5 * 127.5 + 255 * 255) / 3 - (rg * rg + yb * yb);
    const double want = sqrt(var) + 0.3 * sqrt(rg * rg + yb * yb);

    (void)state;
    assert_true(plain_score("name=\"colourfulness\";", grey, 1, 2) == 0);
    assert_true(fabs((double)plain_score("name=\"colourfulness\";", red, 2, 1) -
                     0.3 * length) < 1e-4);
    assert_true(
        fabs((double)plain_score("name=\"colourfulness\";", three, 1, 3) -
             want) < 1e-4);
}

/* A gradient whose bytes libjpeg and Pillow count alike, 22,490 (test_jpeg.c);
 * values between are rounded, or cut. */
static void test_jpeg_size_is_of_eight_bits(void **state)
{
    enum { SIDE = 512, NUM = 3 * SIDE * SIDE };
    float *rgb = malloc(sizeof *rgb * NUM);

    (void)state;
    assert_non_null(rgb);
    for (int i = 0; i < NUM; i++) {
        const int x = i / 3 % SIDE, y = i / 3 / SIDE;
        const int v = i % 3 == 0 ? x / 2 : i % 3 == 1 ? y / 2 : (x + y) / 4;

        rgb[i] = ((float)v + 0.3f) / 255;
    }
    assert_true(plain_score("name=\"jpeg_size\";", rgb, SIDE, SIDE) == 22.49f);
    for (int i = 0; i < NUM; i++)
        rgb[i] += i % 7 == 0 ? 0.4f / 255 : 0;
    assert_true(plain_score("name=\"jpeg_size\";", rgb, SIDE, SIDE) != 22.49f);
    assert_true(plain_score("name=\"jpeg_size\";quantize=\"trunc\";", rgb, SIDE,
                            SIDE) == 22.49f);
    rgb[4] = NAN;
    assert_true(isnan(plain_score("name=\"jpeg_size\";", rgb, SIDE, SIDE)));
    assert_non_null(strstr(dg_last_error()->text, "channel 1 of pixel 1"));
    free(rgb);
}

/* The shapes reward needs to know what was asked for. */
static void test_shapes_without_metadata_is_missing(void **state)
{
    TinyRun t;
    float *rgb;
    RewardInput in;
    RewardScore s;

    (void)state;
    tiny_open(&t, 1, NULL);
    rgb = calloc(3 * 32 * 32, sizeof *rgb);
    assert_true(t.team->workers[0].scratch != NULL);
    in = (RewardInput) { .rgb = rgb,
                         .height = 32,
                         .width = 32,
                         .prompt = &prompt,
                         .scratch = t.team->workers[0].scratch };
    dg_reward_score(&t.rewards[0], &in, &s);
    assert_int_equal(s.missing, DG_SCORE_NONE);
    in.prompt = &t.prompts.item[0];
    dg_reward_score(&t.rewards[0], &in, &s);
    assert_int_equal(s.missing, 0);
    assert_true(s.value >= 0 && s.value < 1 && s.strict == 0);
    free(rgb);
    tiny_close(&t);
}

/* brightness and shapes */
static void open_two(Reward r[2])
{
    static Config c;

    dg_config_defaults(&c);
    MUST(dg_config_set(&c,
                       "rewards=({name=\"brightness\";},{name=\"shapes\";})"));
    MUST(dg_rewards_init(r, &c));
}

/* Shapes are looked for in squares; a mean is a mean of any picture. */
static void test_wide_pictures(void **state)
{
    static const float rgb[2 * 3 * 3] = { [3] = 1, [4] = 1, [5] = 1 };
    Reward r[2];
    RewardScore s;

    (void)state;
    open_two(r);
    MUST(dg_rewards_check_picture(r, 2, 64, 64));
    MUST(dg_rewards_check_picture(r, 1, 48, 64));
    assert_int_equal(dg_rewards_check_picture(r, 2, 48, 64), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "rewards[1].name"));
    MUST(dg_rewards_check_picture(r, 2, 32, 32));
    MUST(dg_rewards_check_picture(r, 2, 128, 128));
    MUST(dg_rewards_check_picture(r, 1, 512, 512));
    assert_int_equal(dg_rewards_check_picture(r, 2, 31, 31), DG_EINVAL);
    assert_int_equal(dg_rewards_check_picture(r, 2, 129, 129), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "32 to 128 pixels a side"));
    dg_reward_score(
        &r[0],
        &(RewardInput) {
            .rgb = rgb, .height = 2, .width = 3, .prompt = &prompt },
        &s);
    assert_false(s.missing);
    assert_true(fabsf(s.value - 1.0f / 6) < 1e-6f);
}

/* Known before the first picture: no prompt says what shapes there should be. */
static void test_prompts_without_metadata(void **state)
{
    Prompt two[2] = { { .text = "a red circle" }, { .text = "a circle" } };
    const PromptList list = { .item = two, .num = 2 };
    Reward r[2];

    (void)state;
    open_two(r);
    MUST(dg_rewards_check_prompts(r, 1, &list));
    assert_int_equal(dg_rewards_check_prompts(r, 2, &list), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "rewards[1].name = \"shapes\": none of the 2"));
    two[1].has_meta = 1;
    MUST(dg_rewards_check_prompts(r, 2, &list));
}

/* One sample's NaN: it is missing, the others of its group go on. */
static int not_every(const RewardInput *in, RewardScore *out)
{
    const int64_t pixels = in->height * in->width;
    double sum = 0;

    for (int64_t i = 0; i < pixels * 3; i++)
        sum += (double)in->rgb[i];
    /* latents' pictures differ in every digit: some are NaN, some are not */
    out->value = fmod(sum * 1e3, 1) < 0.3 ? NAN : (float)(sum / (double)pixels);
    return DG_OK;
}

static void test_missing_scores_leave_the_group(void **state)
{
    static const RewardKind moody = { .name = "moody", .score = not_every };
    static const char *const sets[] = { "rewards=({name=\"brightness\";})",
                                        NULL };
    TinyRun t;
    UpdateStats stats;
    int missing = 0;

    (void)state;
    tiny_open(&t, 2, sets);
    t.rewards[0].kind = &moody;
    tiny_experience(&t, 0);
    for (int64_t i = 0; i < t.rollout->N; i++)
        missing += t.rollout->scores[i].missing;
    assert_in_range(missing, 1, t.rollout->N - 2);
    assert_non_null(strstr(t.rollout->note, "reward brightness is missing: its "
                                            "score is nan"));
    MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    for (int64_t g = 0; g < t.rollout->P; g++) {
        double sum = 0;

        for (int64_t i = g * t.rollout->G; i < (g + 1) * t.rollout->G; i++) {
            if (t.rollout->scores[i].missing)
                assert_true(t.update->total[i] == 0);
            sum += (double)t.update->total[i];
        }
        assert_true(fabs(sum) < 1e-5);
    }
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(stats.set_aside, missing);
    assert_int_equal(stats.skipped_updates, 0);
    assert_true(stats.ratio_max_deviation == 0 && stats.grad_norm > 0);
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_score_passes_through),
    cmocka_unit_test(test_threshold_makes_one_and_zero),
    cmocka_unit_test(test_what_is_not_finite_is_missing),
    cmocka_unit_test(test_what_fails_is_missing_with_its_reason),
    cmocka_unit_test(test_scratch_is_the_largest),
    cmocka_unit_test(test_names_are_known_or_listed),
    cmocka_unit_test(test_keys_of_networks_are_checked),
    cmocka_unit_test(test_keys_are_of_the_kind),
    cmocka_unit_test(test_brightness_is_the_mean_luma),
    cmocka_unit_test(test_colourfulness_in_closed_form),
    cmocka_unit_test(test_jpeg_size_is_of_eight_bits),
    cmocka_unit_test(test_shapes_without_metadata_is_missing),
    cmocka_unit_test(test_wide_pictures),
    cmocka_unit_test(test_prompts_without_metadata),
    cmocka_unit_test(test_missing_scores_leave_the_group),
};

TINY_MAIN(tests)
