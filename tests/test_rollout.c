/* What an iteration is made of, from the seed alone: prompts in their order,
 * the noise of each sample and step, steps by the configuration's SDE. Each
 * against its definition, so that all runs may not agree on something else. */
#include "tiny_run.h"

#include "train/guided.h"

#include <math.h>

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
    float *x0_before = malloc(bytes);
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
        for (int64_t d = 0; d < r->D && r->steps[i].multistep; d++)
            want[d] += r->steps[i].mean_x0 * x0_before[d];
        dg_sde_x0(x0_before, &r->steps[i], z, u, r->D);
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
    free(x0_before);
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

/* The samples of a prompt are the same until the first step of the window,
 * which is computed once: each has the bits of a run by itself, also where
 * leaders and samples are in batches with others. */
static void test_what_samples_share_is_theirs(void **state)
{
    static const char *const early[] = { "grpo.micro_batch=4",
                                         "sampler.decode=x0", NULL };
    static const char *const late[] = { "sampler.window_size=2",
                                        "sampler.window_start=2",
                                        "grpo.micro_batch=3",
                                        "sampler.decode=x0", NULL };
    static const char *const last[] = { "sampler.window_size=1",
                                        "sampler.window_start=3",
                                        "sampler.sde=cps",
                                        "grpo.timestep_mode=window",
                                        "cfg.scale=2",
                                        "sampler.decode=zT",
                                        NULL };
    static const char *const own[] = { "sampler.window_size=2",
                                       "sampler.window_start=2",
                                       "sampler.init_noise=per_sample",
                                       "sampler.decode=zT", NULL };

    (void)state;
    check_samples(early, 1, 1);
    check_samples(late, 1, 1);
    check_samples(last, 1, 0);
    check_samples(own, 0, 0);
}

/* Steps of second order behind a window go on from what the step before predicted
 * of the same sample, whatever batch it is in. */
static void test_steps_of_second_order(void **state)
{
    static const char *const late[] = { "sampler.steps=9",
                                        "sampler.window_size=2",
                                        "sampler.window_start=1",
                                        "sampler.window_solver=dpmpp_2m",
                                        "sampler.window_compress=0.7",
                                        "grpo.micro_batch=3",
                                        "sampler.decode=x0",
                                        NULL };
    static const char *const moves[] = { "sampler.steps=9",
                                         "sampler.window_size=2",
                                         "sampler.window_every=1",
                                         "sampler.window_solver=dpmpp_2m",
                                         "sampler.window_compress=1",
                                         "sampler.init_noise=per_sample",
                                         "cfg.scale=2",
                                         "sampler.decode=zT",
                                         NULL };
    int T[8], most = 0;
    TinyRun t;

    (void)state;
    check_samples(late, 1, 1);
    check_samples(moves, 0, 0);
    tiny_open(&t, 1, late);
    MUST(dg_rollout_begin(t.rollout, &t.session, t.prompts.num, 0));
    assert_int_equal(t.rollout->T, 3 + 4);
    assert_int_equal(t.rollout->most_steps, 3 + 4);
    for (int i = 0; i < 7; i++)
        assert_int_equal(t.rollout->steps[i].multistep, i == 4 || i == 5);
    for (int i = 0; i < 7; i++)
        assert_true(t.rollout->time[i] == t.rollout->steps[i].sigma);
    tiny_close(&t);
    /* a window that moves: as many steps at most as are reserved, 8 + 1 */
    tiny_open(&t, 1, moves);
    t.config.sampler.window_compress = 0.4;
    for (int i = 0; i < 8; i++) {
        MUST(dg_rollout_begin(t.rollout, &t.session, t.prompts.num, i));
        T[i] = t.rollout->T;
        most = T[i] > most ? T[i] : most;
    }
    assert_true(T[0] == 2 + 2 && T[3] == 5 + 1 && T[7] == 8 + 1);
    assert_int_equal(most, t.rollout->most_steps);
    tiny_close(&t);
}

/* A rank's part of the items, which begins and ends within groups. */
static void test_a_part_of_a_group_shares_too(void **state)
{
    static const char *const sets[] = { "sampler.window_size=2",
                                        "sampler.window_start=1",
                                        "grpo.micro_batch=2", NULL };
    Comm part = tiny_comm;
    TinyRun t;
    Session of_part;
    Rollout *r;

    (void)state;
    tiny_open(&t, 2, sets);
    tiny_experience(&t, 2);
    of_part = t.session;
    of_part.comm = &part;
    part.size = 5;
    for (part.rank = 0; part.rank < part.size; part.rank++) {
        MUST(dg_rollout_create(&r, &of_part, t.policy, t.prompts.num));
        MUST(dg_rollout_begin(r, &of_part, t.prompts.num, 2));
        MUST(dg_rollout_encode(r, t.team, t.policy, &t.prompts));
        MUST(dg_rollout_sample(r, &of_part, t.team, t.policy));
        assert_true(r->num > 0 && r->num < t.rollout->num);
        assert_memory_equal(dg_rollout_latent(r, r->first, 0),
                            dg_rollout_latent(t.rollout, r->first, 0),
                            sizeof(float) *
                                (size_t)(r->num * (r->T + 1) * r->D));
        assert_memory_equal(r->log_prob, t.rollout->log_prob + r->first * r->T,
                            sizeof(float) * (size_t)(r->num * r->T));
        dg_rollout_destroy(r);
    }
    tiny_close(&t);
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

/* --- samples that fail ----------------------------------------------------- */

/* Conditions of prompt slot 'poisoned' are no numbers; -1: all are. */
static void sample_with(TinyRun *t, int64_t poisoned)
{
    Rollout *r = t->rollout;
    const int64_t size = t->policy->shape.condition;

    MUST(dg_rollout_begin(r, &t->session, t->prompts.num, 0));
    MUST(dg_rollout_encode(r, t->team, t->policy, &t->prompts));
    for (int64_t i = 0; poisoned >= 0 && i < size; i++)
        r->conditions[poisoned * size + i] = NAN;
    MUST(dg_rollout_sample(r, &t->session, t->team, t->policy));
}

static void score(TinyRun *t)
{
    MUST(dg_rollout_score(
        &(Scoring) { t->rollout, t->policy, &t->prompts, t->rewards, NULL, 0 },
        t->team));
}

static void assert_missing(const Rollout *r, int64_t poisoned)
{
    for (int64_t i = 0; i < r->N * r->K; i++) {
        const RewardScore *s = &r->scores[i];

        assert_int_equal(s->missing,
                         i / r->K / r->G == poisoned ? DG_SCORE_ASIDE : 0);
        /* as files say it of a score that is missing */
        assert_true(!s->missing || (isnan(s->value) && isnan(s->strict)));
    }
}

static void assert_same_items(const Rollout *a, const Rollout *b,
                              int64_t but_group)
{
    for (int64_t i = 0; i < a->N; i++) {
        if (i / a->G == but_group)
            continue;
        assert_memory_equal(dg_rollout_latent(a, i, 0),
                            dg_rollout_latent(b, i, 0),
                            sizeof(float) * (size_t)((a->T + 1) * a->D));
        assert_memory_equal(&a->scores[i * a->K], &b->scores[i * b->K],
                            sizeof *a->scores * (size_t)a->K);
    }
}

/* A prompt's samples fail in batches that others are in: they alone have no
 * scores, the lowest is told of, and others have their own bits. */
static void test_failed_samples_stand_alone(void **state)
{
    TinyRun clean, t;
    char text[64];

    (void)state;
    tiny_open(&clean, 2, NULL);
    sample_with(&clean, -1);
    score(&clean);
    assert_missing(clean.rollout, -1);
    assert_true(clean.rollout->note[0] == '\0');
    assert_int_equal(clean.rollout->note_item, clean.rollout->N);
    tiny_open(&t, 2, NULL);
    for (int again = 0; again < 5; again++) { /* threads in any order */
        sample_with(&t, 1);
        assert_missing(t.rollout, 1);
        score(&t);
        assert_missing(t.rollout, 1);
        assert_int_equal(t.rollout->note_item, t.rollout->G);
        snprintf(text, sizeof text, "prompt %lld, sample 0, step 0, rank 0: ",
                 (long long)t.rollout->prompt[1]);
        assert_non_null(strstr(t.rollout->note, text));
        assert_non_null(strstr(t.rollout->note, "layer"));
        assert_same_items(clean.rollout, t.rollout, 1);
    }
    tiny_close(&t);
    tiny_close(&clean);
}

/* Half the mean square difference of the pictures of a group that have a score,
 * decoded anew; the tiny run's are as large as cells are many. */
static double by_pairs(TinyRun *t, int64_t group, const int *scored)
{
    enum { NUMBERS = DG_DIVERSITY_CELLS };
    const Rollout *r = t->rollout;
    float *rgb = malloc(sizeof *rgb * NUMBERS * (size_t)r->G);
    double sum = 0;
    int pairs = 0;

    assert_int_equal(t->policy->shape.height, DG_DIVERSITY_SIDE);
    assert_int_equal(t->policy->shape.width, DG_DIVERSITY_SIDE);
    for (int64_t g = 0; g < r->G; g++)
        MUST(dg_policy_decode(t->policy, &t->team->workers[0].ctx,
                              r->final + (group * r->G + g) * r->D,
                              rgb + g * NUMBERS));
    for (int64_t a = 0; a < r->G; a++)
        for (int64_t b = 0; b < a; b++) {
            if (!scored[a] || !scored[b])
                continue;
            pairs++;
            for (int i = 0; i < NUMBERS; i++) {
                const double d =
                    (double)rgb[a * NUMBERS + i] - (double)rgb[b * NUMBERS + i];

                sum += d * d / 2 / NUMBERS;
            }
        }
    free(rgb);
    return sqrt(sum / pairs);
}

/* Rounding to 1/4095 adds its variance to that of the pictures, see
 * tests/test_diversity.c; what is left of it is below 1e-6 of a range. */
static void check_diversity(TinyRun *t, int64_t group, const int *scored)
{
    const double got = dg_diversity_of(&t->rollout->pictures[group]);
    const double want = by_pairs(t, group, scored);

    assert_true(want > 1e-2);
    assert_true(fabs(sqrt(got * got - 1 / (12.0 * 4095 * 4095)) - want) < 1e-6);
}

/* Diversity is that of the pictures of samples that have a score, of whichever
 * reward, in any order of threads. */
static void test_diversity_is_of_scored_samples(void **state)
{
    static const int all[] = { 1, 1, 1, 1 }, but_two[] = { 1, 0, 1, 0 };
    TinyRun t;
    Rollout *r;

    (void)state;
    tiny_open(&t, 3, NULL);
    r = t.rollout;
    for (int again = 0; again < 3; again++) {
        static GroupPictures was;

        sample_with(&t, 1);
        for (int64_t k = 0; k < r->K; k++) { /* as the sampler sets aside */
            r->scores[1 * r->K + k].missing = 1;
            r->scores[3 * r->K + k].missing = 1;
        }
        r->scores[2 * r->K].missing = 1; /* of one reward alone */
        score(&t);
        check_diversity(&t, 0, but_two);
        assert_int_equal(r->pictures[0].num, 2);
        assert_int_equal(r->pictures[1].num, 0); /* all failed */
        assert_true(isnan(dg_diversity_of(&r->pictures[1])));
        assert_int_equal(r->pictures[2].num, 4);
        check_diversity(&t, 2, all);
        if (again > 0)
            assert_memory_equal(&was, &r->pictures[2], sizeof was);
        was = r->pictures[2];
    }
    tiny_close(&t);
}

enum { BATCH = 3 };

/* Three samples of the first prompt without their steps kept, of a run whose
 * step 'broken' has no time; the one in the middle may have no condition. */
static void run_batch(TinyRun *t, Sample *s, float *final, int broken,
                      int no_condition)
{
    const Rollout *r = t->rollout;
    const size_t size = (size_t)t->policy->shape.condition;
    float *time = malloc(sizeof *time * (size_t)r->T);
    float *latents = malloc(sizeof *latents * (size_t)(BATCH * r->D));
    float *nothing = malloc(sizeof *nothing * size);
    const SamplingRun run = { .policy = t->policy,
                              .steps = r->steps,
                              .time = time,
                              .guidance = dg_rollout_guidance(r, &t->config),
                              .num_steps = r->T,
                              .decode = DG_DECODE_ZT };

    for (size_t i = 0; i < size; i++)
        nothing[i] = NAN;
    memcpy(time, r->time, sizeof *time * (size_t)r->T);
    if (broken >= 0)
        time[broken] = NAN;
    for (int b = 0; b < BATCH; b++)
        s[b] =
            (Sample) { .init = key_of(t, DG_RNG_INIT_LATENTS, b),
                       .noise = key_of(t, DG_RNG_SDE_NOISE, b),
                       .condition = b == 1 && no_condition
                                        ? nothing
                                        : dg_rollout_condition(r, t->policy, 0),
                       .latents = latents + b * r->D,
                       .final = final + b * r->D };
    MUST(dg_sampling_run(&t->team->workers[0], &run, s, BATCH));
    free(time);
    free(latents);
    free(nothing);
}

/* The step at which it failed first is told, once; what names the layer costs
 * the batch nothing. */
static void test_a_failed_step_is_told(void **state)
{
    Sample s[BATCH];
    TinyRun t;
    float *want, *got;
    int64_t D;

    (void)state;
    tiny_open(&t, 1, NULL);
    sample_with(&t, -1);
    D = t.rollout->D;
    want = malloc(sizeof *want * (size_t)(BATCH * D));
    got = malloc(sizeof *got * (size_t)(BATCH * D));
    run_batch(&t, s, want, -1, 0);
    for (int b = 0; b < BATCH; b++)
        assert_true(!s[b].failed && s[b].failed_step == -1);
    run_batch(&t, s, got, -1, 1);
    for (int b = 0; b < BATCH; b++) {
        assert_int_equal(s[b].failed, b == 1);
        assert_int_equal(s[b].failed_step, b == 1 ? 0 : -1);
        if (b != 1)
            assert_memory_equal(got + b * D, want + b * D,
                                sizeof *want * (size_t)D);
    }
    assert_non_null(strstr(s[1].reason, "layer"));
    run_batch(&t, s, got, 2, 0);
    for (int b = 0; b < BATCH; b++)
        assert_true(s[b].failed && s[b].failed_step == 2);
    free(want);
    free(got);
    tiny_close(&t);
}

/* --- what waits to be written ---------------------------------------------- */

/* What was set aside stays while the next iteration fills another place; the
 * one after that may have the first again. */
static void test_set_aside_stays(void **state)
{
    static const char *const guided[] = { "cfg.scale=2", NULL };
    TinyRun t;
    Rollout *r;

    (void)state;
    tiny_open(&t, 1, guided);
    r = t.rollout;
    MUST(dg_rollout_reserve_aside(r));
    for (int64_t it = 0; it < 3; it++) {
        float *const *now[] = { &r->conditions, &r->latents, &r->log_prob,
                                &r->final };
        const float *const uncond = r->uncond;
        const int64_t num[] = { r->num_prompts * t.policy->shape.condition,
                                r->num * (r->T + 1) * r->D, r->num * r->T,
                                r->num * r->D };
        float *was[4], *kept[4];

        tiny_experience(&t, it);
        for (int i = 0; i < 4; i++) {
            was[i] = *now[i];
            kept[i] = malloc(sizeof *kept[i] * (size_t)num[i]);
            memcpy(kept[i], was[i], sizeof *kept[i] * (size_t)num[i]);
        }
        dg_rollout_set_aside(r);
        assert_ptr_equal(r->uncond, uncond);
        assert_ptr_equal(r->in[DG_ROLLOUT_UNCOND].host, uncond);
        assert_null(r->aside[DG_ROLLOUT_UNCOND]);
        for (int i = 0; i < 4; i++)
            assert_ptr_not_equal(*now[i], was[i]);
        tiny_experience(&t, it + 7);
        for (int i = 0; i < 4; i++) {
            const size_t bytes = sizeof *kept[i] * (size_t)num[i];

            assert_memory_equal(was[i], kept[i], bytes);
            assert_true(memcmp(*now[i], kept[i], bytes) != 0);
            free(kept[i]);
        }
    }
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_prompts_are_an_order_per_epoch),
    cmocka_unit_test(test_samples_follow_from_their_names),
    cmocka_unit_test(test_what_samples_share_is_theirs),
    cmocka_unit_test(test_steps_of_second_order),
    cmocka_unit_test(test_a_part_of_a_group_shares_too),
    cmocka_unit_test(test_steps_are_the_configuration_s),
    cmocka_unit_test(test_failed_samples_stand_alone),
    cmocka_unit_test(test_diversity_is_of_scored_samples),
    cmocka_unit_test(test_a_failed_step_is_told),
    cmocka_unit_test(test_set_aside_stays),
};

TINY_MAIN(tests)
