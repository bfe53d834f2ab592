/* HPS v2, CLIP score and PickScore against transformers' CLIPModel and its
 * image processor, of minute networks: tests/golden/make_clip_fixture.py. */
#include "clip_bed.h"

#include "../src/reward/clip_config.h"
#include "base/log.h"
#include "reward/picture.h"
#include "weights/load.h"

static void test_texts_as_transformers(void **state)
{
    (void)state;
    clip_check_texts(dg_backend_cpu());
}

static void test_scores_as_transformers(void **state)
{
    (void)state;
    clip_check_scores(dg_backend_cpu());
}

/* Higher than wide, wider than high: the network sees the middle. HPS v2 takes
 * another one where it has a folder of transformers, as these are. */
static void test_scores_of_any_shape_as_transformers(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), want[CLIP_PROMPTS];
    Prompt text = { .text = (char *)clip_prompts[0] };
    RewardScore s;
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    clip_open(&b, dg_backend_cpu(), clip_three);
    dg_context_fini(&b.ctx); /* planned for 64 x 64 */
    MUST(dg_context_init(&b.ctx, dg_backend_cpu(),
                         b.plan.bytes + ((size_t)1 << 20)));
    for (int i = 0; i < CLIP_SIZES; i++) {
        void *scratch = malloc(
            dg_rewards_scratch(b.r, b.num, clip_sizes[i][0], clip_sizes[i][1]));
        const RewardInput in = {
            .rgb = rgb,
            .height = clip_sizes[i][0],
            .width = clip_sizes[i][1],
            .prompt = &text,
            .features = b.features,
            .ctx = &b.ctx,
            .scratch = scratch,
        };

        assert_non_null(scratch);
        clip_picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
        clip_golden(want, CLIP_PROMPTS, "u8_cos", i);
        for (int k = 2; k < 4; k++) {
            dg_reward_score(&b.r[k], &in, &s);
            assert_int_equal(s.missing, 0);
            clip_near("u8_cos", &s.value, &want[0], 1, 1e-5);
        }
        free(scratch);
    }
    free(rgb);
    clip_close(&b);
}

/* The network and its weights by themselves. */
typedef struct Net {
    ClipFolder folder;
    ParamSet set;
    ClipModel *model;
    Context ctx;
} Net;

static void open_net(Net *n)
{
    WeightWant *wants;
    LoadOpts o = { .path = CLIP_FOLDER };
    int found;

    MUST(dg_clip_config_read(&n->folder, &found, CLIP_FOLDER));
    assert_true(found && n->folder.transformers && !n->folder.squash);
    MUST(dg_params_init(&n->set, 1));
    MUST(dg_clip_model_create(&n->model, &n->folder.model, &n->set, ""));
    MUST(dg_params_allocate(&n->set, NULL));
    MUST(dg_manifest_of_params(&wants, &o.num_wants, &n->set, ""));
    o.wants = wants;
    MUST(dg_load_values(&tiny_comm, &o, 0, n->set.count, n->set.values));
    free(wants);
    MUST(dg_context_init(&n->ctx, dg_backend_cpu(), (size_t)1 << 22));
}

static void close_net(Net *n)
{
    dg_context_fini(&n->ctx);
    dg_clip_model_destroy(n->model);
    dg_params_fini(&n->set);
}

static void see(Net *n, const char *way, const PictureOpts *o, int i)
{
    static const int64_t dims[] = { 1, CLIP_SIDE, CLIP_SIDE, 3 };
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), want[CLIP_WIDTH];
    char name[64];
    Tensor *t;

    assert_non_null(rgb);
    clip_picture(rgb, clip_sizes[i][0], clip_sizes[i][1]);
    dg_context_reset(&n->ctx);
    t = dg_tensor_new(&n->ctx, DG_F32, 4, dims);
    assert_non_null(t);
    MUST(dg_picture_prepare(t->data, o, rgb, clip_sizes[i][0], clip_sizes[i][1],
                            &n->ctx.arena));
    t = dg_clip_model_image(n->model, &n->ctx, t);
    assert_non_null(t);
    snprintf(name, sizeof name, "%s_image", way);
    clip_golden(want, CLIP_WIDTH, name, i);
    dg_clip_normalize(want, CLIP_WIDTH);
    dg_clip_normalize(dg_tensor_f32(t), CLIP_WIDTH);
    clip_near(name, dg_tensor_f32(t), want, CLIP_WIDTH, 1e-5);
    free(rgb);
}

/* high and wide ones too */
static void test_pictures_as_transformers(void **state)
{
    const PictureOpts u8 = { .side = CLIP_SIDE, .crop_low = 1 };
    const PictureOpts f32 = { .side = CLIP_SIDE, .resampler = DG_RESAMPLE_F32 };
    Net n;

    (void)state;
    open_net(&n);
    for (int i = 0; i < CLIP_SIZES; i++) {
        see(&n, "u8", &u8, i);
        see(&n, "f32", &f32, i);
    }
    close_net(&n);
}

static void test_same_bits_whatever_was_before(void **state)
{
    float *a = malloc(sizeof *a * CLIP_MOST),
          *c = malloc(sizeof *c * CLIP_MOST);
    float first;
    ClipBed b;

    (void)state;
    assert_non_null(a);
    assert_non_null(c);
    clip_picture(a, 64, 64);
    for (int i = 0; i < 64 * 64 * 3; i++)
        c[i] = 1 - a[i];
    clip_open(&b, dg_backend_cpu(), clip_three);
    first = clip_score(&b, 0, a, 64, 0).value;
    assert_true(clip_score(&b, 2, c, 64, 1).value != first);
    assert_true(clip_score(&b, 0, c, 64, 0).value != first);
    assert_true(clip_score(&b, 0, a, 64, 0).value == first);
    free(a);
    free(c);
    clip_close(&b);
}

static void test_plan_is_what_is_used(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    RewardScore s[4];
    ClipBed b, one;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&b, dg_backend_cpu(), clip_three);
    assert_int_equal(b.ctx.flops, CLIP_PROMPTS * b.plan.encode_flops);
    b.ctx.flops = 0;
    clip_score_all(&b, s, rgb, 0);
    for (int k = 0; k < 4; k++)
        assert_int_equal(s[k].missing, 0);
    assert_int_equal(b.ctx.flops, b.plan.score_flops);
    assert_int_equal(b.ctx.arena.peak, b.plan.bytes);
    free(rgb);
    clip_close(&b);
    /* two of the three see the same, and all are of one size */
    clip_configure(&one, "rewards=({name=\"clip\";" CLIP_KEYS "})");
    MUST(dg_rewards_outline(one.r, &one.config, 1));
    clip_count(&one, dg_backend_cpu(), 64);
    assert_true(one.plan.score_flops > 0);
    assert_int_equal(b.plan.score_flops, 2 * one.plan.score_flops);
    dg_rewards_close(one.r, 1);
}

/* Once for all of them: 75 words of one token are the most. */
static void test_prompts_that_are_cut_are_warned_of(void **state)
{
    char long_text[2 * 76 + 1] = "";
    const char *texts[] = { "a cat", long_text, long_text };
    PromptList list;
    long before;
    ClipBed b;

    (void)state;
    clip_open(&b, dg_backend_cpu(), "rewards=({name=\"clip\";" CLIP_KEYS "})");
    for (int words = 75; words <= 76; words++) {
        while ((int)strlen(long_text) < 2 * words)
            strcat(long_text, "a ");
        MUST(dg_prompts_of(&list, texts, 3));
        before = dg_log_count(DG_LOG_WARN);
        MUST(dg_rewards_read(b.r, 1, &list));
        assert_int_equal(dg_log_count(DG_LOG_WARN) - before, words > 75);
        dg_prompts_free(&list);
    }
    clip_close(&b);
}

static void test_scales(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST);
    const double native = exp(2.66015625); /* logit_scale of the files */
    double cosine;
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&b, dg_backend_cpu(), "rewards=({name=\"clip\";" CLIP_KEYS "})");
    cosine = (double)clip_score(&b, 0, rgb, 64, 0).value;
    clip_close(&b);
    clip_open(&b, dg_backend_cpu(),
              "rewards=({name=\"pickscore\";scale=\"logit\";" CLIP_KEYS "})");
    assert_true(fabs((double)clip_score(&b, 0, rgb, 64, 0).value / native -
                     cosine) < 1e-6);
    clip_close(&b);
    clip_open(&b, dg_backend_cpu(),
              "rewards=({name=\"pickscore\";scale=\"logit_26\";" CLIP_KEYS
              "threshold=-1;})");
    assert_true(clip_score(&b, 0, rgb, 64, 0).value == 1);
    b.r[0].threshold = NAN;
    assert_true(fabs((double)clip_score(&b, 0, rgb, 64, 0).value * 26 / native -
                     cosine) < 1e-6);
    free(rgb);
    clip_close(&b);
}

/* Half a level above whole ones: rounded up they are another picture. */
static void test_eight_bits_are_a_choice(void **state)
{
    float *rgb = malloc(sizeof *rgb * CLIP_MOST), cut, whole;
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    clip_picture(rgb, 64, 64);
    clip_open(&b, dg_backend_cpu(),
              "rewards=({name=\"clip\";quantize=\"trunc\";" CLIP_KEYS "})");
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] = (floorf(rgb[i] * 200) + 0.25f) / 255;
    whole = clip_score(&b, 0, rgb, 64, 0).value;
    for (int i = 0; i < 64 * 64 * 3; i++)
        rgb[i] += 0.5f / 255;
    cut = clip_score(&b, 0, rgb, 64, 0).value;
    assert_true(cut == whole);
    clip_close(&b);
    clip_open(&b, dg_backend_cpu(), "rewards=({name=\"clip\";" CLIP_KEYS "})");
    assert_true(clip_score(&b, 0, rgb, 64, 0).value != whole);
    clip_close(&b);
    free(rgb);
}

static void test_a_picture_with_nan_is_missing(void **state)
{
    float *rgb = calloc(CLIP_MOST, sizeof *rgb);
    RewardScore s;
    ClipBed b;

    (void)state;
    assert_non_null(rgb);
    rgb[5] = NAN;
    clip_open(&b, dg_backend_cpu(), "rewards=({name=\"hpsv2\";" CLIP_KEYS "})");
    s = clip_score(&b, 0, rgb, 64, 0);
    assert_true(s.missing && isnan(s.value));
    assert_non_null(strstr(dg_last_error()->text, "pixel 1"));
    rgb[5] = 0;
    assert_int_equal(clip_score(&b, 0, rgb, 64, 0).missing, 0);
    free(rgb);
    clip_close(&b);
}

/* Operations and parameters as published, without any weights. */
static void test_public_sizes(void **state)
{
    static const struct {
        const char *model;
        double image, text; /* 1e9 operations */
        int64_t values;
    } sizes[] = { { "ViT-H-14", 334.6, 47.1, 986109441 },
                  { "ViT-H-14-378-quickgelu", 1007.0, 47.1, 986714881 },
                  { "ViT-L-14-quickgelu", 162.0, 13.3, 427616513 } };

    (void)state;
    for (int i = 0; i < 3; i++) {
        char rewards[256];
        ClipModelConfig c;
        ClipModel *m;
        ParamSet set;
        ClipBed b;

        snprintf(rewards, sizeof rewards,
                 "rewards=({name=\"%s\";path=\"nowhere/at_all.pt\";"
                 "model=\"%s\";})",
                 i == 0 ? "hpsv2" : "clip", i == 0 ? "" : sizes[i].model);
        clip_configure(&b, rewards);
        MUST(dg_rewards_outline(b.r, &b.config, 1));
        clip_count(&b, dg_backend_cpu(), 512);
        assert_true(
            fabs((double)b.plan.score_flops / 1e9 / sizes[i].image - 1) < 1e-3);
        assert_true(
            fabs((double)b.plan.encode_flops / 1e9 / sizes[i].text - 1) < 2e-3);
        dg_rewards_close(b.r, 1);
        MUST(dg_clip_model_named(&c, sizes[i].model));
        MUST(dg_params_init(&set, 1));
        MUST(dg_clip_model_create(&m, &c, &set, ""));
        assert_true(dg_params_num_values(&set) == sizes[i].values);
        dg_clip_model_destroy(m);
        dg_params_fini(&set);
    }
}

/* --- what lies beside the weights --------------------------------------- */

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_texts_as_transformers),
    cmocka_unit_test(test_scores_as_transformers),
    cmocka_unit_test(test_scores_of_any_shape_as_transformers),
    cmocka_unit_test(test_pictures_as_transformers),
    cmocka_unit_test(test_same_bits_whatever_was_before),
    cmocka_unit_test(test_plan_is_what_is_used),
    cmocka_unit_test(test_scales),
    cmocka_unit_test(test_prompts_that_are_cut_are_warned_of),
    cmocka_unit_test(test_eight_bits_are_a_choice),
    cmocka_unit_test(test_a_picture_with_nan_is_missing),
    cmocka_unit_test(test_public_sizes),
};

TINY_MAIN(tests)
