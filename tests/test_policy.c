/* The policy's face: codec, words, conditions, predictions, files. */
#include "tiny_run.h"

#include <math.h>

static void fill(float *x, int64_t num, uint32_t sample)
{
    const RngKey key = { .seed = 5,
                         .purpose = DG_RNG_INIT_LATENTS,
                         .sample = sample };

    dg_rng_normal(x, 0, num, &key);
}

/* z = scale (2 p - 1), one place for each component; back with p's rounding:
 * two operations of relative error 2^-24 on |z| <= 2 */
static void test_codec_goes_back_and_forth(void **state)
{
    TinyRun t;
    float *rgb, *back, *latent;
    double squares = 0, latent_squares = 0;
    int64_t n;

    (void)state;
    tiny_open(&t, 1, NULL);
    n = t.policy->shape.elements;
    assert_int_equal(n, 3 * 32 * 32);
    rgb = malloc(sizeof *rgb * (size_t)n);
    back = malloc(sizeof *back * (size_t)n);
    latent = malloc(sizeof *latent * (size_t)n);
    fill(rgb, n, 0);
    for (int64_t i = 0; i < n; i++)
        rgb[i] = 0.5f + 0.5f * sinf(rgb[i]);
    dg_policy_code(t.policy, rgb, latent);
    MUST(dg_policy_decode(t.policy, &t.team->workers[0].ctx, latent, back));
    for (int64_t i = 0; i < n; i++) {
        const double z = 2.0 * (2.0 * (double)rgb[i] - 1);

        assert_true(fabsf(back[i] - rgb[i]) <= 2e-7f);
        squares += z * z;
        latent_squares += (double)latent[i] * (double)latent[i];
    }
    assert_true(fabs(squares / latent_squares - 1) < 1e-6);
    free(rgb);
    free(back);
    free(latent);
    tiny_close(&t);
}

/* Pixel (y, x, c) of a 32 x 32 picture: cells of 2, packed in fours, 8 x 8
 * tokens of 48. */
static void test_codec_packs_as_flux_does(void **state)
{
    TinyRun t;
    float rgb[3 * 32 * 32] = { 0 }, latent[3 * 32 * 32];
    const int y = 13, x = 22, c = 1; /* unpacked: row 6, column 11 */
    const int channel = c * 4 + 1 * 2 + 0, token = 3 * 8 + 5;

    (void)state;
    tiny_open(&t, 1, NULL);
    rgb[(y * 32 + x) * 3 + c] = 1;
    dg_policy_code(t.policy, rgb, latent);
    for (int i = 0; i < 3 * 32 * 32; i++)
        assert_true(latent[i] ==
                    (i == token * 48 + channel * 4 + 0 * 2 + 1 ? 2.0f : -2.0f));
    tiny_close(&t);
}

static void test_decode_clamps_and_keeps_nan(void **state)
{
    TinyRun t;
    float rgb[3 * 32 * 32], latent[3 * 32 * 32];

    (void)state;
    tiny_open(&t, 1, NULL);
    for (int i = 0; i < 3 * 32 * 32; i++)
        latent[i] = i % 3 == 0 ? 1e30f : i % 3 == 1 ? -7 : NAN;
    MUST(dg_policy_decode(t.policy, &t.team->workers[0].ctx, latent, rgb));
    for (int i = 0, ones = 0, zeros = 0; i < 3 * 32 * 32; i++) {
        ones += rgb[i] == 1;
        zeros += rgb[i] == 0;
        assert_true(isnan(rgb[i]) || rgb[i] == 1 || rgb[i] == 0);
        if (i == 3 * 32 * 32 - 1)
            assert_true(ones == 1024 && zeros == 1024);
    }
    tiny_close(&t);
}

static void test_tokenize_names_what_it_does_not_know(void **state)
{
    TinyRun t;
    int32_t t5[64], clip[64], again[64];
    char text[400] = "a red circle";

    (void)state;
    tiny_open(&t, 1, NULL);
    assert_int_equal(t.policy->shape.text_tokens, 16);
    MUST(dg_policy_tokenize(t.policy, text, t5, clip));
    MUST(dg_policy_tokenize(t.policy, "A red, circle", again, clip));
    assert_memory_equal(t5, again, 16 * sizeof *t5);
    assert_int_equal(dg_policy_tokenize(t.policy, "a red dragon", t5, clip),
                     DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "\"dragon\""));
    for (int i = 0; i < 8; i++)
        strcat(text, " and a red circle");
    assert_int_equal(dg_policy_tokenize(t.policy, text, t5, clip), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "35 words"));
    tiny_close(&t);
}

static void encode(TinyRun *t, int worker, const char *text, float *out)
{
    int32_t ids[64];

    MUST(dg_policy_tokenize(t->policy, text, ids, ids + 16));
    MUST(dg_policy_encode(t->policy, &t->team->workers[worker].ctx,
                          &(PromptTokens) { ids, ids + 16 }, out));
}

static void test_encode_does_not_remember(void **state)
{
    TinyRun t;
    float first[272], other[272], again[272], worker[272];

    (void)state;
    tiny_open(&t, 2, NULL);
    assert_int_equal(t.policy->shape.condition, 272);
    encode(&t, 0, "a red circle", first);
    encode(&t, 0, "two blue squares", other);
    encode(&t, 0, "a red circle", again);
    encode(&t, 1, "a red circle", worker);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_equal(first, worker, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
    tiny_close(&t);
}

enum { BATCH = 5, D = 3072 };

typedef struct Inputs {
    float z[BATCH][D], condition[BATCH][272], sigma[BATCH], u[BATCH][D];
} Inputs;

static void predict(TinyRun *t, const Policy *p, Inputs *in, const int *which,
                    int num)
{
    const float *z[BATCH], *condition[BATCH];
    float sigma[BATCH];
    Tensor *u;

    for (int i = 0; i < num; i++) {
        z[i] = in->z[which[i]];
        condition[i] = in->condition[which[i]];
        sigma[i] = in->sigma[which[i]];
    }
    dg_context_reset(&t->team->workers[0].ctx);
    u = dg_policy_predict(
        p, &t->team->workers[0].ctx,
        &(PolicyBatch) {
            .num = num, .z = z, .time = sigma, .condition = condition });
    assert_non_null(u);
    for (int i = 0; i < num; i++)
        memcpy(in->u[which[i]], dg_tensor_f32(u) + i * D, sizeof in->u[0]);
}

static Inputs *new_inputs(TinyRun *t)
{
    static const char *const texts[] = { "a red circle", "two blue squares",
                                         "a green triangle" };
    Inputs *in = calloc(1, sizeof *in);

    for (int b = 0; b < BATCH; b++) {
        fill(in->z[b], D, (uint32_t)b);
        encode(t, 0, texts[b % 3], in->condition[b]);
        in->sigma[b] = 0.2f * (float)(b + 1);
    }
    return in;
}

/* Bit for bit, in any company and any order. */
static void test_predict_does_not_see_neighbours(void **state)
{
    static const char *const sets[] = { "grpo.micro_batch=5", NULL };
    static const int orders[][BATCH] = { { 0, 1, 2, 3, 4 },
                                         { 4, 2, 0, 1, 3 },
                                         { 3, 3, 3, 1, 0 } };
    TinyRun t;
    Inputs *in;
    float alone[BATCH][D];

    (void)state;
    tiny_open(&t, 1, sets);
    in = new_inputs(&t);
    for (int b = 0; b < BATCH; b++) {
        predict(&t, t.policy, in, &b, 1);
        memcpy(alone[b], in->u[b], sizeof alone[b]);
    }
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++)
        for (int num = 1; num <= BATCH; num++) {
            memset(in->u, 0, sizeof in->u);
            predict(&t, t.policy, in, orders[k], num);
            for (int i = 0; i < num; i++)
                assert_memory_equal(in->u[orders[k][i]], alone[orders[k][i]],
                                    sizeof alone[0]);
        }
    assert_memory_not_equal(alone[0], alone[1], sizeof alone[0]);
    free(in);
    tiny_close(&t);
}

/* The network's output taken for data gives u = (z - x) / max(sigma, 0.05):
 * three float operations on |z|, |x| <= 6, divided by s. */
static void test_data_prediction_gives_the_velocity(void **state)
{
    static const char *const sets[] = { "policy.prediction=data", NULL };
    TinyRun t, plain;
    Inputs *in, *out;

    (void)state;
    tiny_open(&t, 1, sets);
    tiny_open(&plain, 1, NULL);
    in = new_inputs(&t);
    out = new_inputs(&plain);
    in->sigma[2] = out->sigma[2] = 0.01f;
    for (int b = 0; b < BATCH; b++) {
        const double s = in->sigma[b] < 0.05f ? 0.05f : in->sigma[b];

        predict(&t, t.policy, in, &b, 1);
        predict(&plain, plain.policy, out, &b, 1);
        for (int64_t i = 0; i < D; i++) {
            const double z = in->z[b][i], x = out->u[b][i];

            assert_true(fabs(in->u[b][i] - (z - x) / s) <
                        3 * 6e-8 * (fabs(z) + fabs(x)) / s + 1e-30);
        }
    }
    free(in);
    free(out);
    tiny_close(&t);
    tiny_close(&plain);
}

/* A condition is all that the text encoders give: prediction from token ids,
 * as in pretraining, is the same to the bit. */
static void test_condition_stands_for_the_prompt(void **state)
{
    TinyRun t;
    Inputs *in;
    float from_condition[D];
    int32_t ids[64];
    const float *z;
    Context ctx;
    Tensor *u;

    (void)state;
    tiny_open(&t, 1, NULL);
    in = new_inputs(&t);
    predict(&t, t.policy, in, &(int) { 1 }, 1);
    memcpy(from_condition, in->u[1], sizeof from_condition);
    z = in->z[1];
    MUST(dg_policy_tokenize(t.policy, "two blue squares", ids, ids + 16));
    MUST(dg_context_init(&ctx, dg_backend_cpu(), 16 << 20));
    u = dg_policy_predict(t.policy, &ctx,
                          &(PolicyBatch) { .num = 1,
                                           .z = &z,
                                           .time = &in->sigma[1],
                                           .t5_ids = ids,
                                           .clip_ids = ids + 16 });
    assert_non_null(u);
    assert_memory_equal(u->data, from_condition, sizeof from_condition);
    dg_context_fini(&ctx);
    free(in);
    tiny_close(&t);
}

/* The network is the same; its time is t / 1000 in place of sigma, and the
 * schedule is DDIM's. */
static void test_prediction_chooses_time_and_schedule(void **state)
{
    static const char *const sets[] = { "policy.prediction=epsilon", NULL };
    TinyRun v, e;
    Schedule flow, ddim;
    Inputs *a, *b;
    const int zero = 0;

    (void)state;
    tiny_open(&v, 1, NULL);
    tiny_open(&e, 1, sets);
    MUST(dg_policy_schedule(v.policy, &flow, 50, 3));
    MUST(dg_policy_schedule(e.policy, &ddim, 50, 3));
    assert_true(flow.kind == DG_SCHEDULE_FLOW && flow.sigma[1] < 1);
    assert_true(ddim.kind == DG_SCHEDULE_DDIM && ddim.timestep[0] == 981);
    assert_true(v.policy->shape.time == DG_TIME_SIGMA);
    a = new_inputs(&v);
    b = new_inputs(&e);
    a->sigma[0] = 0.981f;
    b->sigma[0] = dg_schedule_time(&ddim, 0, e.policy->shape.time);
    predict(&v, v.policy, a, &zero, 1);
    predict(&e, e.policy, b, &zero, 1);
    assert_memory_equal(a->u[0], b->u[0], sizeof a->u[0]);
    dg_schedule_fini(&flow);
    dg_schedule_fini(&ddim);
    free(a);
    free(b);
    tiny_close(&v);
    tiny_close(&e);
}

static void test_reference_stays_when_the_policy_learns(void **state)
{
    TinyRun t;
    Inputs *in;
    float before[D];
    const int zero = 0;

    (void)state;
    tiny_open(&t, 1, NULL);
    in = new_inputs(&t);
    MUST(dg_policy_reference(&t.reference, t.policy, &t.config));
    predict(&t, t.policy, in, &zero, 1);
    memcpy(before, in->u[0], sizeof before);
    predict(&t, t.reference, in, &zero, 1);
    assert_memory_equal(before, in->u[0], sizeof before);
    for (int64_t i = 0; i < t.policy->net.count; i++)
        t.policy->values[i] *= 1.01f;
    predict(&t, t.reference, in, &zero, 1);
    assert_memory_equal(before, in->u[0], sizeof before);
    predict(&t, t.policy, in, &zero, 1);
    assert_memory_not_equal(before, in->u[0], sizeof before);
    free(in);
    tiny_close(&t);
}

static void test_draw_follows_the_seed(void **state)
{
    TinyRun a, b;

    (void)state;
    tiny_open(&a, 1, NULL);
    tiny_open(&b, 1, NULL);
    assert_memory_equal(a.policy->values, b.policy->values,
                        sizeof(float) * (size_t)a.policy->num_values);
    tiny_draw(b.policy, 4);
    assert_memory_not_equal(a.policy->values, b.policy->values,
                            sizeof(float) * (size_t)a.policy->num_values);
    tiny_close(&a);
    tiny_close(&b);
}

static void test_checkpoint_loads_as_weights(void **state)
{
    TinyRun t, u;
    char folder[256], path[300];
    size_t bytes;

    (void)state;
    tiny_folder(folder);
    tiny_open(&t, 1, NULL);
    tiny_open(&u, 1, NULL);
    bytes = sizeof(float) * (size_t)t.policy->num_values;
    for (int64_t i = 0; i < t.learner->num; i++)
        t.learner->ema[i] += 0.125f;
    MUST(dg_learner_save(t.learner, &t.session, folder, 7));
    snprintf(path, sizeof path, "%s/iter_000007.h5", folder);
    memset(u.policy->values, 0, bytes);
    MUST(dg_policy_load(u.policy, path, 0));
    assert_memory_equal(u.policy->values, t.policy->values, bytes);
    MUST(dg_policy_load(u.policy, path, 1));
    assert_memory_equal(u.policy->values, t.learner->ema,
                        sizeof(float) * (size_t)t.learner->num);
    assert_memory_equal(u.policy->text.values, t.policy->text.values,
                        sizeof(float) * (size_t)t.policy->text.count);
    tiny_close(&t);
    tiny_close(&u);
    tiny_drop(folder);
}

/* Other weights must not stand for averaged ones that are not there. */
static void test_no_average_no_weights(void **state)
{
    static const char *const sets[] = { "optim.ema_decay=0", NULL };
    static const char base[] = "configs/weights/shapes_flux.h5";
    char folder[256], path[300];
    TinyRun t;

    (void)state;
    tiny_folder(folder);
    tiny_open(&t, 1, sets);
    MUST(dg_learner_save(t.learner, &t.session, folder, 1));
    snprintf(path, sizeof path, "%s/iter_000001.h5", folder);
    MUST(dg_policy_load(t.policy, path, 0));
    assert_int_equal(dg_policy_load(t.policy, path, 1), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "no averaged weights"));
    assert_int_equal(dg_policy_load(t.policy, base, 1), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, base));
    tiny_close(&t);
    tiny_drop(folder);
}

static void test_sizes_come_from_the_file(void **state)
{
    static const char *const sets[] = { "policy.prediction=data", NULL };
    TinyRun t;
    char folder[256], path[300];
    Config c;

    (void)state;
    tiny_folder(folder);
    tiny_open(&t, 1, sets);
    MUST(dg_learner_save(t.learner, &t.session, folder, 1));
    snprintf(path, sizeof path, "%s/iter_000001.h5", folder);
    dg_config_defaults(&c);
    MUST(dg_policy_adopt_sizes(&c, path));
    assert_memory_equal(&c.flux, &t.config.flux, sizeof c.flux);
    assert_int_equal(c.policy.text_length, 16);
    assert_int_equal(c.policy.prediction, DG_PREDICT_DATA);
    assert_int_equal(dg_policy_adopt_sizes(&c, "configs/tiny.cfg"), DG_EFORMAT);
    tiny_close(&t);
    tiny_drop(folder);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_codec_goes_back_and_forth),
    cmocka_unit_test(test_codec_packs_as_flux_does),
    cmocka_unit_test(test_decode_clamps_and_keeps_nan),
    cmocka_unit_test(test_tokenize_names_what_it_does_not_know),
    cmocka_unit_test(test_encode_does_not_remember),
    cmocka_unit_test(test_predict_does_not_see_neighbours),
    cmocka_unit_test(test_data_prediction_gives_the_velocity),
    cmocka_unit_test(test_condition_stands_for_the_prompt),
    cmocka_unit_test(test_prediction_chooses_time_and_schedule),
    cmocka_unit_test(test_reference_stays_when_the_policy_learns),
    cmocka_unit_test(test_draw_follows_the_seed),
    cmocka_unit_test(test_checkpoint_loads_as_weights),
    cmocka_unit_test(test_no_average_no_weights),
    cmocka_unit_test(test_sizes_come_from_the_file),
};

TINY_MAIN(tests)
