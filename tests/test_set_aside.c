/* Samples that give no gradient, and advantages that are held back: what
 * remains of an update is that of the others. */
#include "tiny_run.h"

#include <math.h>

static void open_run(TinyRun *t, const char *const *sets)
{
    const Rollout *r;

    tiny_open(t, 2, sets);
    tiny_experience(t, 0);
    r = t->rollout;
    for (int64_t i = 0; i < r->N * r->K; i++)
        r->scores[i] =
            (RewardScore) { (float)sin(1.7 * (double)(i * i + 1)), NAN, 0 };
}

static void prepare(TinyRun *t)
{
    MUST(dg_update_prepare(t->update, &t->session, t->rollout));
}

/* Of all items, none left out, so that an item is kept under its number. */
static void spoil(const TinyRun *t, int64_t item)
{
    const int step = t->update->steps[item * t->rollout->T];

    dg_rollout_latent(t->rollout, item, step)[0] = NAN;
}

/* An item's steps, all or none of which were replayed. */
static void assert_replayed(const TinyRun *t, int64_t k, int yes)
{
    const Update *u = t->update;

    for (int j = 0; j < u->steps_per_item; j++) {
        const StepResult *s = &u->result[k * u->steps_per_item + j];

        assert_int_equal(s->step, u->steps[k * t->rollout->T + j]);
        assert_true(yes ? s->ratio == 1 : isnan(s->ratio));
        assert_true(isnan(s->log_prob) == !yes);
        assert_true(yes || (s->loss == 0 && !s->seeded));
    }
}

static void read_sum(float *out, const TinyRun *t)
{
    const ExactSum own = dg_team_own(t->team);

    dg_exact_read(&own, out, 1);
}

/* One score of two is missing: the sample is trained by the other. Both: it is
 * left out, the others are as before, and the update is applied. */
static void test_a_sample_without_any_score_is_left_out(void **state)
{
    static const char *const sets[] = { "grpo.updates_per_iteration=1", NULL };
    TinyRun t;
    UpdateStats stats;

    (void)state;
    open_run(&t, sets);
    t.rollout->scores[2 * 5 + 0].missing = 1;
    t.rollout->scores[2 * 7 + 0].missing = 1;
    t.rollout->scores[2 * 7 + 1].missing = 1;
    prepare(&t);
    assert_true(t.update->total[5] != 0 && t.update->total[7] == 0);
    /* nobody looks at it */
    spoil(&t, 7);
    MUST(tiny_update(&t, 0, &stats));
    for (int64_t k = 0; k < t.update->num_kept; k++) {
        assert_replayed(&t, k, k != 7);
        assert_int_equal(t.update->set_aside[k],
                         k == 7 ? DG_ASIDE_NO_SCORE : DG_ASIDE_NOT);
    }
    assert_int_equal(stats.set_aside, 1);
    assert_int_equal(stats.skipped_updates, 0);
    assert_true(t.update->note[0] == '\0');
    assert_int_equal(t.learner->updates, 1);
    tiny_close(&t);
}

/* With the rewards summed, a sample that lacks one is left out, and never among
 * the best or the worst. */
static void test_a_sample_without_a_sum_is_left_out(void **state)
{
    static const char *const sets[] = {
        "grpo.updates_per_iteration=1", "grpo.adv_agg=reward_sum",
        "grpo.best_of_n=true",          "grpo.keep_top=2",
        "grpo.keep_bottom=1",           NULL
    };
    TinyRun t;
    UpdateStats stats;
    int64_t lacking[2] = { 5, 8 };

    (void)state;
    open_run(&t, sets);
    for (int i = 0; i < 2; i++)
        t.rollout->scores[2 * lacking[i] + i].missing = 1;
    prepare(&t);
    assert_true(t.update->total[5] == 0 && t.update->total[8] == 0);
    for (int64_t k = 0; k < t.update->num_kept; k++)
        for (int i = 0; i < 2; i++)
            assert_true(t.update->kept[k] != lacking[i]);
    /* not needed if it is only watched */
    t.config.rewards[0].weight = 0;
    prepare(&t);
    for (int i = 0; i < 2; i++)
        assert_int_equal(dg_update_unscored(t.update, t.rollout, lacking[i]),
                         i == 1);
    t.config.rewards[0].weight = 1;
    /* of the first group all but one lack one: three are kept all the same */
    for (int64_t i = 0; i < 3; i++)
        t.rollout->scores[2 * i].missing = 1;
    prepare(&t);
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(stats.set_aside, 2);
    for (int64_t k = 0; k < t.update->num_kept; k++) {
        const int none = t.update->kept[k] < 3;

        assert_replayed(&t, k, !none);
        assert_int_equal(t.update->set_aside[k],
                         none ? DG_ASIDE_NO_SCORE : DG_ASIDE_NOT);
    }
    tiny_close(&t);
}

/* Its place in the divisor it keeps: the sum is that of the others' terms as
 * they were with it at advantage 0. */
static void test_a_sample_left_out_keeps_its_place(void **state)
{
    static const char *const sets[] = { "grpo.updates_per_iteration=1", NULL };
    TinyRun t;
    UpdateStats stats;
    float *want, *got;

    (void)state;
    open_run(&t, sets);
    want = malloc(sizeof *want * (size_t)t.learner->num);
    got = malloc(sizeof *got * (size_t)t.learner->num);
    prepare(&t);
    t.update->total[7] = 0;
    MUST(tiny_update(&t, 1, &stats));
    read_sum(want, &t);
    t.update->missing[2 * 7] = t.update->missing[2 * 7 + 1] = 1;
    MUST(tiny_update(&t, 1, &stats));
    read_sum(got, &t);
    assert_memory_equal(want, got, sizeof *want * (size_t)t.learner->num);
    free(want);
    free(got);
    tiny_close(&t);
}

/* One of two updates is not applied, the other one is, whichever comes first;
 * and the iteration after it begins anew. */
static void check_skipped(int update)
{
    TinyRun t;
    UpdateStats stats;
    char text[32];
    int64_t item = 0;

    open_run(&t, NULL);
    prepare(&t);
    while (t.update->belongs[item] != update)
        item++;
    spoil(&t, item);
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(stats.skipped_updates, 1);
    assert_int_equal(stats.set_aside, 1);
    assert_int_equal(t.learner->updates, 1);
    assert_int_equal(t.update->note_item, item);
    snprintf(text, sizeof text, "iteration 1, update %d, ", update + 1);
    assert_memory_equal(t.update->note, text, strlen(text));
    for (int64_t k = 0; k < t.update->num_kept; k++)
        assert_int_equal(t.update->set_aside[k],
                         k == item ? DG_ASIDE_FAILED : DG_ASIDE_NOT);
    tiny_experience(&t, 1);
    prepare(&t);
    MUST(tiny_update(&t, 0, &stats));
    assert_true(stats.skipped_updates == 0 && stats.set_aside == 0);
    assert_true(t.update->note[0] == '\0');
    assert_int_equal(t.update->note_item, t.rollout->N);
    assert_int_equal(t.learner->updates, 3);
    tiny_close(&t);
}

static void test_one_update_is_skipped_alone(void **state)
{
    (void)state;
    check_skipped(0);
    check_skipped(1);
}

/* The lowest of several is told, whichever thread was first. */
static void test_the_lowest_is_told(void **state)
{
    static const char *const sets[] = { "grpo.updates_per_iteration=1", NULL };
    TinyRun t;
    UpdateStats stats;

    (void)state;
    open_run(&t, sets);
    prepare(&t);
    for (int64_t item = 3; item < t.rollout->N; item++)
        spoil(&t, item);
    for (int again = 0; again < 3; again++) {
        MUST(tiny_update(&t, 0, &stats));
        assert_int_equal(t.update->note_item, 3);
        assert_non_null(strstr(t.update->note, "sample 3, rank 0"));
        assert_int_equal(stats.set_aside, t.rollout->N - 3);
        assert_int_equal(stats.skipped_updates, 1);
    }
    tiny_close(&t);
}

/* Advantages are held to the configuration's limit, by reward or in sum; at a
 * ratio of 1 a loss is minus what remains. */
static void check_limit(const char *agg, int per_reward)
{
    const char *const sets[] = { agg, "grpo.advantage_clip=0.4",
                                 "grpo.updates_per_iteration=1", NULL };
    TinyRun t;
    UpdateStats stats;
    const Update *u;

    open_run(&t, sets);
    prepare(&t);
    MUST(tiny_update(&t, 1, &stats));
    u = t.update;
    for (int64_t k = 0; k < u->num_kept; k++) {
        double sum = per_reward ? 0 : fmax(-0.4, fmin(0.4, u->total[k]));

        for (int i = 0; i < 2 && per_reward; i++)
            sum += t.config.rewards[i].weight *
                   fmax(-0.4, fmin(0.4, u->advantage[2 * k + i]));
        for (int j = 0; j < u->steps_per_item; j++)
            assert_true(fabs(u->result[k * u->steps_per_item + j].loss *
                                 (double)(u->num_kept * u->steps_per_item) +
                             sum) < 1e-6);
    }
    tiny_close(&t);
}

static void test_advantages_are_held_to_their_limit(void **state)
{
    (void)state;
    check_limit("grpo.adv_agg=sum", 0);
    check_limit("grpo.adv_agg=per_reward", 1);
    check_limit("grpo.adv_agg=reward_sum", 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_a_sample_without_any_score_is_left_out),
    cmocka_unit_test(test_a_sample_without_a_sum_is_left_out),
    cmocka_unit_test(test_a_sample_left_out_keeps_its_place),
    cmocka_unit_test(test_one_update_is_skipped_alone),
    cmocka_unit_test(test_the_lowest_is_told),
    cmocka_unit_test(test_advantages_are_held_to_their_limit),
};

TINY_MAIN(tests)
