/* Guidance around a network: invariant 16 in predictions and gradients, the
 * ratio of a whole DDIM chain, evaluation against DDIM written out. */
#include "tiny_run.h"

#include "diffusion/guidance.h"
#include "train/evaluate.h"

#include <math.h>

#define EPSILON                                                       \
    "policy.prediction=epsilon", "sampler.sde=ddim", "sampler.eta=1", \
        "grpo.updates_per_iteration=1"

enum { B = 3, D = 3072, C = 272 };

/* A batch, the empty prompt's condition, a direction g. */
typedef struct Lab {
    TinyRun t;
    float z[B][D], condition[B][C], uncond[C], time[B], g[B][D];
    const float *zs[B], *conditions[B];
    PolicyBatch batch;
    Context *ctx;
} Lab;

static void encode(Lab *l, const char *prompt, float *out)
{
    MUST(dg_sampling_encode(&l->t.team->workers[0], l->t.policy, prompt, out));
}

static Lab *open_lab(const char *const *sets)
{
    static const char *const prompts[B] = { "a red circle", "two blue squares",
                                            "a green triangle" };
    const RngKey key = { .seed = 9, .purpose = DG_RNG_TEST };
    Lab *l = calloc(1, sizeof *l);

    assert_non_null(l);
    tiny_open(&l->t, 1, sets);
    assert_int_equal(l->t.policy->shape.elements, D);
    assert_int_equal(l->t.policy->shape.condition, C);
    dg_rng_normal(l->z[0], 0, B * D, &key);
    dg_rng_normal(l->g[0], B * D, B * D, &key);
    for (int b = 0; b < B; b++) {
        encode(l, prompts[b], l->condition[b]);
        l->time[b] = 0.981f - 0.3f * (float)b;
        l->zs[b] = l->z[b];
        l->conditions[b] = l->condition[b];
    }
    encode(l, "", l->uncond);
    l->batch = (PolicyBatch) {
        .num = B, .z = l->zs, .time = l->time, .condition = l->conditions
    };
    l->ctx = &l->t.team->workers[0].ctx;
    return l;
}

static void close_lab(Lab *l)
{
    tiny_close(&l->t);
    free(l);
}

static const char *const epsilon[] = { EPSILON, "cfg.scale=3", NULL };

static void keep(float *out, const Tensor *u)
{
    assert_non_null(u);
    assert_int_equal(dg_tensor_count(u), B * D);
    memcpy(out, u->data, sizeof(float) * B * D);
}

/* Each branch by itself. */
static void branches(Lab *l, float *cond, float *uncond)
{
    const float *empty[B] = { l->uncond, l->uncond, l->uncond };
    PolicyBatch batch = l->batch;

    dg_context_reset(l->ctx);
    keep(cond, dg_policy_predict(l->t.policy, l->ctx, &batch));
    batch.condition = empty;
    dg_context_reset(l->ctx);
    keep(uncond, dg_policy_predict(l->t.policy, l->ctx, &batch));
}

static void predict(Lab *l, const Guidance *g, float *out)
{
    dg_context_reset(l->ctx);
    keep(out, dg_guided_predict(l->t.policy, l->ctx, &l->batch, g));
}

static void record(Lab *l, const Guidance *g, float *out)
{
    Tensor *branch;

    dg_context_reset(l->ctx);
    keep(out, dg_guided_record(l->t.policy, l->ctx, &l->batch, g, &branch));
}

static float c[B * D], e[B * D], want[B * D], got[B * D];

/* Bit for bit: recorded or not, both branches combined by the formula; w = 1
 * and no guidance the condition alone, w = 0 the empty prompt alone. */
static void test_guided_inv16_predicts_from_both_branches(void **state)
{
    const double w[] = { 0, 0.5, 1, 3, 7.5 };
    Lab *l = open_lab(epsilon);

    (void)state;
    branches(l, c, e);
    assert_memory_not_equal(c, e, sizeof c);
    for (size_t k = 0; k < sizeof w / sizeof *w; k++) {
        const Guidance g = { w[k], DG_CFG_JOINT, l->uncond };

        if (w[k] == 0 || w[k] == 1)
            memcpy(want, w[k] == 0 ? e : c, sizeof want);
        else
            dg_guidance_combine(want, e, c, w[k], B * D);
        predict(l, &g, got);
        assert_memory_equal(got, want, sizeof got);
        record(l, &g, got);
        assert_memory_equal(got, want, sizeof got);
    }
    predict(l, &(Guidance) { 0 }, got);
    assert_memory_equal(got, c, sizeof c);
    close_lab(l);
}

/* Only the prediction stays in the arena. */
static void test_guided_predict_gives_back(void **state)
{
    Lab *l = open_lab(epsilon);
    const Guidance g = { 3, DG_CFG_JOINT, l->uncond };

    (void)state;
    dg_context_reset(l->ctx);
    assert_non_null(dg_guided_predict(l->t.policy, l->ctx, &l->batch, &g));
    assert_int_equal(l->ctx->arena.used, sizeof(float) * B * D);
    close_lab(l);
}

/* d (g . prediction) / d parameters into out, both passes. */
static void gradient(Lab *l, const Guidance *g, float *out)
{
    const size_t bytes = sizeof(float) * (size_t)l->t.policy->net.count;
    const float *rows[B];
    Worker *w = &l->t.team->workers[0];
    Tensor *u, *branch, *seed;

    memset(w->grads, 0, bytes);
    dg_context_reset(l->ctx);
    u = dg_guided_record(l->t.policy, l->ctx, &l->batch, g, &branch);
    assert_non_null(u);
    seed = dg_tensor_like(l->ctx, u);
    memcpy(seed->data, l->g, sizeof l->g);
    MUST(dg_guided_back(l->ctx, g, branch, seed));
    for (int i = 0; i < B; i++)
        rows[i] = l->g[i];
    if (dg_guided_twice(g))
        MUST(dg_guided_back_uncond(l->t.policy, l->ctx, &l->batch, g, rows));
    memcpy(out, w->grads, bytes);
}

static double distance(const float *a, const float *b, int64_t num)
{
    double sum = 0;

    for (int64_t i = 0; i < num; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum);
}

static float *new_grads(const Lab *l)
{
    float *x = calloc((size_t)l->t.policy->net.count, sizeof *x);

    assert_non_null(x);
    return x;
}

/* Seeds: with G_c and G_e the gradients of g through either branch, joint is
 * w G_c + (1 - w) G_e, detached w G_c, w = 1 G_c, w = 0 G_e. Sums in another
 * order and seeds rounded: a few thousand units of 2^-24 of what is added, by
 * chance; 1e-5 is allowed. */
static void test_guided_inv16_seeds_are_shares(void **state)
{
    const double w = 3;
    Lab *l = open_lab(epsilon);
    const int64_t n = l->t.policy->net.count;
    float *of_c = new_grads(l), *of_e = new_grads(l), *x = new_grads(l);
    float *zero = new_grads(l);
    double size;

    (void)state;
    gradient(l, &(Guidance) { 1, DG_CFG_JOINT, l->uncond }, of_c);
    gradient(l, &(Guidance) { 0 }, x);
    assert_memory_equal(x, of_c, sizeof *x * (size_t)n);
    gradient(l, &(Guidance) { 0, DG_CFG_JOINT, l->uncond }, of_e);
    size = distance(of_c, zero, n);
    assert_true(distance(of_c, of_e, n) > 0.01 * size);
    gradient(l, &(Guidance) { w, DG_CFG_DETACH_UNCOND, l->uncond }, x);
    for (int64_t i = 0; i < n; i++)
        of_c[i] *= (float)w;
    assert_true(distance(x, of_c, n) < 1e-5 * size);
    gradient(l, &(Guidance) { w, DG_CFG_JOINT, l->uncond }, x);
    for (int64_t i = 0; i < n; i++)
        of_c[i] += (float)(1 - w) * of_e[i];
    assert_true(distance(x, of_c, n) < 1e-5 * size);
    free(of_c);
    free(of_e);
    free(x);
    free(zero);
    close_lab(l);
}

/* Where both branches see one prompt, guidance is none: the same prediction,
 * and w G + (1 - w) G = G up to rounding of the parts. */
static void test_guided_inv16_identical_prompts(void **state)
{
    Lab *l = open_lab(epsilon);
    const int64_t n = l->t.policy->net.count;
    const Guidance joint = { 5, DG_CFG_JOINT, l->condition[0] };
    float *plain = new_grads(l), *both = new_grads(l), *zero = new_grads(l);

    (void)state;
    for (int b = 0; b < B; b++)
        l->conditions[b] = l->condition[0];
    predict(l, &(Guidance) { 0 }, want);
    predict(l, &joint, got);
    for (int i = 0; i < B * D; i++)
        assert_true(want[i] == got[i]);
    gradient(l, &(Guidance) { 0 }, plain);
    gradient(l, &joint, both);
    assert_true(distance(both, plain, n) < 1e-5 * distance(plain, zero, n));
    free(plain);
    free(both);
    free(zero);
    close_lab(l);
}

/* --- a whole chain ------------------------------------------------------ */

/* One iteration of 50 DDIM steps, 49 trained; its gradient and log-probs. */
static void iterate(const char *batch, float *grads, float *log_prob)
{
    const char *const sets[] = { EPSILON,
                                 "cfg.scale=5",
                                 "sampler.steps=50",
                                 "grpo.timestep_fraction=1",
                                 "grpo.num_generations=2",
                                 "grpo.prompts_per_iteration=1",
                                 "grpo.kl_beta=0.01",
                                 batch,
                                 NULL };
    UpdateStats stats;
    TinyRun t;

    tiny_open(&t, 1, sets);
    MUST(dg_policy_reference(&t.reference, t.policy, &t.config));
    for (int64_t i = 0; i < t.reference->net.count; i++)
        t.reference->net.values[i] *= 0.99f;
    tiny_experience(&t, 0);
    for (int i = 0; i < 2; i++)
        t.rollout->scores[2 * i] = t.rollout->scores[2 * i + 1] =
            (RewardScore) { (float)i, NAN, 0 };
    MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    assert_int_equal(t.update->steps_per_item, 49);
    MUST(tiny_update(&t, 1, &stats));
    assert_true(stats.ratio_max_deviation == 0);
    assert_true(stats.kl > 0);
    for (int i = 0; i < 50; i++)
        assert_true(t.rollout->steps[i].stochastic);
    memcpy(grads, t.learner->grads,
           sizeof *grads * (size_t)t.policy->net.count);
    memcpy(log_prob, t.rollout->log_prob, sizeof *log_prob * 100);
    tiny_close(&t);
}

/* The ratio is exactly 1 at all of them, down to t = 21 where the standard
 * deviation is 0.04, and batches change no bit of gradient or log-prob. */
static void test_guided_inv09_fifty_steps_any_batch(void **state)
{
    static const char *const batches[] = { "grpo.micro_batch=2",
                                           "grpo.micro_batch=7",
                                           "grpo.micro_batch=50" };
    enum { MOST = 1 << 17 };
    static float first[MOST], other[MOST];
    float log_prob[100], again[100];

    (void)state;
    iterate("grpo.micro_batch=1", first, log_prob);
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        iterate(batches[k], other, again);
        assert_memory_equal(first, other, sizeof first);
        assert_memory_equal(log_prob, again, sizeof log_prob);
    }
}

/* Invariant 20 with guidance: the reference's predictions are guided too. */
static void test_guided_inv20_no_kl_at_the_reference(void **state)
{
    static const char *const sets[] = { EPSILON, "cfg.scale=4",
                                        "grpo.kl_beta=0.1", NULL };
    UpdateStats stats;
    TinyRun t;

    (void)state;
    tiny_open(&t, 1, sets);
    MUST(dg_policy_reference(&t.reference, t.policy, &t.config));
    tiny_experience(&t, 0);
    MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    MUST(tiny_update(&t, 1, &stats));
    assert_true(stats.kl == 0);
    for (int64_t i = 0; i < t.reference->net.count; i++)
        t.reference->net.values[i] *= 0.99f;
    MUST(tiny_update(&t, 1, &stats));
    assert_true(stats.kl > 0);
    tiny_close(&t);
}

/* --- evaluation ------------------------------------------------------------ */

enum { STEPS = 4, PIXELS = 32 * 32 * 3 };

/* DDIM with eta 0 and guidance written out in double, of one picture: the
 * seed-th of a prompt. */
static void paint(Lab *l, uint32_t number, uint32_t seed, uint8_t *rgb)
{
    const char *prompt = l->t.prompts.item[number].text;
    const RngKey key = { .seed = 3,
                         .purpose = DG_RNG_EVAL_LATENTS,
                         .prompt = number,
                         .sample = seed };
    const float *const empty = l->uncond, *const z = l->z[0];
    float picture[PIXELS], uncond[D], table[DG_TRAIN_TIMES];

    encode(l, prompt, l->condition[0]);
    dg_schedule_alpha_bar_table(table);
    dg_rng_normal(l->z[0], 0, D, &key);
    for (int t = 751; t > 0; t -= 250) {
        const double a = (double)table[t];
        const double next = (double)table[t > 250 ? t - 250 : 0];
        const float time = (float)t / 1000;
        PolicyBatch batch = {
            .num = 1, .z = &z, .time = &time, .condition = &empty
        };
        const Tensor *u;

        dg_context_reset(l->ctx);
        u = dg_policy_predict(l->t.policy, l->ctx, &batch);
        memcpy(uncond, u->data, sizeof uncond);
        batch.condition = l->conditions;
        dg_context_reset(l->ctx);
        u = dg_policy_predict(l->t.policy, l->ctx, &batch);
        for (int i = 0; i < D; i++) {
            const double cond = (double)dg_tensor_f32(u)[i];
            const double n = uncond[i] + 3 * (cond - uncond[i]);
            const double x = (l->z[0][i] - sqrt(1 - a) * n) / sqrt(a);

            l->z[0][i] = (float)(sqrt(next) * x + sqrt(1 - next) * n);
        }
    }
    MUST(dg_policy_decode(l->t.policy, l->ctx, l->z[0], picture));
    for (int i = 0; i < PIXELS; i++)
        rgb[i] = (uint8_t)lrintf(255 * picture[i]);
}

/* Float against double: a value near a half may fall to either side. */
static void test_guided_evaluation_is_ddim(void **state)
{
    static const char *const sets[] = { EPSILON, "cfg.scale=3",
                                        "evaluate.steps=4",
                                        "policy.draw_all=false", NULL };
    static uint8_t pictures[6][PIXELS], rgb[PIXELS];
    Lab *l = open_lab(sets);
    Evaluation unused;

    (void)state;
    MUST(dg_evaluate(&unused, &(EvaluateJob) { .session = &l->t.session,
                                               .team = l->t.team,
                                               .policy = l->t.policy,
                                               .prompts = &l->t.prompts,
                                               .num_prompts = 2,
                                               .seeds = 3,
                                               .batch = 2,
                                               .seed = 3,
                                               .pictures = pictures[0] }));
    for (uint32_t k = 0; k < 6; k++) {
        int inside = 0;

        paint(l, k / 3, k % 3, rgb);
        for (int i = 0; i < PIXELS; i++) {
            assert_true(abs((int)rgb[i] - (int)pictures[k][i]) <= 1);
            inside += rgb[i] > 0 && rgb[i] < 255;
        }
        assert_true(inside > PIXELS / 4); /* not all clamped away */
    }
    close_lab(l);
}

/* The empty prompt, and a second pass, for what needs them alone: 1 is off, 0
 * is the branch without the prompt. */
static void test_guided_asks_for_what_it_needs(void **state)
{
    static const double scales[] = { -1, 0, 0.5, 1, 2 };
    const float there = 0;

    (void)state;
    for (int i = 0; i < 5; i++)
        for (int joint = 0; joint < 2; joint++) {
            const double w = scales[i];
            const CfgGrad grad = joint ? DG_CFG_JOINT : DG_CFG_DETACH_UNCOND;
            Config c = { .cfg = { .scale = w, .grad = grad } };
            const Guidance g = { w, grad, &there }, off = { w, grad, NULL };

            assert_int_equal(dg_guided_wanted(&c), w != 1);
            assert_int_equal(dg_guided_twice(&g), joint && w != 0 && w != 1);
            assert_int_equal(dg_guided_twice(&off), 0);
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_guided_inv16_predicts_from_both_branches),
    cmocka_unit_test(test_guided_predict_gives_back),
    cmocka_unit_test(test_guided_inv16_seeds_are_shares),
    cmocka_unit_test(test_guided_inv16_identical_prompts),
    cmocka_unit_test(test_guided_inv09_fifty_steps_any_batch),
    cmocka_unit_test(test_guided_inv20_no_kl_at_the_reference),
    cmocka_unit_test(test_guided_evaluation_is_ddim),
    cmocka_unit_test(test_guided_asks_for_what_it_needs),
};

TINY_MAIN(tests)
