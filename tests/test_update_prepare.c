/* Between rollout and gradient: which samples are kept, whose update they are,
 * which of their steps are trained, by their definitions. */
#include "tiny_run.h"

#include "grpo/best_of_n.h"

#include <math.h>

static void give_scores(TinyRun *t, double turn)
{
    const Rollout *r = t->rollout;

    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i] =
            (RewardScore) { (float)sin(1.7 * (double)(i * i) + turn), NAN, 0 };
}

static void prepare(TinyRun *t, int64_t iteration, double turn)
{
    MUST(dg_rollout_begin(t->rollout, &t->session, t->prompts.num, iteration));
    give_scores(t, turn);
    MUST(dg_update_prepare(t->update, &t->session, t->rollout));
}

/* Whole groups where they divide evenly among the updates and may, else each
 * group's samples in turn. */
static void check_updates(const char *const *sets, int64_t prompts, int may)
{
    TinyRun t;

    tiny_open(&t, 1, sets);
    prepare(&t, 0, 0);
    assert_int_equal(t.rollout->P, prompts);
    assert_int_equal(t.update->num_kept, prompts * 4);
    for (int64_t k = 0; k < t.update->num_kept; k++) {
        const int64_t group = k / 4, updates = t.update->num_updates;

        assert_int_equal(t.update->kept[k], k);
        assert_int_equal(t.update->belongs[k],
                         (may && prompts % updates == 0 ? group : k) % updates);
    }
    tiny_close(&t);
}

static void test_groups_stay_whole_where_they_can(void **state)
{
    static const char *const even[] = { "grpo.prompts_per_iteration=4", NULL };
    static const char *const odd[] = { "grpo.prompts_per_iteration=3", NULL };
    static const char *const many[] = { "grpo.prompts_per_iteration=2",
                                        "grpo.updates_per_iteration=8", NULL };

    static const char *const groups[] = { "grpo.prompts_per_iteration=4",
                                          "grpo.update_split=groups", NULL };
    static const char *const samples[] = { "grpo.prompts_per_iteration=4",
                                           "grpo.update_split=samples", NULL };
    TinyRun t;

    (void)state;
    check_updates(even, 4, 1);
    check_updates(odd, 3, 1);
    check_updates(many, 2, 1);
    check_updates(groups, 4, 1);
    check_updates(samples, 4, 0);
    tiny_open(&t, 1, groups);
    t.config.grpo.updates_per_iteration = 3;
    assert_int_equal(dg_config_check(&t.config), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "grpo.update_split = groups: "
                           "grpo.prompts_per_iteration = 4 must be"));
    t.config.grpo.updates_per_iteration = 2;
    MUST(dg_config_check(&t.config));
    tiny_close(&t);
}

/* A rank's kept samples are those among its items, whatever was kept before:
 * here the block of items is moved about. */
static void check_block(TinyRun *t, int64_t first, int64_t num)
{
    const Update *u = t->update;
    int64_t before = 0, in = 0;

    t->rollout->first = first;
    t->rollout->num = num;
    MUST(dg_update_prepare(t->update, &t->session, t->rollout));
    for (int64_t k = 0; k < u->num_kept; k++) {
        before += u->kept[k] < first;
        in += u->kept[k] >= first && u->kept[k] < first + num;
    }
    assert_int_equal(u->first_kept, before);
    assert_int_equal(u->num_local, in);
    for (int64_t i = 0; i < in; i++) {
        const int64_t item = u->kept[before + i];
        const TimestepOpts o = { .mode = DG_TIMESTEP_RANDOM,
                                 .count = t->config.grpo.timestep_count,
                                 .scope = t->config.grpo.timestep_scope,
                                 .fraction = t->config.grpo.timestep_fraction,
                                 .seed = (uint64_t)t->config.run.seed };
        const TimestepPlace place = { (uint32_t)t->rollout->iteration,
                                      (uint32_t)(item / 4),
                                      (uint32_t)(item % 4) };
        int32_t steps[16];
        int num_steps;

        MUST(dg_timesteps_count(&num_steps, &o, t->rollout->T,
                                &t->rollout->window));
        assert_int_equal(u->steps_per_item, num_steps);
        MUST(dg_timesteps_select(steps, &o, t->rollout->T, &t->rollout->window,
                                 place));
        assert_memory_equal(u->steps + i * t->rollout->T, steps,
                            sizeof *steps * (size_t)num_steps);
    }
}

static void check_blocks(const char *const *sets)
{
    TinyRun t;

    tiny_open(&t, 1, sets);
    for (int64_t it = 0; it < 4; it++) {
        prepare(&t, it, (double)it);
        for (int64_t first = t.rollout->N; first >= 0; first--)
            check_block(&t, first, t.rollout->N - first);
        for (int64_t first = 0; first + 3 <= t.rollout->N; first++)
            check_block(&t, first, 3);
        check_block(&t, 0, t.rollout->N);
    }
    tiny_close(&t);
}

static void test_a_rank_has_its_items_kept_and_steps(void **state)
{
    static const char *const best[] = { "grpo.best_of_n=true",
                                        "grpo.keep_top=1", "grpo.keep_bottom=2",
                                        NULL };
    static const char *const steps[] = { "grpo.timestep_scope=group",
                                         "grpo.timestep_count=ceil_t", NULL };

    (void)state;
    check_blocks(best);
    check_blocks(steps);
}

/* A score that is missing leaves its reward's statistics; totals are weighted
 * sums, and who is kept follows from them. */
static void test_kept_are_the_ends_of_the_totals(void **state)
{
    static const char *const sets[] = { "grpo.best_of_n=true",
                                        "grpo.keep_top=2", "grpo.keep_bottom=1",
                                        "grpo.adv_std=global", NULL };
    float reward[64], advantage[64], total[32];
    uint8_t missing[64] = { 0 };
    double weights[2];
    RewardStats stats[2];
    int32_t kept[3];
    TinyRun t;

    (void)state;
    tiny_open(&t, 1, sets);
    prepare(&t, 0, 0);
    t.rollout->scores[11].missing = 1;
    MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    for (int64_t i = 0; i < t.rollout->N * 2; i++)
        reward[i] = t.rollout->scores[i].value;
    missing[11] = 1;
    for (int k = 0; k < 2; k++)
        weights[k] = t.config.rewards[k].weight;
    MUST(dg_advantage_compute(advantage, total, stats, reward, missing,
                              t.rollout->P,
                              &(AdvantageOpts) { .num_generations = 4,
                                                 .num_rewards = 2,
                                                 .std = DG_STD_GLOBAL,
                                                 .weights = weights }));
    assert_memory_equal(t.update->advantage, advantage,
                        sizeof(float) * (size_t)t.rollout->N * 2);
    assert_memory_equal(t.update->total, total,
                        sizeof(float) * (size_t)t.rollout->N);
    assert_true(t.update->stats[1].missing == 1 && advantage[11] == 0);
    for (int64_t p = 0; p < t.rollout->P; p++) {
        MUST(dg_best_of_n_select(kept, total + 4 * p, NULL, 4, 2, 1));
        for (int64_t i = 0; i < 3; i++)
            assert_int_equal(t.update->kept[3 * p + i], 4 * p + kept[i]);
    }
    tiny_close(&t);
}

/* The last windows of five steps are too small for half of them to be one: a
 * run that comes there is refused, and told when; a shorter one is not. */
static void check_windows(const char *every, int64_t good, const char *bad)
{
    const char *const sets[] = { "sampler.window_size=2", every,
                                 "grpo.timestep_fraction=0.5", NULL };
    TinyRun t;

    tiny_open(&t, 1, sets);
    t.config.run.iterations = good;
    MUST(dg_update_check_steps(&t.config, t.rollout));
    t.config.run.iterations = good + 1;
    assert_int_equal(dg_update_check_steps(&t.config, t.rollout), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, bad));
    t.config.run.iterations = 1000;
    assert_int_equal(dg_update_check_steps(&t.config, t.rollout), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, bad));
    t.config.sampler.window_start = 3; /* the first one already */
    t.config.run.iterations = 1;
    assert_int_equal(dg_update_check_steps(&t.config, t.rollout), DG_EINVAL);
    assert_null(strstr(dg_last_error()->text, "in iteration"));
    tiny_close(&t);
}

/* Of steps 0..4 the first pass' places 1 and 3 hold two, of those from 0 on the
 * last holds one, which is too few. */
static void check_later_pass(void)
{
    static const char *const sets[] = { "sampler.steps=6",
                                        "sampler.window_size=2",
                                        "sampler.window_every=4",
                                        "sampler.window_start=1",
                                        "sampler.window_stride=2",
                                        "sampler.window_decay=exp",
                                        "sampler.window_decay_from=0",
                                        "sampler.window_decay_rate=1",
                                        "grpo.timestep_fraction=0.5",
                                        NULL };
    TinyRun t;

    tiny_open(&t, 1, sets);
    t.config.run.iterations = 1000; /* 2 at 1, 1 at 3; 4 at 0, 1 at 2, 1 at 4 */
    assert_int_equal(dg_update_check_steps(&t.config, t.rollout), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "in iteration 9,"));
    t.config.run.iterations = 8;
    MUST(dg_update_check_steps(&t.config, t.rollout));
    t.config.sampler.window_wrap = 0;
    t.config.run.iterations = 1000;
    MUST(dg_update_check_steps(&t.config, t.rollout));
    tiny_close(&t);
}

/* A noise that float32 has not is none; the last step of cps has none by itself. */
static void test_steps_without_noise_are_refused(void **state)
{
    TinyRun t;

    (void)state;
    tiny_open(&t, 1, NULL);
    t.config.sampler.eta = 1e-50;
    assert_int_equal(dg_update_check_steps(&t.config, t.rollout), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "sampler.eta = 1e-50: step 0 has no noise"));
    t.config.sampler.eta = 1e-30;
    MUST(dg_update_check_steps(&t.config, t.rollout));
    t.config.sampler.sde = DG_SDE_CPS;
    MUST(dg_update_check_steps(&t.config, t.rollout));
    tiny_close(&t);
}

static void test_windows_that_come_are_looked_at(void **state)
{
    (void)state;
    check_windows("sampler.window_every=1", 3, "in iteration 4,");
    check_windows("sampler.window_every=2", 6, "in iteration 7,");
    check_later_pass();
}

/* What is reserved is what is told: of 12 items, 2 rewards, 5 steps. */
static void test_bytes_are_those_of_the_arrays(void **state)
{
    enum { N = 12, K = 2, T = 5 };
    const size_t want =
        N * (sizeof(int64_t) + sizeof(int32_t) + sizeof(int32_t)) +
        N * K * sizeof(float) + N * sizeof(float) + K * sizeof(RewardStats) +
        N * K * (sizeof(float) + 1) + N * T * sizeof(int32_t) +
        N * sizeof(int64_t) + N * T * sizeof(StepResult) + T * sizeof(double);
    Update counted;
    TinyRun t;

    (void)state;
    tiny_open(&t, 1, NULL);
    assert_int_equal(t.update->bytes, want);
    MUST(dg_update_outline(&counted, &t.config, t.rollout));
    assert_int_equal(counted.bytes, want);
    assert_null(counted.result);
    tiny_close(&t);
}

/* Samples that failed, their totals being 0, are not among the best, and no
 * sample with a score loses its place to one. */
static void test_without_a_score_none_is_chosen(void **state)
{
    static const char *const sets[] = { "grpo.best_of_n=true",
                                        "grpo.keep_top=2", "grpo.keep_bottom=0",
                                        NULL };
    const float value[4] = { 0, 9, 1, 2 }; /* 9: one that takes the mean up */
    TinyRun t;

    (void)state;
    tiny_open(&t, 1, sets);
    prepare(&t, 0, 0);
    const Rollout *r = t.rollout;
    const Update *u = t.update;
    for (int64_t i = 0; i < r->N; i++)
        for (int64_t k = 0; k < r->K; k++)
            r->scores[i * r->K + k] =
                (RewardScore) { value[i % 4], NAN, i % 4 == 0 };
    MUST(dg_update_prepare(t.update, &t.session, r));
    for (int64_t p = 0; p < r->P; p++) {
        assert_true(dg_update_unscored(u, r, 4 * p));
        assert_true(u->total[4 * p] == 0 && u->total[4 * p + 3] < 0);
        assert_int_equal(u->kept[2 * p], 4 * p + 1);
        assert_int_equal(u->kept[2 * p + 1], 4 * p + 3);
    }
    /* one score is not enough for two places: one stays empty */
    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i].missing = i / r->K % 4 != 2;
    MUST(dg_update_prepare(t.update, &t.session, r));
    for (int64_t p = 0; p < r->P; p++) {
        assert_int_equal(u->kept[2 * p], 4 * p);
        assert_int_equal(u->kept[2 * p + 1], 4 * p + 2);
    }
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_groups_stay_whole_where_they_can),
    cmocka_unit_test(test_a_rank_has_its_items_kept_and_steps),
    cmocka_unit_test(test_kept_are_the_ends_of_the_totals),
    cmocka_unit_test(test_windows_that_come_are_looked_at),
    cmocka_unit_test(test_steps_without_noise_are_refused),
    cmocka_unit_test(test_bytes_are_those_of_the_arrays),
    cmocka_unit_test(test_without_a_score_none_is_chosen),
};

TINY_MAIN(tests)
