/* A Stable Diffusion of the configuration's sizes: its codec, words and
 * networks, and what is refused. */
#include "tiny_run.h"

#include <math.h>

enum { SIZE = 32, SIDE = 8, CHANNELS = 48, D = 3072, TOKENS = 16, WIDTH = 16 };

typedef struct Bed {
    Config config;
    Policy *policy;
    Context ctx;
} Bed;

static void configure(Config *c)
{
    dg_config_defaults(c);
    MUST(dg_config_load(c, "configs/tiny_unet.cfg"));
}

static void open_bed(Bed *b)
{
    StepPlan plan;

    memset(b, 0, sizeof *b);
    configure(&b->config);
    MUST(dg_config_check(&b->config));
    MUST(dg_policy_create(&b->policy, &b->config));
    tiny_draw(b->policy, 3);
    MUST(dg_step_plan(
        &plan, b->policy, dg_backend_cpu(),
        &(StepPlanOpts) {
            .batch = 3, .train_batch = 3, .train_net = 1, .train_text = 1 }));
    MUST(dg_context_init(&b->ctx, dg_backend_cpu(), plan.step_bytes));
}

static void close_bed(Bed *b)
{
    dg_context_fini(&b->ctx);
    dg_policy_destroy(b->policy);
}

static void fill(float *x, int64_t n, uint32_t sample)
{
    dg_rng_normal(
        x, 0, n,
        &(RngKey) { .seed = 1, .purpose = DG_RNG_TEST, .sample = sample });
}

static void test_sizes_are_the_keys(void **state)
{
    const Param *q;
    Bed b;

    (void)state;
    open_bed(&b);
    assert_int_equal(b.policy->shape.tokens, SIDE * SIDE);
    assert_int_equal(b.policy->shape.features, CHANNELS);
    assert_int_equal(b.policy->shape.text_tokens, 0);
    assert_int_equal(b.policy->shape.clip_tokens, TOKENS);
    assert_int_equal(b.policy->shape.condition, TOKENS * WIDTH);
    assert_int_equal(b.policy->shape.prediction, DG_PREDICT_EPSILON);
    assert_int_equal(b.policy->shape.time, DG_TIME_INTEGER);
    assert_true(dg_policy_codes(b.policy));
    q = dg_params_find(&b.policy->net,
                       "unet.up_blocks.0.resnets.1.conv1.weight");
    assert_non_null(q);
    assert_int_equal(q->value.dims[0], 16);
    assert_int_equal(q->value.dims[1], 16 + 8);
    assert_non_null(dg_params_find(
        &b.policy->net,
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
        ".weight"));
    assert_null(dg_params_find(&b.policy->net,
                               "unet.down_blocks.0.attentions.0.norm.weight"));
    close_bed(&b);
}

/* The map's pixel (Y, X) holds the picture's 4 x 4 below it, channel
 * (c 4 + dy) 4 + dx, doubled and centred: exact but for 2 rgb - 1. */
static void test_codec_is_space_to_depth(void **state)
{
    float rgb[3 * SIZE * SIZE], latent[D], back[3 * SIZE * SIZE];
    Bed b;

    (void)state;
    open_bed(&b);
    dg_rng_uniform(rgb, 0, 3 * SIZE * SIZE,
                   &(RngKey) { .seed = 2, .purpose = DG_RNG_TEST });
    dg_policy_code(b.policy, rgb, latent);
    for (int i = 0; i < D; i++) {
        const int k = i % CHANNELS, at = i / CHANNELS;
        const int y = at / SIDE * 4 + k / 4 % 4, x = at % SIDE * 4 + k % 4;

        assert_true(latent[i] ==
                    2 * (2 * rgb[(y * SIZE + x) * 3 + k / 16] - 1));
    }
    MUST(dg_policy_decode(b.policy, &b.ctx, latent, back));
    for (int i = 0; i < 3 * SIZE * SIZE; i++)
        assert_true(fabs((double)back[i] - (double)rgb[i]) < 0x1p-22);
    latent[0] = NAN;
    latent[1] = 9;
    latent[2] = -9;
    MUST(dg_policy_decode(b.policy, &b.ctx, latent, back));
    assert_true(isnan(back[0]) && back[3] == 1 && back[6] == 0);
    close_bed(&b);
}

static void test_prompts_are_the_world_s_words(void **state)
{
    int32_t ids[TOKENS], again[TOKENS];
    Bed b;

    (void)state;
    open_bed(&b);
    MUST(dg_policy_tokenize(b.policy, "a red circle", NULL, ids));
    MUST(dg_policy_tokenize(b.policy, "A red, circle.", NULL, again));
    assert_memory_equal(ids, again, sizeof ids);
    MUST(dg_policy_tokenize(b.policy, "", NULL, again));
    assert_int_equal(ids[3], again[0]); /* the end mark */
    assert_int_equal(ids[4], 0);
    assert_int_equal(dg_policy_tokenize(b.policy, "a red dragon", NULL, ids),
                     DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "\"dragon\""));
    close_bed(&b);
}

typedef struct Inputs {
    float z[3][D], condition[3][TOKENS * WIDTH], u[3][D];
    int32_t ids[3][TOKENS];
} Inputs;

static const char *const texts[3] = { "a red circle", "two blue squares", "" };
static const float times[3] = { 1, 500, 931 };

static Inputs *new_inputs(Bed *b)
{
    Inputs *in = calloc(1, sizeof *in);

    assert_non_null(in);
    for (int i = 0; i < 3; i++) {
        fill(in->z[i], D, (uint32_t)i);
        MUST(dg_policy_tokenize(b->policy, texts[i], NULL, in->ids[i]));
        MUST(dg_policy_encode(b->policy, &b->ctx,
                              &(PromptTokens) { .clip = in->ids[i] },
                              in->condition[i]));
    }
    return in;
}

static const float *predict(Bed *b, const Inputs *in, int first, int num,
                            int by_ids)
{
    const float *z[3], *condition[3];
    PolicyBatch batch = { .num = num, .z = z, .time = times + first };
    Tensor *u;

    for (int i = 0; i < num; i++) {
        z[i] = in->z[first + i];
        condition[i] = in->condition[first + i];
    }
    if (by_ids)
        batch.clip_ids = in->ids[first];
    else
        batch.condition = condition;
    dg_context_reset(&b->ctx);
    u = dg_policy_predict(b->policy, &b->ctx, &batch);
    assert_non_null(u);
    return dg_tensor_f32(u);
}

/* Bit for bit: alone or in a batch, from a condition or from token ids. */
static void test_neighbours_and_origin_do_not_matter(void **state)
{
    Inputs *in;
    Bed b;

    (void)state;
    open_bed(&b);
    in = new_inputs(&b);
    for (int i = 0; i < 3; i++)
        memcpy(in->u[i], predict(&b, in, i, 1, 0), sizeof in->u[i]);
    assert_memory_equal(predict(&b, in, 0, 3, 0), in->u, sizeof in->u);
    assert_memory_equal(predict(&b, in, 0, 3, 1), in->u, sizeof in->u);
    for (int i = 0; i < 3; i++) /* the prompt is listened to */
        memcpy(in->condition[i], in->condition[(i + 1) % 3],
               sizeof in->condition[i]);
    assert_memory_not_equal(predict(&b, in, 0, 1, 0), in->u, sizeof in->u[0]);
    free(in);
    close_bed(&b);
}

static void test_a_checkpoint_has_the_sizes(void **state)
{
    Config c, other;
    char *text;

    (void)state;
    configure(&c);
    MUST(dg_config_print(&text, &c));
    dg_config_defaults(&other);
    MUST(dg_config_parse(&other, text, "printed"));
    assert_memory_equal(&other.unet, &c.unet, sizeof c.unet);
    assert_int_equal(other.unet.num_levels, 2);
    free(text);
}

static void refuse(const char *set, const char *part, int by_check)
{
    Policy *p = NULL;
    Config c;

    configure(&c);
    MUST(dg_config_set(&c, set));
    dg_clear_error();
    assert_int_equal(by_check ? dg_config_check(&c) : dg_policy_create(&p, &c),
                     DG_EINVAL);
    if (strstr(dg_last_error()->text, part) == NULL)
        fail_msg("\"%s\" has no \"%s\"", dg_last_error()->text, part);
    assert_null(p);
}

static void test_sizes_that_do_not_fit_are_named(void **state)
{
    (void)state;
    refuse("unet.block_out_channels=[]", "unet.block_out_channels", 1);
    refuse("unet.cross_attention_dim=24", "must be clip.hidden = 16", 1);
    refuse("clip.heads=3", "multiple of clip.heads = 3", 1);
    refuse("unet.in_channels=16", "unet.in_channels = 16: must be 3 cell^2", 0);
    refuse("pretrain.image_size=38", "must be a multiple of 4", 0);
    refuse("policy.height=30", "policy.height = 30: must be a multiple of 4",
           0);
    refuse("policy.width=34", "policy.width = 34: must be a multiple of 4", 0);
    refuse("policy.prediction=velocity", "policy.prediction", 0);
    refuse("unet.norm_num_groups=3", "multiple of norm_num_groups = 3", 0);
    refuse("unet.attention_head_dim=5", "attention_head_dim = 5", 0);
    refuse("unet.down_block_types=DownBlock2D",
           "unet.down_block_types has 1 entry: must have 2", 0);
    refuse("unet.up_block_types=\"UpBlock2D, DownBlock2D\"",
           "unet.up_block_types: \"DownBlock2D\": must be CrossAttnUpBlock2D "
           "or UpBlock2D",
           0);
    refuse("clip.vocab_size=49408", "clip.vocab_size", 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sizes_are_the_keys),
    cmocka_unit_test(test_codec_is_space_to_depth),
    cmocka_unit_test(test_prompts_are_the_world_s_words),
    cmocka_unit_test(test_neighbours_and_origin_do_not_matter),
    cmocka_unit_test(test_a_checkpoint_has_the_sizes),
    cmocka_unit_test(test_sizes_that_do_not_fit_are_named),
};

TINY_MAIN(tests)
