/* A user's library as a reward: tests/reward_plugin.c, built in several ways. */
#include "base/error.h"
#include "base/sha256.h"
#include "dancegrpo/reward_plugin.h"
#include "reward/reward.h"
#include "store/file.h"
#include "tiny_run.h"

#include <fenv.h>
#include <math.h>

enum { SIDE = 6, VALUES = 3 * SIDE * SIDE };

static const Prompt prompt = { .text = "a red circle" };

typedef struct Bed {
    Config config;
    Reward r[DG_CONFIG_REWARDS];
    float rgb[VALUES];
    char scratch[4096];
} Bed;

static const char *file_of(const char *library)
{
    static char path[256];
    const char *build = getenv("DG_BUILD");

    snprintf(path, sizeof path, "%s/tests/plugins/%s.so",
             build != NULL ? build : "build", library);
    return path;
}

static void configure(Bed *b, const char *library, const char *options)
{
    memset(b, 0, sizeof *b);
    dg_config_defaults(&b->config);
    MUST(dg_config_set(&b->config, "rewards=({name=\"mine\";})"));
    snprintf(b->config.rewards[0].plugin, sizeof b->config.rewards[0].plugin,
             "%s", file_of(library));
    snprintf(b->config.rewards[0].options, sizeof b->config.rewards[0].options,
             "%s", options);
    for (int i = 0; i < VALUES; i++)
        b->rgb[i] = (float)(i * i % 31) / 31;
}

static void open_bed(Bed *b, const char *library, const char *options)
{
    configure(b, library, options);
    MUST(dg_rewards_init(b->r, &b->config));
    MUST(dg_rewards_open(b->r, &b->config, 1, &tiny_comm));
}

static int score(Bed *b, const Prompt *of, RewardScore *out)
{
    const RewardInput in = { .rgb = b->rgb,
                             .height = SIDE,
                             .width = SIDE,
                             .prompt = of,
                             .scratch = b->scratch };

    return dg_reward_score(&b->r[0], &in, out);
}

/* The code of a score, and of its reason at least a part. */
static RewardScore one(const char *options, int code, const char *reason)
{
    RewardScore s;
    Bed b;

    open_bed(&b, "good", options);
    dg_clear_error();
    assert_int_equal(score(&b, &prompt, &s), code);
    if (strstr(dg_last_error()->text, reason) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\"", options, dg_last_error()->text,
                 reason);
    assert_int_equal(s.missing != 0, reason[0] != '\0');
    assert_int_equal(isnan(s.value) != 0, s.missing != 0);
    dg_rewards_close(b.r, 1);
    return s;
}

static void refused(const char *library, const char *options, int code,
                    const char *why)
{
    Bed b;
    int err;

    configure(&b, library, options);
    MUST(dg_rewards_init(b.r, &b.config));
    err = dg_rewards_open(b.r, &b.config, 1, &tiny_comm);
    dg_rewards_close(b.r, 1);
    assert_int_equal(err, code);
    assert_non_null(strstr(dg_last_error()->text, "rewards[0].plugin = \""));
    assert_non_null(strstr(dg_last_error()->text, file_of(library)));
    if (strstr(dg_last_error()->text, why) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", dg_last_error()->text, why);
}

/* --- scores ----------------------------------------------------------------- */

static void test_score_is_its_twins_bit_for_bit(void **state)
{
    RewardScore mine, own;
    Bed b;

    (void)state;
    open_bed(&b, "good", "");
    assert_int_equal(score(&b, &prompt, &mine), DG_OK);
    dg_rewards_close(b.r, 1);
    MUST(dg_config_set(&b.config, "rewards=({name=\"brightness\";})"));
    MUST(dg_rewards_init(b.r, &b.config));
    assert_int_equal(score(&b, &prompt, &own), DG_OK);
    assert_memory_equal(&mine.value, &own.value, sizeof own.value);
    assert_true(mine.value > 0 && isnan(mine.strict) && !mine.missing);
}

static void test_score_that_cannot_be_had_is_missing(void **state)
{
    (void)state;
    one("missing=1", DG_OK, "not today: \"a red circle\"");
    one("silent", DG_OK, "its library gave no reason");
    one("endless", DG_OK, "xxxxxxxxxxxxxxxx");
    assert_int_equal(strlen(dg_last_error()->text), DG_REWARD_REASON - 1);
    one("nan", DG_OK, "its score is nan");
}

/* Their reasons go into logs, tables and metrics, a line each. */
static void test_reasons_are_a_line(void **state)
{
    static const char line[] = "one line of ?[31m? all ";

    (void)state;
    one("lines=missing", DG_OK, line);
    assert_string_equal(dg_last_error()->text, line);
    one("lines=fatal", DG_EREWARD, line);
    refused("good", "lines=refuse", DG_EREWARD, line);
}

static void test_strict_is_zero_or_one(void **state)
{
    (void)state;
    assert_true(one("strict=1", DG_OK, "").strict == 1);
    assert_true(one("strict=0", DG_OK, "").strict == 0);
    assert_true(isnan(one("strict=nan", DG_OK, "").strict));
    one("strict=0.5", DG_OK, "strict = 0.5: must be 0, 1 or NaN");
}

static void test_what_cannot_go_on_ends_the_run(void **state)
{
    (void)state;
    one("fatal", DG_EREWARD, "cannot go on: the model is gone");
    one("status=3", DG_EREWARD, "returned 3");
    one("status=-1", DG_EREWARD, "returned -1");
}

static void test_prompt_and_metadata_arrive(void **state)
{
    const Prompt with = { .text = "a cat", .json = "{\"prompt\":\"a cat\"}" };
    RewardScore s;
    Bed b;

    (void)state;
    open_bed(&b, "good", "words");
    score(&b, &prompt, &s);
    assert_true(s.value == (float)strlen(prompt.text));
    score(&b, &with, &s);
    assert_true(s.value == (float)(5 + 1000 * strlen(with.json)));
    dg_rewards_close(b.r, 1);
}

static void test_scratch_is_as_large_as_asked_for(void **state)
{
    RewardScore s;
    size_t bytes;
    Bed b;

    (void)state;
    open_bed(&b, "good", "scratch=5");
    bytes = dg_rewards_scratch(b.r, 1, SIDE, SIDE);
    assert_true(bytes >= 5 * SIDE * SIDE && bytes < sizeof b.scratch);
    assert_true(dg_rewards_scratch(b.r, 1, 100, 50) >= 25000);
    memset(b.scratch, 1, sizeof b.scratch);
    score(&b, &prompt, &s);
    assert_true(s.value == 0); /* aligned */
    for (size_t i = bytes; i < sizeof b.scratch; i++)
        assert_int_equal(b.scratch[i], 1);
    dg_rewards_close(b.r, 1);
    open_bed(&b, "good", "scratch=9.3e18");
    bytes = dg_rewards_scratch(b.r, 1, 1, 1);
    assert_true(bytes >= (size_t)1 << 50);
    assert_true(bytes <= SIZE_MAX / 4096); /* nor is it little for threads */
    dg_rewards_close(b.r, 1);
}

static int threads_in(const char *library)
{
    float most = 0;
    Bed b;

    open_bed(&b, library, "at_once");
#pragma omp parallel for num_threads(2) reduction(max : most)
    for (int i = 0; i < 2; i++) {
        RewardScore s;

        score(&b, &prompt, &s);
        most = s.value > most ? s.value : most;
    }
    dg_rewards_close(b.r, 1);
    return (int)most;
}

static void test_calls_follow_each_other_unless_it_is_safe(void **state)
{
    (void)state;
    assert_int_equal(threads_in("good"), 1);
    assert_int_equal(threads_in("threads"), 2);
}

static void test_rounding_stays_the_programs(void **state)
{
    RewardScore s;
    Bed b;

    (void)state;
    configure(&b, "upward", "upward");
    MUST(dg_rewards_init(b.r, &b.config));
    MUST(dg_rewards_outline(b.r, &b.config, 1));
    assert_int_equal(fegetround(), FE_TONEAREST);
    dg_rewards_close(b.r, 1);
    MUST(dg_rewards_open(b.r, &b.config, 1, &tiny_comm));
    assert_int_equal(fegetround(), FE_TONEAREST);
    score(&b, &prompt, &s);
    assert_int_equal(fegetround(), FE_TONEAREST);
    dg_rewards_close(b.r, 1);
}

/* --- opening ------------------------------------------------------------------ */

static void test_bad_libraries_are_told(void **state)
{
    Bed b;

    (void)state;
    refused("nowhere", "", DG_EIO, "No such file");
    refused("abi", "", DG_EFORMAT,
            "built with version 2 of dancegrpo/reward_plugin.h, this program "
            "has version 1");
    refused("flags", "", DG_EFORMAT, "flags 0x80");
    refused("score", "", DG_EFORMAT, "no score()");
    refused("null", "", DG_EFORMAT, "returns NULL");
    refused("symbol", "", DG_EFORMAT, "no function dg_reward_plugin()");
    refused("good", "refuse", DG_EREWARD,
            "refuses to open: no model for \"mine\"");
    refused("good", "mute", DG_EREWARD, "refuses to open, without a reason");
    configure(&b, "good", "");
    snprintf(b.config.rewards[0].plugin, 32, "README.md");
    MUST(dg_rewards_init(b.r, &b.config));
    assert_int_equal(dg_rewards_outline(b.r, &b.config, 1), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text, "invalid ELF header"));
}

static void test_library_learns_its_place(void **state)
{
    Bed b;

    (void)state;
    refused("good", "seat", DG_EREWARD,
            "mine rank 0 of 1, of its node 0 of 1, device -1, open 0");
    configure(&b, "good", "seat");
    MUST(dg_rewards_init(b.r, &b.config));
    dg_rewards_seat(b.r, 1, 3);
    assert_int_equal(b.r[0].gpu, 3);
    MUST(dg_rewards_outline(b.r, &b.config, 1));
    b.r[0].kind->net->seat(b.r[0].net, 3);
    assert_int_equal(b.r[0].kind->net->prepare(b.r[0].net, &tiny_comm),
                     DG_EREWARD);
    assert_non_null(strstr(dg_last_error()->text, "device 3"));
    dg_rewards_close(b.r, 1);
}

static void test_instances_are_opened_and_closed_in_pairs(void **state)
{
    Bed a, b, plan;

    (void)state;
    open_bed(&a, "good", "");
    open_bed(&b, "good", "words");
    configure(&plan, "good", "");
    MUST(dg_rewards_init(plan.r, &plan.config));
    MUST(dg_rewards_outline(plan.r, &plan.config, 1)); /* opens none */
    dg_rewards_close(plan.r, 1);
    refused("good", "seat", DG_EREWARD, "open 2");
    dg_rewards_close(b.r, 1);
    refused("good", "seat", DG_EREWARD, "open 1");
    dg_rewards_close(a.r, 1);
    refused("good", "seat", DG_EREWARD, "open 0");
}

static void test_plan_counts_scratch_alone(void **state)
{
    RewardPlan plan;
    Backend table;
    Context ctx;
    Bed b;

    (void)state;
    configure(&b, "good", "scratch=7");
    MUST(dg_rewards_init(b.r, &b.config));
    MUST(dg_rewards_outline(b.r, &b.config, 1));
    dg_backend_plan(&table, dg_backend_cpu());
    MUST(dg_context_init(&ctx, &table, 0));
    MUST(dg_rewards_plan(&plan, b.r, 1, &ctx, 64, 64));
    dg_context_fini(&ctx);
    assert_true(plan.bytes == 0 && plan.encode_flops + plan.score_flops == 0);
    assert_int_equal(dg_rewards_num_values(b.r, 1), 0);
    assert_int_equal(dg_rewards_num_features(b.r, 1), 0);
    assert_true(dg_rewards_scratch(b.r, 1, 64, 64) >= 7 * 64 * 64);
    dg_rewards_close(b.r, 1);
}

static void test_library_is_named_by_its_digest(void **state)
{
    char *text, *bytes, hex[DG_SHA256_HEX], wanted[512];
    size_t num;
    Bed b;

    (void)state;
    configure(&b, "good", "");
    MUST(dg_file_read(file_of("good"), &bytes, &num));
    MUST(dg_sha256_bytes(hex, bytes, num));
    free(bytes);
    b.config.rewards[b.config.num_rewards++] = (RewardConfig) {
        .name = "shapes",
    };
    b.config.rewards[b.config.num_rewards++] =
        (RewardConfig) { .name = "other", .plugin = "nowhere.so" };
    snprintf(wanted, sizeof wanted,
             "mine: %s, SHA-256 %s\nother: nowhere.so, not read",
             file_of("good"), hex);
    MUST(dg_rewards_plugins(&text, &b.config, &tiny_comm));
    assert_string_equal(text, wanted);
    free(text);
    b.config.num_rewards = 0;
    MUST(dg_rewards_plugins(&text, &b.config, &tiny_comm));
    assert_string_equal(text, "");
    free(text);
}

/* --- keys ----------------------------------------------------------------------- */

static void bad_keys(const char *keys, const char *why)
{
    Reward r[DG_CONFIG_REWARDS];
    char text[512];
    Config c;

    snprintf(text, sizeof text, "rewards=({name=\"shapes\";},{%s})", keys);
    dg_config_defaults(&c);
    MUST(dg_config_set(&c, text));
    assert_int_equal(dg_rewards_init(r, &c), DG_EINVAL);
    if (strstr(dg_last_error()->text, why) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", dg_last_error()->text, why);
}

static void test_keys_of_a_users_reward_are_checked(void **state)
{
    (void)state;
    bad_keys("name=\"brightness\";plugin=\"x.so\";",
             "rewards[1].name = \"brightness\": must be a name of your own, "
             "this program has a reward of that one");
    bad_keys("name=\"my ocr\";plugin=\"x.so\";",
             "must be of letters, digits, _ and -");
    bad_keys("name=\"ocr\";plugin=\"x.so\";path=\"y\";", "rewards[1].path");
    bad_keys("name=\"ocr\";plugin=\"x.so\";tokenizer=\"y\";",
             "rewards[1].tokenizer");
    bad_keys("name=\"ocr\";plugin=\"x.so\";model=\"y\";", "rewards[1].model");
    bad_keys("name=\"ocr\";plugin=\"x.so\";scale=\"logit\";",
             "rewards[1].scale: must be cos");
    bad_keys("name=\"ocr\";plugin=\"x.so\";quantize=\"trunc\";",
             "rewards[1].quantize: must be rint");
    bad_keys("name=\"brightness\";options=\"x\";",
             "rewards[1].options = \"x\": must be empty, brightness has no "
             "options");
    bad_keys("name=\"ocr\";plugin=\"x.so\";head=\"y\";", "rewards[1].head");
    bad_keys("name=\"ocr\";plugin=\"x.so\";target=0.5;", "rewards[1].target");
    bad_keys("name=\"ocr\";plugin=\"x.so\";command=\"y\";",
             "rewards[1].plugin = \"x.so\": must be empty where "
             "rewards[1].command is set");
    bad_keys("name=\"ocr\";", "must be shapes");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_score_is_its_twins_bit_for_bit),
    cmocka_unit_test(test_score_that_cannot_be_had_is_missing),
    cmocka_unit_test(test_reasons_are_a_line),
    cmocka_unit_test(test_strict_is_zero_or_one),
    cmocka_unit_test(test_what_cannot_go_on_ends_the_run),
    cmocka_unit_test(test_prompt_and_metadata_arrive),
    cmocka_unit_test(test_scratch_is_as_large_as_asked_for),
    cmocka_unit_test(test_calls_follow_each_other_unless_it_is_safe),
    cmocka_unit_test(test_rounding_stays_the_programs),
    cmocka_unit_test(test_bad_libraries_are_told),
    cmocka_unit_test(test_library_learns_its_place),
    cmocka_unit_test(test_instances_are_opened_and_closed_in_pairs),
    cmocka_unit_test(test_plan_counts_scratch_alone),
    cmocka_unit_test(test_library_is_named_by_its_digest),
    cmocka_unit_test(test_keys_of_a_users_reward_are_checked),
};

TINY_MAIN(tests)
