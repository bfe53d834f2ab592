/* The aesthetic predictor: its published head by itself, and a minute one behind
 * the networks of tests/golden/clip_tiny: tests/golden/make_head_fixture.py. */
#include "clip_bed.h"

#include "../src/reward/clip_net.h"
#include "../src/reward/linear_head.h"
#include "weights/safetensors.h"
#include "weights/snapshot.h"

#include <unistd.h>

#define REAL_HEAD "../shared/data/sac+logos+ava1-l14-linearMSE.pth"
#define HEAD      "tests/golden/head_tiny.pth"
#define LOOKS(of) \
    "rewards=({name=\"aesthetic\";path=\"" of "\";head=\"" HEAD "\";})"

/* Published: of the zero vector, the diagonal, the first axis, and signs that
 * alternate; to six digits. */
static void test_published_head(void **state)
{
    static const double want[] = { 5.236646, 4.883285, 4.545052, 5.310305 };
    float x[4][768] = { { 0 } };
    LinearHead head = { 0 };
    double length = 0;

    (void)state;
    if (access(REAL_HEAD, R_OK) != 0) {
        print_message("%s is not there: left out\n", REAL_HEAD);
        skip();
    }
    MUST(dg_linear_head_load(&head, &tiny_comm, REAL_HEAD, 768, "head"));
    for (int i = 0; i < 768; i++) {
        x[1][i] = (float)(1 / sqrt(768));
        x[2][i] = i == 0;
        x[3][i] = (float)((i % 2 ? -1 : 1) / sqrt(768));
        length += head.weight[i] * head.weight[i];
    }
    for (int k = 0; k < 4; k++)
        assert_true(fabs(dg_linear_head_apply(&head, x[k]) - want[k]) < 1e-6);
    assert_true(fabs(sqrt(length) - 17.9956) < 1e-4);
    dg_linear_head_fini(&head);
    assert_int_equal(
        dg_linear_head_load(&head, &tiny_comm, REAL_HEAD, 1024, "head"),
        DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text,
                           "layers.0.weight is [1024, 768], must be "
                           "[1024, 1024]"));
    dg_linear_head_fini(&head);
}

/* What the values may be off by where each feature is by 1e-5. */
static double tolerance(void)
{
    LinearHead head = { 0 };
    double sum = 0;

    MUST(dg_linear_head_load(&head, &tiny_comm, HEAD, CLIP_WIDTH, "head"));
    for (int i = 0; i < CLIP_WIDTH; i++)
        sum += fabs(head.weight[i]);
    dg_linear_head_fini(&head);
    return 1e-5 * sum;
}

/* Of a picture of any size, without a prompt's features. */
static RewardScore look(ClipBed *b, int i)
{
    const int64_t height = clip_sizes[i][0], width = clip_sizes[i][1];
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    void *scratch = malloc(dg_rewards_scratch(b->r, b->num, height, width));
    const RewardInput in = { .rgb = rgb,
                             .height = height,
                             .width = width,
                             .ctx = &b->ctx,
                             .scratch = scratch };
    RewardScore s;

    assert_non_null(rgb);
    assert_non_null(scratch);
    clip_picture(rgb, (int)height, (int)width);
    dg_reward_score(&b->r[0], &in, &s);
    free(rgb);
    free(scratch);
    return s;
}

/* transformers' features of the pictures, the head's layers one by one. */
static void test_scores_as_the_layers_one_by_one(void **state)
{
    FILE *f = fopen("tests/golden/head_tiny.txt", "r");
    const double off = tolerance();
    ClipBed b;

    (void)state;
    assert_non_null(f);
    assert_true(off < 5e-4); /* scores differ by some tenths */
    clip_open(&b, dg_backend_cpu(), LOOKS(CLIP_FOLDER));
    for (int i = 0; i < CLIP_SIZES; i++) {
        const RewardScore s = look(&b, i);
        float want;

        assert_int_equal(fscanf(f, "%f", &want), 1);
        assert_int_equal(s.missing, 0);
        clip_near("aesthetic", &s.value, &want, 1, off);
    }
    fclose(f);
    clip_close(&b);
}

/* open_clip.pt as newer OpenCLIP writes it: texts' names stand behind "text.".
 * The folder's sizes are beside it. */
static void write_newer(const char *folder)
{
    WeightSource *s;
    WeightOut t[128];
    char names[128][100], path[300], command[600];
    int64_t num;

    MUST(dg_snapshot_open(&s, CLIP_FOLDER "/open_clip.pt", NULL));
    num = dg_source_num(s);
    assert_true(num <= 128);
    for (int64_t i = 0; i < num; i++) {
        const WeightInfo *info = dg_source_info(s, i);
        const char *name = info->name + strlen("state_dict.");
        float *data = malloc(sizeof *data * (size_t)info->count);

        assert_non_null(data);
        MUST(dg_source_read(s, i, 0, info->count, data));
        snprintf(names[i], sizeof names[i], "%s%s",
                 strncmp(name, "visual.", 7) == 0 ||
                         strcmp(name, "logit_scale") == 0
                     ? ""
                     : "text.",
                 name);
        t[i] = (WeightOut) { .name = names[i],
                             .type = DG_WEIGHT_F32,
                             .num_dims = info->num_dims,
                             .data = data };
        memcpy(t[i].dims, info->dims, sizeof t[i].dims);
    }
    snprintf(path, sizeof path, "%s/open_clip.safetensors", folder);
    MUST(dg_safetensors_write(path, t, num, NULL, NULL));
    for (int64_t i = 0; i < num; i++)
        free((void *)t[i].data);
    dg_source_close(s);
    snprintf(command, sizeof command, "cp " CLIP_FOLDER "/config.json '%s'",
             folder);
    assert_int_equal(system(command), 0);
}

/* open_clip.pt has the same values, in float16, beside the folder's sizes. */
static void test_all_layouts_are_the_same(void **state)
{
    char folder[256], newer[600];
    ClipBed b;
    float first;

    (void)state;
    clip_open(&b, dg_backend_cpu(), LOOKS(CLIP_FOLDER));
    first = look(&b, 0).value;
    clip_close(&b);
    clip_open(&b, dg_backend_cpu(), LOOKS(CLIP_FOLDER "/open_clip.pt"));
    assert_true(look(&b, 0).value == first);
    clip_close(&b);
    tiny_folder(folder);
    write_newer(folder);
    snprintf(newer, sizeof newer,
             "rewards=({name=\"aesthetic\";path=\"%s/open_clip.safetensors\";"
             "head=\"" HEAD "\";})",
             folder);
    clip_open(&b, dg_backend_cpu(), newer);
    assert_true(look(&b, 0).value == first);
    clip_close(&b);
    tiny_drop(folder);
}

/* Beside one that reads texts: the plan is what is used, and that one's
 * features are where they were. */
static void test_beside_a_reward_with_texts(void **state)
{
    static const char two[] =
        "rewards=({name=\"aesthetic\";path=\"" CLIP_FOLDER "\";head=\"" HEAD
        "\";},{name=\"clip\";" CLIP_KEYS "})";
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    float want[CLIP_PROMPTS];
    RewardScore s[2];
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&b, dg_backend_cpu(), two);
    assert_int_equal(dg_rewards_num_features(b.r, b.num), CLIP_WIDTH);
    b.ctx.flops = 0;
    clip_score_all(&b, s, rgb, 1);
    assert_int_equal(s[0].missing, 0);
    clip_golden(want, CLIP_PROMPTS, "u8_cos", 0);
    clip_near("u8_cos", &s[1].value, &want[1], 1, 1e-5);
    assert_int_equal(b.ctx.flops, b.plan.score_flops);
    assert_int_equal(b.ctx.arena.peak, b.plan.bytes);
    free(rgb);
    clip_close(&b);
}

/* OpenAI's ViT-L/14 where nothing else tells, and of it the vision tower. */
static void test_public_size_without_texts(void **state)
{
    ClipModelConfig c;
    ClipModel *m;
    ParamSet set;
    ClipBed b;

    (void)state;
    clip_configure(&b, "rewards=({name=\"aesthetic\";path=\"nowhere/at_all.pt\""
                       ";head=\"none.pth\";})");
    MUST(dg_rewards_outline(b.r, &b.config, 1));
    clip_count(&b, dg_backend_cpu(), 512);
    assert_true(fabs((double)b.plan.score_flops / 162.0e9 - 1) < 1e-3);
    assert_int_equal(b.plan.encode_flops, 0);
    assert_int_equal(((ClipNet *)b.r[0].net)->config.vision.act,
                     DG_CLIP_QUICK_GELU); /* nothing else would tell */
    MUST(dg_clip_model_named(&c, "ViT-L-14-quickgelu"));
    c.vision_only = 1;
    MUST(dg_params_init(&set, 1));
    MUST(dg_clip_model_create(&m, &c, &set, ""));
    assert_int_equal(dg_params_num_values(&set), 303966208);
    assert_int_equal(dg_rewards_num_values(b.r, 1), set.count);
    dg_clip_model_destroy(m);
    dg_params_fini(&set);
    dg_rewards_close(b.r, 1);
}

/* --- heads that do not serve ------------------------------------------------ */

enum { HEAD_TENSORS = 10, HEAD_VALUES = 24 };

static const char *const head_names[HEAD_TENSORS] = {
    "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
    "layers.4.weight", "layers.4.bias", "layers.6.weight", "layers.6.bias",
    "layers.7.weight", "layers.7.bias"
};

/* Writes a head of widths 4, 3, 2, 2, 2, 1 whose values are 0.25, or value at
 * the last bias; tensor 'odd' has first dimension 'rows', or is not there (0),
 * and the names stand behind prefix. Loads it for pictures' features of 4. */
static int try_head(const char *prefix, float value, int odd, int64_t rows,
                    double *of_ones)
{
    static const int64_t widths[] = { 4, 3, 2, 2, 2, 1 };
    static const float ones[4] = { 1, 1, 1, 1 };
    float data[HEAD_VALUES], last = value;
    char folder[256], path[300], names[HEAD_TENSORS][64];
    LinearHead head = { 0 };
    WeightOut t[HEAD_TENSORS];
    int num = 0, err;

    for (int i = 0; i < HEAD_VALUES; i++)
        data[i] = 0.25f;
    for (int i = 0; i < HEAD_TENSORS; i++) {
        const int64_t out = i == odd ? rows : widths[i / 2 + 1];

        if (out == 0)
            continue;
        snprintf(names[i], sizeof names[i], "%s%s", prefix, head_names[i]);
        t[num++] = (WeightOut) { .name = names[i],
                                 .type = DG_WEIGHT_F32,
                                 .num_dims = i % 2 ? 1 : 2,
                                 .dims = { out, i % 2 ? 0 : widths[i / 2] },
                                 .data = i == 9 ? &last : data };
    }
    tiny_folder(folder);
    snprintf(path, sizeof path, "%s/head.safetensors", folder);
    MUST(dg_safetensors_write(path, t, num, NULL, NULL));
    err = dg_linear_head_load(&head, &tiny_comm, path, 4, "head");
    if (!err)
        *of_ones = dg_linear_head_apply(&head, ones);
    dg_linear_head_fini(&head);
    tiny_drop(folder);
    return err;
}

/* 4 ones: 1.25, 1.1875, 0.84375, 0.671875, then the sum of two quarters and
 * the last bias. */
static void test_widths_are_the_files(void **state)
{
    double got;

    (void)state;
    MUST(try_head("", 0.5f, -1, 0, &got));
    assert_true(got == 0.25 * 2 * 0.671875 + 0.5);
    MUST(try_head("state_dict.", 3, -1, 0, &got));
    assert_true(got == 0.25 * 2 * 0.671875 + 3);
}

static void refused(int err, const char *text)
{
    assert_int_equal(err, DG_EFORMAT);
    if (strstr(dg_last_error()->text, text) == NULL)
        fail_msg("\"%s\" says nothing of \"%s\"", dg_last_error()->text, text);
}

static void test_heads_that_do_not_fit_are_refused(void **state)
{
    double got;

    (void)state;
    refused(try_head("", 1, 4, 3, &got),
            "layers.4.bias is [2], must be [3], layers.6.weight is [2, 2], "
            "must be [2, 3]");
    refused(try_head("", 1, 8, 2, &got),
            "layers.7.weight is [2, 2], must be [1, 2]");
    refused(try_head("", 1, 6, 0, &got), "missing (layers.6.weight)");
    refused(try_head("", 1, 3, 0, &got), "missing (layers.2.bias)");
    refused(try_head("mlp.", 1, -1, 0, &got), "unexpected (mlp.layers.0.bias");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_published_head),
    cmocka_unit_test(test_scores_as_the_layers_one_by_one),
    cmocka_unit_test(test_all_layouts_are_the_same),
    cmocka_unit_test(test_beside_a_reward_with_texts),
    cmocka_unit_test(test_public_size_without_texts),
    cmocka_unit_test(test_widths_are_the_files),
    cmocka_unit_test(test_heads_that_do_not_fit_are_refused),
};

TINY_MAIN(tests)
