/* FLUX.1 from a folder against diffusers' own pipeline on that folder:
 * tests/golden/make_flux_fixture.py. */
#include "tiny_run.h"

#include "golden_blocks.h"

#include <math.h>

#define FOLDER "tests/golden/flux_tiny"

enum {
    LENGTH = 24,
    CLIP = 77,
    WIDTH = 24,
    POOLED = 16,
    CONDITION = LENGTH * WIDTH + POOLED,
    D = 16 * 64,
    STEPS = 4,
    SIZE = 64,
    SEEN = 9 * 13 * 3
};

typedef struct Golden {
    char prompt[128];
    float clip_ids[CLIP], t5_ids[LENGTH];
    float condition[CONDITION]; /* states, then the pooled one */
    float sigmas[STEPS + 1];
    float first[D], velocity[D], velocity_bf16[D], path[STEPS][D];
    float picture[SEEN];
} Golden;

typedef struct Bed {
    Config config;
    Policy *policy;
    Context ctx;
    StepPlan plan;
    Golden golden;
    float condition[CONDITION];
} Bed;

static void read_golden(Golden *g)
{
    FILE *f = fopen(FOLDER "/golden.txt", "r");
    char name[16];

    assert_non_null(f);
    assert_non_null(fgets(g->prompt, sizeof g->prompt, f));
    g->prompt[strcspn(g->prompt, "\n")] = '\0';
    read_block(f, "clip_ids", g->clip_ids, CLIP);
    read_block(f, "t5_ids", g->t5_ids, LENGTH);
    read_block(f, "states", g->condition, LENGTH * WIDTH);
    read_block(f, "pooled", g->condition + LENGTH * WIDTH, POOLED);
    read_block(f, "sigmas", g->sigmas, STEPS + 1);
    read_block(f, "first", g->first, D);
    read_block(f, "velocity", g->velocity, D);
    read_block(f, "velocity_bf16", g->velocity_bf16, D);
    for (int i = 0; i < STEPS; i++) {
        snprintf(name, sizeof name, "latent_%d", i + 1);
        read_block(f, name, g->path[i], D);
    }
    read_block(f, "picture", g->picture, SEEN);
    fclose(f);
}

static void configure(Config *c, const char *folder)
{
    dg_config_defaults(c);
    c->policy.kind = DG_POLICY_FLUX;
    snprintf(c->policy.path, sizeof c->policy.path, "%s", folder);
    c->policy.text_length = LENGTH;
    c->pretrain.image_size = SIZE;
}

#include "folder_case.h"

static void encode(Bed *b)
{
    int32_t t5[LENGTH], clip[CLIP];

    MUST(dg_policy_tokenize(b->policy, b->golden.prompt, t5, clip));
    for (int i = 0; i < LENGTH; i++)
        assert_int_equal(t5[i], (int)b->golden.t5_ids[i]);
    for (int i = 0; i < CLIP; i++)
        assert_int_equal(clip[i], (int)b->golden.clip_ids[i]);
    MUST(dg_policy_encode(b->policy, &b->ctx, &(PromptTokens) { t5, clip },
                          b->condition));
}

static void open_bed(Bed *b, int bf16_compat)
{
    memset(b, 0, sizeof *b);
    read_golden(&b->golden);
    configure(&b->config, FOLDER);
    b->config.policy.bf16_compat = bf16_compat;
    MUST(dg_policy_adopt_folder(&b->config, 0));
    MUST(dg_config_check(&b->config));
    MUST(dg_policy_create(&b->policy, &b->config));
    MUST(dg_policy_load_folder(b->policy, &tiny_comm, 1));
    MUST(dg_step_plan(
        &b->plan, b->policy, dg_backend_cpu(),
        &(StepPlanOpts) { .batch = 2, .train_batch = 2, .train_net = 1 }));
    MUST(dg_context_init(&b->ctx, dg_backend_cpu(), b->plan.step_bytes));
    encode(b);
}

static void close_bed(Bed *b)
{
    dg_context_fini(&b->ctx);
    dg_policy_destroy(b->policy);
}

/* T5's states are all of a prompt that FLUX attends to: what they lack is cut. */
static void test_prompts_longer_than_t5_reads(void **state)
{
    int32_t t5[LENGTH], clip[CLIP];
    char text[2 * LENGTH + 200] = "a cat";
    int cut;
    Bed b;

    (void)state;
    open_bed(&b, 0);
    MUST(dg_policy_tokenize_cut(b.policy, text, t5, clip, &cut));
    assert_int_equal(cut, 0);
    for (int i = 0; i < LENGTH; i++)
        strcat(text, " z");
    MUST(dg_policy_tokenize_cut(b.policy, text, t5, clip, &cut));
    assert_int_equal(cut, 1);
    close_bed(&b);
}

static void test_sizes_are_the_folder_s(void **state)
{
    Bed b;

    (void)state;
    open_bed(&b, 0);
    assert_int_equal(b.policy->shape.tokens, 16);
    assert_int_equal(b.policy->shape.features, 64);
    assert_int_equal(b.policy->shape.text_tokens, LENGTH);
    assert_int_equal(b.policy->shape.clip_tokens, CLIP);
    assert_int_equal(b.policy->shape.condition, CONDITION);
    assert_int_equal(b.policy->shape.prediction, DG_PREDICT_VELOCITY);
    assert_int_equal(b.policy->shape.time, DG_TIME_SIGMA);
    assert_int_equal(b.config.policy.codec, DG_CODEC_VAE);
    assert_int_equal(b.config.flux.num_single_layers, 2);
    assert_int_equal(b.config.t5.vocab_size, 1500);
    assert_int_equal(b.config.clip.positions, CLIP);
    assert_false(dg_policy_codes(b.policy)); /* pretraining cannot */
    /* nothing else hangs below the trained network */
    assert_ptr_equal(dg_policy_trained(b.policy), &b.policy->net);
    assert_int_equal(b.policy->codec->id, DG_PARAMS_CODEC);
    close_bed(&b);
}

static void test_prompts_as_transformers(void **state)
{
    Bed b;

    (void)state;
    open_bed(&b, 0);
    near(b.condition, b.golden.condition, CONDITION, 1e-5);
    close_bed(&b);
}

/* sigmas of the pipeline, shifted by the picture's 16 tokens; and of the
 * public sizes mu = 0.5 at 256 tokens, 1.15 at 4096 */
static void test_shift_as_the_scheduler_s(void **state)
{
    Schedule s;
    Bed b;

    (void)state;
    open_bed(&b, 0);
    MUST(dg_policy_schedule(b.policy, &s, STEPS, 0));
    near(s.sigma, b.golden.sigmas, STEPS + 1, 1e-6);
    dg_schedule_fini(&s);
    /* a shift that is given counts */
    MUST(dg_policy_schedule(b.policy, &s, STEPS, 3));
    assert_true(fabsf(s.sigma[2] - 0.75f) < 1e-6f);
    dg_schedule_fini(&s);
    close_bed(&b);
    configure(&b.config, FOLDER);
    MUST(dg_policy_adopt_folder(&b.config, 0));
    for (int i = 0; i < 2; i++) {
        b.config.pretrain.image_size = i == 0 ? 256 : 1024;
        MUST(dg_policy_outline(&b.policy, &b.config));
        assert_true(fabs(log(b.policy->shape.auto_shift) -
                         (i == 0 ? 0.5 : 1.15)) < 1e-12);
        dg_policy_destroy(b.policy);
    }
}

static void predict(Bed *b, const float *z, float time, float u[D])
{
    const float *zs[] = { z, b->golden.path[1] }, times[] = { time, 0.5f };
    const float *cs[] = { b->condition, b->golden.condition };
    const PolicyBatch in = {
        .num = 2, .z = zs, .time = times, .condition = cs
    };
    Tensor *out;

    dg_context_reset(&b->ctx);
    out = dg_policy_predict(b->policy, &b->ctx, &in);
    assert_non_null(out);
    memcpy(u, dg_tensor_f32(out), sizeof(float) * D);
}

static void test_velocity_as_diffusers(void **state)
{
    float u[D];
    Bed b;

    (void)state;
    open_bed(&b, 0);
    predict(&b, b.golden.first, 0.978f, u);
    near(u, b.golden.velocity, D, 1e-4);
    close_bed(&b);
}

/* With T = 16 and shift 3 the second time is 978, which in bfloat16 becomes
 * 976; a guidance of 3.5 becomes 3504. */
static void test_bf16_compat_rounds_time_and_guidance(void **state)
{
    float u[D], off = 0;
    Schedule s;
    Bed b;

    (void)state;
    open_bed(&b, 1);
    assert_int_equal(b.policy->shape.time, DG_TIME_UNIT);
    MUST(dg_policy_schedule(b.policy, &s, 16, 3));
    assert_true(dg_schedule_time(&s, 1, b.policy->shape.time) == 0.978f);
    predict(&b, b.golden.first, dg_schedule_time(&s, 1, DG_TIME_UNIT), u);
    dg_schedule_fini(&s);
    near(u, b.golden.velocity_bf16, D, 1e-4);
    for (int i = 0; i < D; i++)
        off = fmaxf(off, fabsf(u[i] - b.golden.velocity[i]));
    assert_true(off > 1e-3f); /* it does show */
    close_bed(&b);
}

/* Euler steps from a given latent, as evaluation takes them. */
static void test_path_and_picture_as_diffusers(void **state)
{
    const SdeOpts ode = { DG_SDE_ODE, DG_LOG_PROB_GAUSSIAN, 0 };
    float z[D], u[D], rgb[SIZE * SIZE * 3], seen[SEEN];
    Schedule schedule;
    SdeStep step;
    Bed b;

    (void)state;
    open_bed(&b, 0);
    memcpy(z, b.golden.first, sizeof z);
    MUST(dg_policy_schedule(b.policy, &schedule, STEPS, 0));
    for (int i = 0; i < STEPS; i++) {
        MUST(dg_sde_step_init(&step, &ode, &schedule, i));
        predict(&b, z, dg_schedule_time(&schedule, i, DG_TIME_SIGMA), u);
        dg_sde_next(z, &step, z, u, NULL, D);
        near(z, b.golden.path[i], D, 1e-4);
    }
    dg_schedule_fini(&schedule);
    MUST(dg_policy_decode(b.policy, &b.ctx, z, rgb));
    assert_int_equal(picture_seen(seen, rgb, SIZE, SIZE), SEEN);
    near(seen, b.golden.picture, SEEN, 1e-4);
    close_bed(&b);
}

static void test_decoding_is_planned(void **state)
{
    float rgb[SIZE * SIZE * 3];
    uint64_t flops;
    Bed b;

    (void)state;
    open_bed(&b, 0);
    b.ctx.arena.peak = 0;
    flops = b.ctx.flops;
    MUST(dg_policy_decode(b.policy, &b.ctx, b.golden.first, rgb));
    assert_int_equal(b.ctx.arena.peak, b.plan.decode_bytes);
    assert_true(b.ctx.flops - flops == b.plan.decode_flops);
    assert_true(b.plan.decode_flops > 1000000);
    assert_true(b.plan.step_bytes >= b.plan.decode_bytes);
    close_bed(&b);
}

static void test_nan_stays_nan(void **state)
{
    float rgb[SIZE * SIZE * 3], z[D] = { 0 };
    Bed b;

    (void)state;
    open_bed(&b, 0);
    z[7] = NAN;
    MUST(dg_policy_decode(b.policy, &b.ctx, z, rgb));
    assert_true(isnan(rgb[0]) && isnan(rgb[SIZE * SIZE * 3 - 1]));
    close_bed(&b);
}

static void test_reference_is_the_policy_s_network(void **state)
{
    Policy *reference;
    Bed b;

    (void)state;
    open_bed(&b, 0);
    MUST(dg_policy_reference(&reference, b.policy, &b.config));
    assert_memory_equal(reference->values, b.policy->values,
                        sizeof(float) * (size_t)reference->num_values);
    assert_null(reference->codec);
    dg_policy_destroy(reference);
    close_bed(&b);
}

/* --- folders that do not serve ----------------------------------------- */

static void test_a_bad_folder_is_named(void **state)
{
    (void)state;
    refuse("rm -r vae", "vae/config.json", "");
    refuse("rm -r text_encoder_2", "text_encoder_2/config.json", "");
    refuse("rm transformer/*00002-of*", "transformer", "00002-of");
    refuse("rm -r tokenizer_2", "tokenizer_2", "");
    refuse("rm -r tokenizer && cp -r tokenizer_2 tokenizer", "tokenizer",
           "not a CLIP");
    refuse("truncate -s -40 vae/*.safetensors", "vae/", "safetensors");
    refuse("sed -i 's/\"num_layers\": 2/\"num_layers\": 3/' "
           "text_encoder_2/config.json",
           "text_encoder_2", "block.2");
    refuse("sed -i 's/\"gated-gelu\"/\"relu\"/' text_encoder_2/config.json",
           "text_encoder_2/config.json", "feed_forward_proj");
    refuse("sed -i 's/\"d_model\": 24/\"d_model\": 32/' "
           "text_encoder_2/config.json",
           "joint_attention_dim", "d_model 32");
    refuse("sed -i 's/\"in_channels\": 64/\"in_channels\": 32/' "
           "transformer/config.json",
           "in_channels", "latent_channels 16");
    refuse("sed -i 's/\"num_single_layers\": 2/\"num_single_layers\": 1/' "
           "transformer/config.json",
           "transformer", "single_transformer_blocks.1");
    refuse("sed -i 's/\"attention_head_dim\": 16/\"attention_head_dim\": 18/' "
           "transformer/config.json",
           "transformer/config.json", "axes_dims_rope");
    refuse("sed -i 's/\"vocab_size\": 1500/\"vocab_size\": 1400/' "
           "text_encoder_2/config.json",
           "tokenizer_2", "1400");
    refuse("sed -i 's/\"use_karras_sigmas\": false/"
           "\"use_karras_sigmas\": true/' scheduler/*",
           "scheduler_config.json", "use_karras_sigmas");
    refuse("sed -i 's/\"exponential\"/\"linear\"/' scheduler/*",
           "scheduler_config.json", "time_shift_type");
}

static void test_keys_that_do_not_fit(void **state)
{
    Policy *p = NULL;
    Config c;

    (void)state;
    configure(&c, FOLDER);
    MUST(dg_policy_adopt_folder(&c, 0));
    c.pretrain.image_size = 40;
    assert_int_equal(dg_policy_create(&p, &c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "pretrain.image_size"));
    configure(&c, FOLDER);
    c.policy.text_length = 0;
    dg_config_settle(&c);
    assert_int_equal(c.policy.text_length, 512);
    configure(&c, "");
    c.policy.text_length = 0;
    dg_config_settle(&c);
    assert_int_equal(c.policy.text_length, 32);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prompts_longer_than_t5_reads),
    cmocka_unit_test(test_sizes_are_the_folder_s),
    cmocka_unit_test(test_prompts_as_transformers),
    cmocka_unit_test(test_shift_as_the_scheduler_s),
    cmocka_unit_test(test_velocity_as_diffusers),
    cmocka_unit_test(test_bf16_compat_rounds_time_and_guidance),
    cmocka_unit_test(test_path_and_picture_as_diffusers),
    cmocka_unit_test(test_decoding_is_planned),
    cmocka_unit_test(test_nan_stays_nan),
    cmocka_unit_test(test_reference_is_the_policy_s_network),
    cmocka_unit_test(test_a_bad_folder_is_named),
    cmocka_unit_test(test_keys_that_do_not_fit),
};

TINY_MAIN(tests)
