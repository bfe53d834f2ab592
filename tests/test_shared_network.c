/* Rewards of the same files have one network, and look once where they see the
 * same: with the bits of each by itself. */
#include "clip_bed.h"

#define LOOKS_AT(path)                       \
    "{name=\"aesthetic\";path=\"" path "\";" \
    "head=\"tests/golden/head_tiny.pth\";}"
#define READS(name, path) \
    "{name=\"" name "\";path=\"" path "\";tokenizer=\"" CLIP_WORDS "\";}"

enum { ALL = 6 };

/* In this order the first has no texts, and its network comes from the third. */
static const char *const each[ALL] = {
    LOOKS_AT(CLIP_FOLDER),       LOOKS_AT(CLIP_FOLDER),
    READS("clip", CLIP_FOLDER),  "{name=\"brightness\";}",
    READS("hpsv2", CLIP_FOLDER), READS("pickscore", CLIP_FOLDER)
};

static void all_of(char text[2048])
{
    snprintf(text, 2048, "rewards=(%s,%s,%s,%s,%s,%s)", each[0], each[1],
             each[2], each[3], each[4], each[5]);
}

static float *a_picture(void)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);

    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    return rgb;
}

static int64_t values_of(const char *rewards)
{
    ClipBed b;
    int64_t values;

    clip_configure(&b, rewards);
    MUST(dg_rewards_outline(b.r, &b.config, b.num));
    values = dg_rewards_num_values(b.r, b.num);
    dg_rewards_close(b.r, b.num);
    return values;
}

static void test_one_network_with_the_bits_of_each_alone(void **state)
{
    char all[2048], one[512];
    float *rgb = a_picture();
    RewardScore s[ALL], again[ALL];
    ClipBed b, alone;

    (void)state;
    all_of(all);
    clip_open(&b, dg_backend_cpu(), all);
    clip_score_all(&b, s, rgb, 1);
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = 1 - rgb[i];
    clip_score_all(&b, again, rgb, 1); /* nothing stays of the picture before */
    for (int k = 0; k < ALL; k++)
        assert_true(again[k].value != s[k].value && !s[k].missing);
    clip_score_all(&b, again, rgb, 0);
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = 1 - rgb[i];
    for (int k = 0; k < ALL; k++) {
        assert_int_equal(b.r[k].network, k == 3 ? 3 : 0);
        assert_true(clip_score(&b, k, rgb, 64, 1).value == s[k].value);
        snprintf(one, sizeof one, "rewards=(%s)", each[k]);
        clip_open(&alone, dg_backend_cpu(), one);
        assert_true(clip_score(&alone, 0, rgb, 64, 1).value == s[k].value);
        clip_close(&alone);
    }
    clip_close(&b);
    free(rgb);
}

/* hpsv2 resamples in another way, and so looks by itself. */
static void test_plan_and_use_count_it_once(void **state)
{
    float *rgb = a_picture();
    RewardScore s[ALL];
    char all[2048];
    ClipBed b, one;

    (void)state;
    all_of(all);
    assert_int_equal(values_of(all),
                     values_of("rewards=(" READS("clip", CLIP_FOLDER) ")"));
    assert_true(values_of("rewards=(" LOOKS_AT(CLIP_FOLDER) ")") <
                values_of(all));
    clip_configure(&one, "rewards=(" LOOKS_AT(CLIP_FOLDER) ")");
    MUST(dg_rewards_outline(one.r, &one.config, 1));
    clip_count(&one, dg_backend_cpu(), 64);
    clip_open(&b, dg_backend_cpu(), all);
    assert_int_equal(b.plan.score_flops, 2 * one.plan.score_flops);
    b.ctx.flops = 0;
    clip_score_all(&b, s, rgb, 0);
    assert_int_equal(b.ctx.flops, b.plan.score_flops);
    assert_int_equal(b.ctx.arena.peak, b.plan.bytes);
    dg_rewards_close(one.r, 1);
    clip_close(&b);
    free(rgb);
}

/* A link leads to the same files. A copy has others, and so has one of the two
 * layouts beside each other; another size is another network. */
static void test_what_is_the_same(void **state)
{
    char folder[256], command[800], rewards[2048];
    const int64_t whole = values_of("rewards=(" READS("clip", CLIP_FOLDER) ")");

    (void)state;
    tiny_folder(folder);
    snprintf(command, sizeof command,
             "ln -s \"$PWD/" CLIP_FOLDER "\" '%s/link' && cp -r " CLIP_FOLDER
             " '%s/copy'",
             folder, folder);
    assert_int_equal(system(command), 0);
    snprintf(rewards, sizeof rewards,
             "rewards=(" READS("clip", CLIP_FOLDER) "," READS("pickscore",
                                                              "%s/./link") ")",
             folder);
    assert_int_equal(values_of(rewards), whole);
    snprintf(rewards, sizeof rewards,
             "rewards=(" READS("clip", CLIP_FOLDER) "," READS("pickscore",
                                                              "%s/copy") ")",
             folder);
    assert_int_equal(values_of(rewards), 2 * whole);
    assert_int_equal(values_of("rewards=(" READS("clip", CLIP_FOLDER) "," READS(
                         "pickscore", CLIP_FOLDER "/open_clip.pt") ")"),
                     2 * whole);
    /* what is not there goes by its name */
    assert_int_equal(
        values_of("rewards=({name=\"hpsv2\";path=\"none/a.pt\";},"
                  "{name=\"pickscore\";path=\"none/a.pt\";},"
                  "{name=\"clip\";path=\"none/a.pt\";model=\"ViT-L-14\";})"),
        values_of("rewards=({name=\"hpsv2\";path=\"none/a.pt\";})") +
            values_of("rewards=({name=\"clip\";path=\"none/a.pt\";"
                      "model=\"ViT-L-14\";})"));
    tiny_drop(folder);
}

/* Another way to 8 bits is another look by the same network. */
static void test_what_sees_the_same(void **state)
{
    static const char two[] =
        "rewards=({name=\"clip\";" CLIP_KEYS "},"
        "{name=\"pickscore\";quantize=\"trunc\";" CLIP_KEYS "},"
        "{name=\"pickscore\";" CLIP_KEYS "})";
    float *rgb = a_picture();
    RewardScore s[3];
    ClipBed b;

    (void)state;
    clip_open(&b, dg_backend_cpu(), two);
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = (floorf(rgb[i] * 200) + 0.75f) / 255;
    clip_score_all(&b, s, rgb, 0);
    assert_int_equal(b.r[1].network, 0);
    assert_int_equal(b.r[1].sight, 1);
    assert_int_equal(b.r[2].sight, 0);
    assert_true(s[0].value != s[1].value);
    assert_true(s[0].value == s[2].value);
    assert_true(clip_score(&b, 1, rgb, 64, 0).value == s[1].value);
    clip_close(&b);
    free(rgb);
}

typedef struct Told {
    int num;
    char text[ALL][200];
} Told;

static void tell(void *user, int64_t k)
{
    Told *told = user;

    assert_in_range(k, 0, ALL - 1);
    snprintf(told->text[k], sizeof told->text[k], "%.199s",
             dg_last_error()->text);
    told->num++;
}

/* Each says why, as if it had looked alone; and the next picture has scores. */
static void test_a_picture_with_nan_is_missing_for_all(void **state)
{
    float *rgb = a_picture(), before;
    RewardScore s[ALL];
    Told told = { 0 };
    char all[2048];
    ClipBed b;

    (void)state;
    all_of(all);
    clip_open(&b, dg_backend_cpu(), all);
    before = rgb[5];
    rgb[5] = NAN;
    MUST(dg_rewards_score(b.r, b.num,
                          &(RewardInput) { .rgb = rgb,
                                           .height = 64,
                                           .width = 64,
                                           .features = b.features,
                                           .ctx = &b.ctx,
                                           .scratch = b.scratch },
                          s, tell, &told));
    assert_int_equal(told.num, ALL);
    for (int k = 0; k < ALL; k++) {
        assert_true(s[k].missing && isnan(s[k].value));
        if (k != 3)
            assert_non_null(strstr(told.text[k], "pixel 1"));
    }
    rgb[5] = before;
    clip_score_all(&b, s, rgb, 0);
    for (int k = 0; k < ALL; k++)
        assert_int_equal(s[k].missing, 0);
    clip_close(&b);
    free(rgb);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_one_network_with_the_bits_of_each_alone),
    cmocka_unit_test(test_plan_and_use_count_it_once),
    cmocka_unit_test(test_what_is_the_same),
    cmocka_unit_test(test_what_sees_the_same),
    cmocka_unit_test(test_a_picture_with_nan_is_missing_for_all),
};

TINY_MAIN(tests)
