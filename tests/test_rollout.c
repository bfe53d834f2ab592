/* What an iteration is made of, from the seed alone: prompts in their order,
 * the noise of each sample and step, steps by the configuration's SDE. Each
 * against its definition, so that all runs may not agree on something else. */
#include "tiny_run.h"

#include "train/guided.h"

enum { PROMPTS = 7 };

/* Prompt k of the endless sequence is the k-th of a list that is shuffled anew
 * whenever it ends. */
static void test_prompts_are_an_order_per_epoch(void **state)
{
    int32_t order[PROMPTS];
    int differ = 0;
    TinyRun t;
    Rollout *r;

    (void)state;
    tiny_open(&t, 1, NULL);
    r = t.rollout;
    for (int64_t it = 0; it < 20; it++) {
        MUST(dg_rollout_begin(r, &t.session, PROMPTS, it));
        assert_int_equal(r->iteration, it);
        for (int64_t i = 0; i < r->P; i++) {
            const int64_t k = it * r->P + i;
            const RngKey key = { .seed = (uint64_t)t.config.run.seed,
                                 .purpose = DG_RNG_PROMPT_ORDER,
                                 .iteration = (uint32_t)(k / PROMPTS) };

            dg_rng_permutation(order, PROMPTS, &key);
            assert_int_equal(r->prompt[i], order[k % PROMPTS]);
            differ += r->prompt[i] != k % PROMPTS;
        }
    }
    assert_true(differ > 0);
    t.config.prompts.shuffle = 0;
    for (int64_t it = 0; it < 20; it++) {
        MUST(dg_rollout_begin(r, &t.session, PROMPTS, it));
        for (int64_t i = 0; i < r->P; i++)
            assert_int_equal(r->prompt[i], (it * r->P + i) % PROMPTS);
    }
    tiny_close(&t);
}

static RngKey key_of(const TinyRun *t, RngPurpose purpose, int64_t item)
{
    const Rollout *r = t->rollout;

    return (RngKey) { .seed = (uint64_t)t->config.run.seed,
                      .purpose = purpose,
                      .iteration = (uint32_t)r->iteration,
                      .prompt = (uint32_t)(item / r->G),
                      .sample = (uint32_t)(item % r->G) };
}

/* A step's prediction, of the one sample. */
static void predict(float *u, TinyRun *t, const float *z, int64_t item, int i)
{
    Context *ctx = &t->team->workers[0].ctx;
    const Rollout *r = t->rollout;
    const float *condition = dg_rollout_condition(r, t->policy, item);
    const PolicyBatch b = {
        .num = 1, .z = &z, .time = &r->time[i], .condition = &condition
    };
    const Guidance g = dg_rollout_guidance(r, &t->config);
    const Tensor *out;

    dg_context_reset(ctx);
    out = dg_guided_predict(t->policy, ctx, &b, &g);
    assert_non_null(out);
    memcpy(u, dg_tensor_f32(out), sizeof *u * (size_t)r->D);
}

/* Each latent of an item from the one before and the noise of its own name;
 * what is decoded from the last. */
static void check_item(TinyRun *t, int64_t item, int shared, int x0)
{
    const Rollout *r = t->rollout;
    const size_t bytes = sizeof(float) * (size_t)r->D;
    const float *z = dg_rollout_latent(r, item, 0);
    float *want = malloc(bytes), *u = malloc(bytes), *noise = malloc(bytes);
    RngKey key = key_of(t, DG_RNG_INIT_LATENTS, item);

    key.sample = shared ? 0 : key.sample;
    dg_rng_normal(want, 0, r->D, &key);
    assert_memory_equal(z, want, bytes);
    key = key_of(t, DG_RNG_SDE_NOISE, item);
    for (int i = 0; i < r->T; i++, z += r->D) {
        const float *log_prob = r->log_prob + (item - r->first) * r->T + i;
        const float *next = z + r->D;

        key.step = (uint32_t)i;
        dg_rng_normal(noise, 0, r->D, &key);
        predict(u, t, z, item, i);
        dg_sde_next(want, &r->steps[i], z, u, noise, r->D);
        assert_memory_equal(next, want, bytes);
        assert_true(*log_prob ==
                    dg_sde_log_prob(&r->steps[i], z, u, next, r->D));
        if (i == r->T - 1 && x0)
            dg_sde_x0(want, &r->steps[i], z, u, r->D);
    }
    assert_memory_equal(r->final + (item - r->first) * r->D, want, bytes);
    free(want);
    free(u);
    free(noise);
}

static void check_samples(const char *const *sets, int shared, int x0)
{
    TinyRun t;

    tiny_open(&t, 2, sets);
    tiny_experience(&t, 4);
    for (int64_t i = 0; i < t.rollout->N; i++)
        check_item(&t, i, shared, x0);
    tiny_close(&t);
}

static void test_samples_follow_from_their_names(void **state)
{
    static const char *const x0[] = { "sampler.decode=x0", NULL };
    static const char *const own[] = { "sampler.init_noise=per_sample",
                                       "sampler.decode=zT",
                                       "sampler.sde=flow_sde", NULL };

    (void)state;
    check_samples(x0, 1, 1);
    check_samples(own, 0, 0);
}

/* Steps of the configuration's kind and density in the window, and where that
 * is in an iteration. */
static void check_steps(const char *const *sets, const SdeOpts *want,
                        int64_t iteration, int start, int size)
{
    TinyRun t;
    Rollout *r;

    tiny_open(&t, 1, sets);
    r = t.rollout;
    MUST(dg_rollout_begin(r, &t.session, t.prompts.num, iteration));
    assert_int_equal(r->window.start, start);
    assert_int_equal(r->window.size, size);
    for (int i = 0; i < r->T; i++) {
        const int in = i >= start && i < start + size;
        const SdeOpts o = { in ? want->kind : DG_SDE_ODE, want->log_prob,
                            in ? want->eta : 0 };
        SdeStep s;

        MUST(dg_sde_step_init(&s, &o, &r->schedule, i));
        assert_memory_equal(&s, &r->steps[i], sizeof s);
    }
    tiny_close(&t);
}

static void test_steps_are_the_configuration_s(void **state)
{
    static const char *const dance[] = { "sampler.cps_gaussian=false", NULL };
    static const char *const cps[] = { "sampler.sde=cps", "sampler.eta=0.6",
                                       NULL };
    static const char *const squared[] = { "sampler.sde=cps",
                                           "sampler.cps_gaussian=false",
                                           "sampler.eta=0.6", NULL };
    static const char *const window[] = { "sampler.window_size=2",
                                          "sampler.window_start=1",
                                          "sampler.window_every=3", NULL };
    const SdeOpts of_dance = { DG_SDE_DANCE, DG_LOG_PROB_GAUSSIAN, 0.7 };

    (void)state;
    check_steps(dance, &of_dance, 5, 0, 5);
    check_steps(cps, &(SdeOpts) { DG_SDE_CPS, DG_LOG_PROB_GAUSSIAN, 0.6 }, 5, 0,
                5);
    check_steps(squared, &(SdeOpts) { DG_SDE_CPS, DG_LOG_PROB_SQUARED, 0.6 }, 5,
                0, 5);
    check_steps(window, &of_dance, 2, 1, 2);
    check_steps(window, &of_dance, 5, 2, 2);
    check_steps(window, &of_dance, 8, 3, 1);
    check_steps(window, &of_dance, 9, 0, 2);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prompts_are_an_order_per_epoch),
    cmocka_unit_test(test_samples_follow_from_their_names),
    cmocka_unit_test(test_steps_are_the_configuration_s),
};

TINY_MAIN(tests)
