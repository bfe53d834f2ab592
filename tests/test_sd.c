/* Stable Diffusion from a folder against diffusers' own pipeline on that
 * folder: tests/golden/make_sd_fixture.py. */
#include "tiny_run.h"

#include "base/log.h"

#include "golden_blocks.h"

#include <math.h>

#define FOLDER "tests/golden/sd_tiny"

enum { TOKENS = 77, WIDTH = 16, D = 8 * 8 * 4, SIZE = 64, SEEN = 9 * 13 * 3 };

typedef struct Golden {
    char prompt[128];
    float prompt_ids[TOKENS], empty_ids[TOKENS];
    float prompt_states[TOKENS * WIDTH], empty_states[TOKENS * WIDTH];
    float first[D], final[D], picture[SEEN];
} Golden;

typedef struct Bed {
    Config config;
    Policy *policy;
    Context ctx;
    StepPlan plan;
    Golden golden;
} Bed;

static void read_golden(Golden *g)
{
    FILE *f = fopen(FOLDER "/golden.txt", "r");

    assert_non_null(f);
    assert_non_null(fgets(g->prompt, sizeof g->prompt, f));
    g->prompt[strcspn(g->prompt, "\n")] = '\0';
    read_block(f, "prompt_ids", g->prompt_ids, TOKENS);
    read_block(f, "prompt_states", g->prompt_states, TOKENS * WIDTH);
    read_block(f, "empty_ids", g->empty_ids, TOKENS);
    read_block(f, "empty_states", g->empty_states, TOKENS * WIDTH);
    read_block(f, "first", g->first, D);
    read_block(f, "final", g->final, D);
    read_block(f, "picture", g->picture, SEEN);
    fclose(f);
}

static void configure(Config *c, const char *folder)
{
    dg_config_defaults(c);
    c->policy.kind = DG_POLICY_SD;
    snprintf(c->policy.path, sizeof c->policy.path, "%s", folder);
    c->pretrain.image_size = SIZE;
    c->cfg.scale = 5;
}

#include "folder_case.h"

static void open_bed(Bed *b)
{
    const Guidance guidance = { 5, DG_CFG_JOINT, NULL };

    memset(b, 0, sizeof *b);
    read_golden(&b->golden);
    configure(&b->config, FOLDER);
    MUST(dg_policy_adopt_folder(&b->config, 0));
    MUST(dg_policy_create(&b->policy, &b->config));
    MUST(dg_policy_load_folder(b->policy, &tiny_comm, 1));
    MUST(dg_step_plan(&b->plan, b->policy, dg_backend_cpu(),
                      &(StepPlanOpts) { .batch = 2,
                                        .train_batch = 2,
                                        .train_net = 1,
                                        .guidance = &guidance }));
    MUST(dg_context_init(&b->ctx, dg_backend_cpu(), b->plan.step_bytes));
}

static void close_bed(Bed *b)
{
    dg_context_fini(&b->ctx);
    dg_policy_destroy(b->policy);
}

static void encode(Bed *b, const char *prompt, const float *want_ids,
                   float condition[TOKENS * WIDTH])
{
    int32_t ids[TOKENS];

    MUST(dg_policy_tokenize(b->policy, prompt, NULL, ids));
    for (int i = 0; i < TOKENS; i++)
        assert_int_equal(ids[i], (int)want_ids[i]);
    MUST(dg_policy_encode(b->policy, &b->ctx, &(PromptTokens) { .clip = ids },
                          condition));
}

static void test_sizes_are_the_folder_s(void **state)
{
    Bed b;

    (void)state;
    open_bed(&b);
    assert_int_equal(b.policy->shape.tokens, 64);
    assert_int_equal(b.policy->shape.features, 4);
    assert_int_equal(b.policy->shape.condition, TOKENS * WIDTH);
    assert_int_equal(b.policy->shape.prediction, DG_PREDICT_EPSILON);
    assert_int_equal(b.policy->shape.time, DG_TIME_INTEGER);
    assert_int_equal(b.config.policy.prediction, DG_PREDICT_EPSILON);
    dg_config_settle(&b.config);
    assert_int_equal(b.config.sampler.decode, DG_DECODE_ZT);
    close_bed(&b);
}

static void test_prompts_as_transformers(void **state)
{
    float condition[TOKENS * WIDTH];
    Bed b;

    (void)state;
    open_bed(&b);
    encode(&b, b.golden.prompt, b.golden.prompt_ids, condition);
    near(condition, b.golden.prompt_states, TOKENS * WIDTH, 1e-5);
    encode(&b, "", b.golden.empty_ids, condition);
    near(condition, b.golden.empty_states, TOKENS * WIDTH, 1e-5);
    close_bed(&b);
}

/* One warning for all prompts whose ends are not read; 75 words of one token
 * are the most. */
static void test_prompts_that_are_cut_are_warned_of(void **state)
{
    char long_text[2 * 76 + 1] = "";
    const char *texts[] = { "a cat", long_text, long_text };
    const Session s = { .comm = &tiny_comm };
    PromptList list;
    long before;
    Bed b;

    (void)state;
    open_bed(&b);
    for (int words = 75; words <= 76; words++) {
        while ((int)strlen(long_text) < 2 * words)
            strcat(long_text, "a ");
        MUST(dg_prompts_of(&list, texts, 3));
        before = dg_log_count(DG_LOG_WARN);
        MUST(dg_setup_check_words(&s, b.policy, &list, "texts"));
        assert_int_equal(dg_log_count(DG_LOG_WARN) - before, words > 75);
        dg_prompts_free(&list);
    }
    close_bed(&b);
}

/* Three guided DDIM steps from a given latent, as evaluation takes them;
 * batch neighbours, if any, are that latent too. */
static void denoise(Bed *b, int64_t batch, float *z)
{
    const SdeOpts ode = { DG_SDE_ODE, DG_LOG_PROB_GAUSSIAN, 0 };
    float condition[TOKENS * WIDTH], uncond[TOKENS * WIDTH], time[2];
    const float *zs[] = { z, b->golden.first }, *cs[] = { condition, uncond };
    const PolicyBatch in = {
        .num = batch, .z = zs, .time = time, .condition = cs
    };
    const Guidance guidance = { 5, DG_CFG_JOINT, uncond };
    Schedule schedule;
    SdeStep step;
    Tensor *u;

    encode(b, b->golden.prompt, b->golden.prompt_ids, condition);
    encode(b, "", b->golden.empty_ids, uncond);
    MUST(dg_policy_schedule(b->policy, &schedule, 3, 1));
    for (int i = 0; i < 3; i++) {
        MUST(dg_sde_step_init(&step, &ode, &schedule, i));
        time[0] = dg_schedule_time(&schedule, i, DG_TIME_INTEGER);
        time[1] = 500;
        dg_context_reset(&b->ctx);
        u = dg_guided_predict(b->policy, &b->ctx, &in, &guidance);
        assert_non_null(u);
        dg_sde_next(z, &step, z, dg_tensor_f32(u), NULL, D);
    }
    dg_schedule_fini(&schedule);
}

static void test_latents_and_picture_as_diffusers(void **state)
{
    float z[D], rgb[SIZE * SIZE * 3], seen[SEEN];
    Bed b;

    (void)state;
    open_bed(&b);
    memcpy(z, b.golden.first, sizeof z);
    denoise(&b, 1, z);
    near(z, b.golden.final, D, 1e-4);
    MUST(dg_policy_decode(b.policy, &b.ctx, z, rgb));
    assert_int_equal(picture_seen(seen, rgb, SIZE, SIZE), SEEN);
    near(seen, b.golden.picture, SEEN, 1e-4);
    close_bed(&b);
}

static void test_neighbours_do_not_matter(void **state)
{
    float alone[D], beside[D];
    Bed b;

    (void)state;
    open_bed(&b);
    memcpy(alone, b.golden.first, sizeof alone);
    memcpy(beside, b.golden.first, sizeof beside);
    denoise(&b, 1, alone);
    denoise(&b, 2, beside);
    assert_memory_equal(alone, beside, sizeof alone);
    close_bed(&b);
}

static void test_decoding_is_planned(void **state)
{
    float rgb[SIZE * SIZE * 3];
    Bed b;

    (void)state;
    open_bed(&b);
    b.ctx.arena.peak = 0;
    MUST(dg_policy_decode(b.policy, &b.ctx, b.golden.first, rgb));
    assert_int_equal(b.ctx.arena.peak, b.plan.decode_bytes);
    assert_true(b.plan.step_bytes >= b.plan.decode_bytes);
    close_bed(&b);
}

static void test_nan_stays_nan(void **state)
{
    float rgb[SIZE * SIZE * 3], z[D] = { 0 };
    Bed b;

    (void)state;
    open_bed(&b);
    z[7] = NAN;
    MUST(dg_policy_decode(b.policy, &b.ctx, z, rgb));
    assert_true(isnan(rgb[0]) && isnan(rgb[SIZE * SIZE * 3 - 1]));
    close_bed(&b);
}

static void test_gradient_of_the_network(void **state)
{
    float condition[TOKENS * WIDTH], *grads, time = 334;
    double forward[2], slope = 0;
    const float h = 0.3f;
    Param *q;
    Tensor *u;
    Bed b;

    (void)state;
    open_bed(&b);
    q = dg_params_find(&b.policy->net,
                       "unet.mid_block.attentions.0."
                       "transformer_blocks.0.attn2.to_v.weight");
    assert_non_null(q);
    grads = calloc((size_t)b.policy->net.count, sizeof *grads);
    assert_non_null(grads);
    dg_context_train(&b.ctx, DG_PARAMS_NET, grads, 1);
    encode(&b, b.golden.prompt, b.golden.prompt_ids, condition);

    const float *z = b.golden.first, *c = condition;
    const PolicyBatch in = {
        .num = 1, .z = &z, .time = &time, .condition = &c
    };
    const Guidance off = { 1, DG_CFG_JOINT, NULL };
    Tensor *branch, *seed;

    dg_context_reset(&b.ctx);
    u = dg_guided_record(b.policy, &b.ctx, &in, &off, &branch);
    assert_non_null(u);
    seed = dg_tensor_like(&b.ctx, u);
    for (int i = 0; i < D; i++)
        dg_tensor_f32(seed)[i] = b.golden.final[i];
    MUST(dg_guided_back(&b.ctx, &off, branch, seed));
    /* along the gradient itself the loss rises by its squared norm */
    for (int k = 0; k < WIDTH; k++)
        slope += (double)grads[q->value.param_offset + k] *
                 (double)grads[q->value.param_offset + k];
    for (int side = 0; side < 2; side++) {
        for (int k = 0; k < WIDTH; k++)
            dg_tensor_f32(&q->value)[k] += (side == 0 ? h : -2 * h) *
                                           grads[q->value.param_offset + k] /
                                           (float)sqrt(slope);
        dg_context_reset(&b.ctx);
        u = dg_policy_predict(b.policy, &b.ctx, &in);
        assert_non_null(u);
        forward[side] = 0;
        for (int i = 0; i < D; i++)
            forward[side] +=
                (double)dg_tensor_f32(u)[i] * (double)b.golden.final[i];
    }
    assert_true(slope > 0);
    assert_true(fabs((forward[0] - forward[1]) / (2 * (double)h) -
                     sqrt(slope)) <= 0.02 * sqrt(slope));
    free(grads);
    close_bed(&b);
}

/* --- folders that do not serve ----------------------------------------- */

static void test_a_bad_folder_is_named(void **state)
{
    (void)state;
    refuse("rm -r vae", "vae/config.json", "");
    refuse("rm unet/*.safetensors", "unet", "weights");
    refuse("rm -r tokenizer", "tokenizer", "");
    refuse("truncate -s -40 vae/*.safetensors", "vae/", "safetensors");
    refuse("sed -i 's/\"num_hidden_layers\": 2/\"num_hidden_layers\": 3/' "
           "text_encoder/config.json",
           "text_encoder/", "layers.2");
    refuse("sed -i 's/\"intermediate_size\": 32/\"intermediate_size\": 48/' "
           "text_encoder/config.json",
           "text_encoder/", "fc1");
    refuse("sed -i 's/_projection\": false/_projection\": true/' "
           "unet/config.json",
           "unet/config.json", "use_linear_projection");
    refuse("sed -i 's/\"epsilon\"/\"v_prediction\"/' scheduler/*",
           "scheduler_config.json", "prediction_type");
    refuse("sed -i 's/_zero_snr\": false/_zero_snr\": true/' scheduler/*",
           "scheduler_config.json", "rescale_betas_zero_snr");
    refuse("sed -i 's/_betas\": null/_betas\": [0.1]/' scheduler/*",
           "scheduler_config.json", "trained_betas");
    refuse("sed -i 's/_time_act\": false/_time_act\": true/' "
           "unet/config.json",
           "unet/config.json", "resnet_skip_time_act");
    refuse("sed -i 's/_scale_factor\": 1.0/_scale_factor\": 1.4/' "
           "unet/config.json",
           "unet/config.json", "resnet_out_scale_factor");
    refuse("sed -i 's/_post_act\": null/_post_act\": \"silu\"/' "
           "unet/config.json",
           "unet/config.json", "timestep_post_act");
    refuse("sed -i 's/_act_fn\": null/_act_fn\": \"silu\"/' "
           "unet/config.json",
           "unet/config.json", "time_embedding_act_fn");
    refuse("sed -i 's/\"norm_num_groups\": 8/\"norm_num_groups\": 7/' "
           "unet/config.json",
           "/", "norm_num_groups");
    refuse("sed -i -z 's/\"block_out_channels\": .[^]]*/"
           "\"block_out_channels\": [/' vae/config.json",
           "vae/config.json", "block_out_channels");
    /* the last value of the file: a NaN in a tensor of its own */
    refuse("f=$(ls unet/*.safetensors) && truncate -s -4 $f && "
           "printf '\\0\\0\\300\\177' >>$f",
           "unet/", "time_emb");
}

static void test_keys_that_do_not_fit(void **state)
{
    Policy *p = NULL;
    Config c;

    (void)state;
    configure(&c, FOLDER);
    MUST(dg_policy_adopt_folder(&c, 0));
    c.pretrain.image_size = 44;
    assert_int_equal(dg_policy_create(&p, &c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "pretrain.image_size"));
    configure(&c, "");
    assert_int_equal(dg_config_check(&c), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "policy.path"));
    /* another kind's folder is not taken for one's own */
    configure(&c, FOLDER);
    c.policy.kind = DG_POLICY_FLUX;
    assert_int_equal(dg_policy_adopt_folder(&c, 0), DG_EFORMAT);
    assert_non_null(strstr(dg_last_error()->text,
                           "a folder with unet and "
                           "without transformer: "
                           "policy.kind must be \"sd\""));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sizes_are_the_folder_s),
    cmocka_unit_test(test_prompts_as_transformers),
    cmocka_unit_test(test_prompts_that_are_cut_are_warned_of),
    cmocka_unit_test(test_latents_and_picture_as_diffusers),
    cmocka_unit_test(test_neighbours_do_not_matter),
    cmocka_unit_test(test_decoding_is_planned),
    cmocka_unit_test(test_nan_stays_nan),
    cmocka_unit_test(test_gradient_of_the_network),
    cmocka_unit_test(test_a_bad_folder_is_named),
    cmocka_unit_test(test_keys_that_do_not_fit),
};

TINY_MAIN(tests)
