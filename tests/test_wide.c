/* Pictures that are not square, of odd numbers of tokens, from both kinds of
 * folders against diffusers' own pipelines: tests/golden/make_wide_golden.py.
 * FLUX paints 80 x 112 pixels, Stable Diffusion 72 x 104. */
#include "tiny_run.h"

#include "golden_blocks.h"

#include <math.h>

enum { BATCH = 3, STEPS = 3, TURN = 17, THIRD = 3, MOST = 35 * 64 };

static const char prompt[] = "A red circle, and two blue squares!";

typedef struct Wide {
    PolicyKind kind;
    const char *folder;
    int height, width, tokens, features, seen;
    float time[BATCH];
    /* of the folder */
    Config config;
    Policy *policy;
    Context ctx;
    float *condition;
    /* of diffusers */
    float sigmas[STEPS + 1], first[MOST], predictions[MOST], final[MOST];
    float picture[726];
} Wide;

static const Wide flux = {
    .kind = DG_POLICY_FLUX,
    .folder = "tests/golden/flux_tiny",
    .height = 80,
    .width = 112,
    .tokens = 5 * 7,
    .features = 64,
    .seen = 11 * 22 * 3,
    .time = { 0.978f, 0.5f, 0.125f },
};

static const Wide sd = {
    .kind = DG_POLICY_SD,
    .folder = "tests/golden/sd_tiny",
    .height = 72,
    .width = 104,
    .tokens = 9 * 13,
    .features = 4,
    .seen = 10 * 21 * 3,
    .time = { 981, 500, 3 },
};

static void read_golden(Wide *w)
{
    const int D = w->tokens * w->features;
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/golden_wide.txt", w->folder);
    f = fopen(path, "r");
    assert_non_null(f);
    if (w->kind == DG_POLICY_FLUX)
        read_block(f, "sigmas", w->sigmas, STEPS + 1);
    read_block(f, "first", w->first, D);
    read_block(f, "predictions", w->predictions, BATCH * D / THIRD);
    read_block(f, "final", w->final, (D + THIRD - 1) / THIRD);
    read_block(f, "picture", w->picture, w->seen);
    fclose(f);
}

static void configure(Wide *w)
{
    Config *c = &w->config;

    dg_config_defaults(c);
    c->policy.kind = w->kind;
    snprintf(c->policy.path, sizeof c->policy.path, "%s", w->folder);
    c->policy.text_length = 24;
    c->policy.guidance = 1;
    c->policy.height = w->height;
    c->policy.width = w->width;
    MUST(dg_policy_adopt_folder(c, 0));
    dg_config_settle(c);
    MUST(dg_config_check(c));
}

/* A test begins with flux or sd, and gets it opened. */
static int wide_open(void **state)
{
    const Wide *from = *state;
    Wide *w = malloc(sizeof *w);
    int32_t t5[24], clip[77];
    StepPlan plan;

    assert_non_null(w);
    *w = *from;
    read_golden(w);
    configure(w);
    MUST(dg_policy_create(&w->policy, &w->config));
    MUST(dg_policy_load_folder(w->policy, &tiny_comm, 1));
    MUST(dg_step_plan(&plan, w->policy, dg_backend_cpu(),
                      &(StepPlanOpts) { .batch = BATCH }));
    MUST(dg_context_init(&w->ctx, dg_backend_cpu(), plan.step_bytes));
    w->condition = calloc((size_t)w->policy->shape.condition, sizeof(float));
    assert_non_null(w->condition);
    MUST(dg_policy_tokenize(w->policy, prompt, t5, clip));
    MUST(dg_policy_encode(w->policy, &w->ctx, &(PromptTokens) { t5, clip },
                          w->condition));
    *state = w;
    return 0;
}

static int wide_close(void **state)
{
    Wide *w = *state;

    dg_context_fini(&w->ctx);
    dg_policy_destroy(w->policy);
    free(w->condition);
    free(w);
    return 0;
}

/* Of num latents of D values each, under one prompt. */
static const float *predict(Wide *w, const float *z, const float *time, int num)
{
    const int D = w->tokens * w->features;
    const float *zs[BATCH], *cs[BATCH];
    const PolicyBatch in = {
        .num = num, .z = zs, .time = time, .condition = cs
    };
    Tensor *u;

    for (int b = 0; b < num; b++) {
        zs[b] = z + b * D;
        cs[b] = w->condition;
    }
    dg_context_reset(&w->ctx);
    u = dg_policy_predict(w->policy, &w->ctx, &in);
    assert_non_null(u);
    return dg_tensor_f32(u);
}

static void thirds(float *out, const float *from, int num)
{
    for (int i = 0; i < num; i += THIRD)
        out[i / THIRD] = from[i];
}

static void check_shape(const Wide *w)
{
    const PolicyShape *s = &w->policy->shape;

    assert_int_equal(s->height, w->height);
    assert_int_equal(s->width, w->width);
    assert_int_equal(s->tokens, w->tokens);
    assert_int_equal(s->features, w->features);
    assert_int_equal(s->elements, w->tokens * w->features);
}

static void test_predictions_as_diffusers(void **state)
{
    Wide *w = *state;
    const int D = w->tokens * w->features;
    float z[BATCH * MOST], got[MOST];

    check_shape(w);
    for (int b = 0; b < BATCH; b++)
        for (int i = 0; i < D; i++)
            z[b * D + i] = w->first[(i + TURN * b) % D];
    thirds(got, predict(w, z, w->time, BATCH), BATCH * D);
    near(got, w->predictions, BATCH * D / THIRD, 1e-4);
}

/* Steps as evaluation takes them, unguided; the picture, pixel by pixel. */
static void test_path_and_picture_as_diffusers(void **state)
{
    const SdeOpts ode = { DG_SDE_ODE, DG_LOG_PROB_GAUSSIAN, 0 };
    Wide *w = *state;
    const int D = w->tokens * w->features;
    float *rgb = calloc((size_t)(w->height * w->width), 3 * sizeof *rgb);
    float z[MOST], got[MOST], seen[726];
    Schedule schedule;
    SdeStep step;

    assert_non_null(rgb);
    memcpy(z, w->first, sizeof z);
    MUST(dg_policy_schedule(w->policy, &schedule, STEPS,
                            w->kind == DG_POLICY_SD ? 1 : 0));
    if (w->kind == DG_POLICY_FLUX) /* the shift of 35 tokens */
        near(schedule.sigma, w->sigmas, STEPS + 1, 1e-6);
    for (int i = 0; i < STEPS; i++) {
        const float time =
            dg_schedule_time(&schedule, i, w->policy->shape.time);

        MUST(dg_sde_step_init(&step, &ode, &schedule, i));
        dg_sde_next(z, &step, z, predict(w, z, &time, 1), NULL, D);
    }
    dg_schedule_fini(&schedule);
    thirds(got, z, D);
    near(got, w->final, (D + THIRD - 1) / THIRD, 1e-4);
    MUST(dg_policy_decode(w->policy, &w->ctx, z, rgb));
    assert_int_equal(picture_seen(seen, rgb, w->height, w->width), w->seen);
    near(seen, w->picture, w->seen, 1e-4);
    free(rgb);
}

/* --- without a folder: pixels ------------------------------------------- */

/* What is coded comes back, each pixel in its place. */
static void check_codec(const char *file)
{
    enum { H = 24, W = 40 };
    float rgb[H * W * 3], again[H * W * 3], *z;
    Policy *p;
    Context ctx;
    Config c;

    dg_config_defaults(&c);
    MUST(dg_config_load(&c, file));
    c.policy.height = H;
    c.policy.width = W;
    dg_config_settle(&c);
    MUST(dg_config_check(&c));
    MUST(dg_policy_create(&p, &c));
    assert_int_equal(p->shape.elements, H * W * 3);
    for (int i = 0; i < H * W * 3; i++)
        rgb[i] = (float)i / (H * W * 3);
    z = calloc(H * W * 3, sizeof *z);
    assert_non_null(z);
    dg_policy_code(p, rgb, z);
    MUST(dg_context_init(&ctx, dg_backend_cpu(), 1 << 20));
    MUST(dg_policy_decode(p, &ctx, z, again));
    near(again, rgb, H * W * 3, 1e-6);
    dg_context_fini(&ctx);
    free(z);
    dg_policy_destroy(p);
}

static void test_pixels_come_back(void **state)
{
    (void)state;
    check_codec("configs/tiny.cfg");
    check_codec("configs/tiny_unet.cfg");
}

/* --- sizes --------------------------------------------------------------- */

static void refused(const Wide *from, int height, int width, const char *part)
{
    Wide w = *from;
    Policy *p = NULL;

    configure(&w);
    w.config.policy.height = height;
    w.config.policy.width = width;
    assert_int_equal(dg_policy_create(&p, &w.config), DG_EINVAL);
    if (strstr(dg_last_error()->text, part) == NULL)
        fail_msg("\"%s\" has no \"%s\"", dg_last_error()->text, part);
}

static void test_sizes_that_do_not_fit_are_named(void **state)
{
    (void)state;
    refused(&flux, 72, 112, "policy.height = 72: must be a multiple of 16");
    refused(&flux, 80, 104, "policy.width = 104: must be a multiple of 16");
    refused(&sd, 72, 100, "policy.width = 100: must be a multiple of 8");
}

/* 0 is pretrain.image_size, side by side */
static void test_a_side_alone(void **state)
{
    Wide w = flux;
    Policy *p;

    (void)state;
    configure(&w);
    w.config.pretrain.image_size = 48;
    w.config.policy.height = 0;
    MUST(dg_policy_outline(&p, &w.config));
    assert_int_equal(p->shape.height, 48);
    assert_int_equal(p->shape.width, 112);
    assert_int_equal(p->shape.tokens, 3 * 7);
    dg_policy_destroy(p);
}

#define BOTH(test)                                                            \
    cmocka_unit_test_prestate_setup_teardown(test, wide_open, wide_close,     \
                                             (void *)&flux),                  \
        cmocka_unit_test_prestate_setup_teardown(test, wide_open, wide_close, \
                                                 (void *)&sd)

static const struct CMUnitTest tests[] = {
    BOTH(test_predictions_as_diffusers),
    BOTH(test_path_and_picture_as_diffusers),
    cmocka_unit_test(test_pixels_come_back),
    cmocka_unit_test(test_sizes_that_do_not_fit_are_named),
    cmocka_unit_test(test_a_side_alone),
};

TINY_MAIN(tests)
