/* What a report says of a run: each question's answers, from the numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../src/report/health.h"

#include <math.h>
#include <string.h>

enum { N = 40 };

static double column[NUM_COLUMNS][N];
static Run run;
static Health h;

static void fill(Column c, double from, double to)
{
    for (int i = 0; i < N; i++)
        column[c][i] = from + (to - from) * i / (N - 1);
}

/* Nothing is wrong with it: 4 prompts of 8 samples, two rewards. */
static void right_run(void)
{
    memset(&run, 0, sizeof run);
    run.n = N;
    run.tuned = run.config_known = 1;
    run.num_rewards = 2;
    dg_config_defaults(&run.config);
    run.config.run.iterations = N;
    run.config.grpo.prompts_per_iteration = 4;
    run.config.grpo.updates_per_iteration = 2;
    for (int c = 0; c < NUM_COLUMNS; c++) {
        run.col[c] = column[c];
        fill((Column)c, 0, 0);
    }
    fill(COL_ITERATION, 1, N);
    fill(COL_REWARD, 0.5, 0.8);
    fill(COL_STRICT, 0.4, 0.7);
    fill(COL_SPREAD, 0.1, 0.1);
    fill(COL_CLIP, 0.3, 0.3);
    fill(COL_RATIO_MIN, 0.999, 0.999);
    fill(COL_RATIO_MAX, 1.001, 1.001);
    fill(COL_DIVERSITY, 0.1, 0.1);
    fill(COL_GRAD, 1, 1);
    fill(COL_SAMPLES, 32, 32);
    fill(COL_PEAK, 100, 100);
    fill(COL_PLAN, 100, 100);
}

static void says(Level level, const char *question, const char *text)
{
    dg_health_find(&h, &run);
    for (int i = 0; i < h.num; i++) {
        const Finding *f = &h.finding[i];

        if (strncmp(f->question, question, strlen(question)) != 0)
            continue;
        if (f->level != level || strstr(f->answer, text) == NULL)
            fail_msg("%s level %d, wanted %d: %s", f->question, f->level, level,
                     f->answer);
        assert_true((f->advice[0] == '\0') == (level == LEVEL_GOOD) ||
                    level == LEVEL_UNKNOWN);
        return;
    }
    fail_msg("nobody asked: %s", question);
}

static void test_a_right_run_has_nothing_to_tell(void **state)
{
    (void)state;
    right_run();
    dg_health_find(&h, &run);
    assert_int_equal(h.count[LEVEL_WRONG] + h.count[LEVEL_LOOK], 0);
    assert_string_equal(dg_health_verdict(&h), "No problem was found.");
    column[COL_PEAK][7] = 101;
    says(LEVEL_LOOK, "Is memory as planned", "No: ");
    assert_non_null(strstr(dg_health_verdict(&h), "what to look at"));
    column[COL_GRAD][N - 1] = INFINITY;
    fill(COL_CLIP, 1, 1);
    dg_health_find(&h, &run);
    assert_non_null(strstr(dg_health_verdict(&h), "Something is wrong"));
    run.n = 7;
    fill(COL_CLIP, 0, 0);
    fill(COL_PEAK, 0, 0);
    run.config.run.iterations = 7;
    dg_health_find(&h, &run);
    assert_non_null(strstr(dg_health_verdict(&h), "too early"));
}

static void test_the_worst_ratio_is_named(void **state)
{
    RatioFinding r;

    (void)state;
    right_run();
    column[COL_RATIO][3] = 1e-7;
    column[COL_RATIO][9] = -2e-3;
    column[COL_RATIO][20] = 1e-4;
    column[COL_RATIO][21] = NAN;
    r = dg_health_ratio(&run);
    assert_true(r.measured == N - 1 && r.first_bad == 4);
    assert_true(r.worst == 2e-3 && r.worst_iteration == 10);
    says(LEVEL_WRONG, "Is the ratio exactly 1",
         "first differed in iteration 4;");
    assert_non_null(strstr(h.finding[0].answer, "in iteration 10."));
    fill(COL_RATIO, 0, 0);
    column[COL_RATIO][3] = NAN; /* all was set aside there */
    says(LEVEL_GOOD, "Is the ratio exactly 1",
         "of the 39 iterations that trained a sample");
    fill(COL_RATIO, NAN, NAN);
    says(LEVEL_UNKNOWN, "Is the ratio exactly 1", "No iteration");
}

/* A p of 0.03, Kendall's S of 10 values with 10 pairs in the wrong order, is no
 * trend. */
static void test_directions_are_told_beyond_noise(void **state)
{
    static const double some[10] = { 1, 5, 2, 7, 3, 4, 9, 6, 8, 7.5 };

    (void)state;
    right_run();
    run.n = 10;
    memcpy(column[COL_REWARD], some, sizeof some);
    says(LEVEL_LOOK, "Does the reward rise", "Not beyond its noise");
    right_run();
    fill(COL_REWARD, 0.8, 0.5);
    says(LEVEL_WRONG, "Does the reward rise", "the wrong way");
    assert_non_null(strstr(h.finding[1].advice, "before the fall"));
    right_run();
    run.tuned = 0;
    fill(COL_LOSS, 1, 0.5);
    says(LEVEL_GOOD, "Does the loss fall", "Yes: ");
    fill(COL_LOSS, 0.5, 1);
    says(LEVEL_WRONG, "Does the loss fall", "the wrong way");
}

/* Of 8 groups, 4 prompts' by two rewards, in the last quarter. */
static void test_groups_are_counted_of_all_rewards(void **state)
{
    (void)state;
    right_run();
    fill(COL_ZERO, 4, 4);
    says(LEVEL_GOOD, "Do the groups teach", "Yes: 50");
    fill(COL_ZERO, 6, 6);
    says(LEVEL_LOOK, "Do the groups teach", "Only in part: 75");
    fill(COL_ZERO, 8, 8);
    says(LEVEL_WRONG, "Do the groups teach", "Hardly: 100");
    for (int i = 0; i < 30; i++)
        column[COL_ZERO][i] = 0;
    says(LEVEL_WRONG, "Do the groups teach", "in the last quarter");
    for (int i = 31; i < N; i++)
        column[COL_ZERO][i] = NAN; /* the mean is of those there are */
    says(LEVEL_WRONG, "Do the groups teach", "Hardly: 100");
    /* a group without two scores has no gradient either */
    fill(COL_ZERO, 2, 2);
    fill(COL_SKIPPED, 6, 6);
    says(LEVEL_WRONG, "Do the groups teach",
         "equal rewards, or fewer than two, and so no gradient");
    says(LEVEL_WRONG, "Do the groups teach", "Hardly: 100");
    run.config_known = 0;
    says(LEVEL_UNKNOWN, "Do the groups teach", "not known without config.cfg");
}

static void test_clipping_has_three_levels(void **state)
{
    (void)state;
    right_run();
    fill(COL_CLIP, 0.89, 0.89);
    says(LEVEL_GOOD, "Is the clipping in range", "Yes: 89");
    fill(COL_CLIP, 0.95, 0.95);
    says(LEVEL_LOOK, "Is the clipping in range", "No: 95");
    fill(COL_CLIP, 0.99, 0.99);
    says(LEVEL_WRONG, "Is the clipping in range", "No: 99");
    fill(COL_CLIP, 0, 0);
    says(LEVEL_GOOD, "Is the clipping in range", "in spite of several updates");
    run.config.grpo.updates_per_iteration = 1;
    says(LEVEL_GOOD, "Is the clipping in range", "none ever is");
}

static void test_gradients_that_grow_or_stop_are_told(void **state)
{
    (void)state;
    right_run();
    for (int i = 30; i < N; i++)
        column[COL_GRAD][i] = 2.9;
    says(LEVEL_GOOD, "Is the gradient calm", "Yes: ");
    for (int i = 30; i < N; i++)
        column[COL_GRAD][i] = 4;
    says(LEVEL_LOOK, "Is the gradient calm", "Not quite: ");
    for (int i = 30; i < N; i++)
        column[COL_GRAD][i] = 11;
    says(LEVEL_WRONG, "Is the gradient calm", "explodes");
    fill(COL_GRAD, 1, 1);
    column[COL_GRAD][12] = 31;
    says(LEVEL_LOOK, "Is the gradient calm", "largest 31.0 in iteration 13.");
    column[COL_GRAD][12] = 29;
    says(LEVEL_GOOD, "Is the gradient calm", "in iteration 13.");
    fill(COL_GRAD, 0, 0);
    says(LEVEL_WRONG, "Is the gradient calm", "0 in every iteration");
    for (int i = 25; i < N; i++) /* what it begins with is no explosion */
        column[COL_GRAD][i] = 1;
    says(LEVEL_LOOK, "Is the gradient calm", "median 0 in the first half");
    fill(COL_GRAD, NAN, NAN);
    says(LEVEL_UNKNOWN, "Is the gradient calm", "No gradient norm");
}

/* 40 iterations of 32 samples and two rewards: 2560 scores. */
static void test_scores_that_are_missing_are_counted(void **state)
{
    (void)state;
    right_run();
    says(LEVEL_GOOD, "Are all scores there", "all 2\u202f560");
    column[COL_MISSING][5] = 128;
    column[COL_MISSING][6] = NAN;
    says(LEVEL_LOOK, "Are all scores there", "No: 128 are missing, 5");
    column[COL_MISSING][6] = 2;
    says(LEVEL_WRONG, "Are all scores there", "No: 130 are missing");
    /* 96 of 1280: a small part of all, but not of that reward's */
    column[COL_MISSING][5] = 98;
    strcpy(run.reward_name[1], "face");
    run.missing[0] = 4;
    run.missing[1] = 96;
    says(LEVEL_WRONG, "Are all scores there",
         "No: 100 are missing, 7.5\u202f% of those of face (above 5");
    run.missing[0] = 36;
    run.missing[1] = 64;
    says(LEVEL_LOOK, "Are all scores there", "5\u202f% of those of face");
    strcpy(run.reward_name[0], "face");
    run.num_rewards = 1;
    says(LEVEL_WRONG, "Are all scores there", "7.8\u202f% of all");
    /* what a reward says that it has not is none that fails; all of it is */
    run.missing[0] = 100;
    run.declined[0] = 36;
    says(LEVEL_LOOK, "Are all scores there",
         "7.8\u202f% of all; 36 because the reward says that it has none");
    run.declined[0] = 35;
    says(LEVEL_WRONG, "Are all scores there", "; 35 because");
    column[COL_MISSING][5] = 1278;
    run.missing[0] = run.declined[0] = 1280;
    says(LEVEL_WRONG, "Are all scores there", "100\u202f% of all; 1");
}

static void test_what_is_not_finite_is_found(void **state)
{
    (void)state;
    right_run();
    column[COL_SKIPPED_UPDATES][5] = 1;
    column[COL_SET_ASIDE][8] = 3;
    says(LEVEL_LOOK, "Are all numbers finite",
         "3 samples set aside and 1 updates skipped, first in iteration 6.");
    column[COL_SKIPPED_UPDATES][5] = 0;
    says(LEVEL_LOOK, "Are all numbers finite",
         "3 samples were set aside that no reward has scored, first in "
         "iteration 9.");
}

static void test_groups_that_become_alike_are_told(void **state)
{
    (void)state;
    right_run();
    fill(COL_SPREAD, 1, 0.2);
    says(LEVEL_GOOD, "Do the samples of a group", "Yes: ");
    fill(COL_SPREAD, 1, 0.01);
    says(LEVEL_LOOK, "Do the samples of a group", "Hardly: ");
}

/* By the strict score of the training pictures, and of held-out ones. */
static void test_a_hacked_reward_is_told(void **state)
{
    (void)state;
    right_run();
    fill(COL_STRICT, 0.5, 0.5);
    says(LEVEL_LOOK, "Is the reward hacked", "Perhaps");
    fill(COL_STRICT, 0.7, 0.4);
    says(LEVEL_WRONG, "Is the reward hacked", "It looks so");
    fill(COL_REWARD, 0.5, 0.5);
    says(LEVEL_GOOD, "Is the reward hacked", "the reward did not rise");
    fill(COL_STRICT, NAN, NAN);
    says(LEVEL_UNKNOWN, "Is the reward hacked", "No reward here");
}

/* In few iterations it may rise plainly, and not yet as surely as a trend. */
static void test_a_strict_score_that_seems_to_rise_does_not_stand_still(
    void **state)
{
    (void)state;
    right_run();
    run.n = 12;
    for (int i = 0; i < run.n; i++) /* three fours, each falling: p = 0.047 */
        column[COL_STRICT][i] = 0.1 + 0.01 * (4 * (i / 4) + 3 - i % 4);
    says(LEVEL_GOOD, "Is the reward hacked", "along with the reward");
    for (int i = 0; i < run.n; i++) /* as it falls, it is not hacked for sure */
        column[COL_STRICT][i] = 0.4 - 0.01 * (4 * (i / 4) + 3 - i % 4);
    says(LEVEL_LOOK, "Is the reward hacked", "did not clearly rise");
}

static void evaluated(double reward, double strict)
{
    EvalRow *a = &run.before.all, *b = &run.after.all;

    run.before.present = run.after.present = 1;
    a->reward = (Span) { 0.5, 0.48, 0.52 };
    a->strict = (Span) { 0.5, 0.4, 0.6 };
    b->reward = (Span) { 0.5 + reward, 0.48 + reward, 0.52 + reward };
    b->strict = (Span) { 0.5 + strict, 0.4 + strict, 0.6 + strict };
    /* the verdicts are by what is trained, here the only reward */
    run.before.sum = a->reward;
    run.after.sum = b->reward;
}

static void test_held_out_prompts_decide(void **state)
{
    static const char hacked[] = "Is the reward hacked",
                      better[] = "Is it better on held-out";

    (void)state;
    right_run();
    evaluated(0.2, 0.3);
    says(LEVEL_GOOD, hacked, "No sign of it: on held-out");
    says(LEVEL_GOOD, better, "Yes: the strict score");
    evaluated(0.2, -0.1);
    says(LEVEL_LOOK, hacked, "Perhaps");
    says(LEVEL_LOOK, better, "Not certainly");
    evaluated(0.2, -0.3);
    says(LEVEL_WRONG, hacked, "It looks so");
    says(LEVEL_WRONG, better, "No, worse");
    evaluated(-0.2, -0.3); /* no better by either: not hacked */
    says(LEVEL_GOOD, hacked, "No sign of it");
    evaluated(0.2, NAN);
    says(LEVEL_GOOD, better, "Yes: the reward went from 0.500 to 0.700");
    says(LEVEL_GOOD, hacked, "No sign of it: the strict score of the training");
}

static void test_a_record_may_be_cut_or_mixed(void **state)
{
    (void)state;
    right_run();
    says(LEVEL_GOOD, "Is the record whole", "Yes: iteration 40 of 40");
    run.config.run.iterations = N + 1;
    says(LEVEL_UNKNOWN, "Is the record whole", "Not yet finished");
    run.disorder = 1;
    says(LEVEL_LOOK, "Is the record whole", "missing or twice");
    run.disorder = 0;
    run.torn = 1;
    says(LEVEL_LOOK, "Is the record whole", "the line after it");
    run.torn = 0;
    run.tuned = 0;
    run.config.pretrain.steps = N;
    fill(COL_LOSS, 1, 0.5);
    says(LEVEL_GOOD, "Is the record whole", "of 40 is the last");
}

static void test_the_worst_stands_first(void **state)
{
    int order[DG_FINDINGS], last = LEVEL_WRONG;

    (void)state;
    right_run();
    fill(COL_CLIP, 0.99, 0.99);
    fill(COL_SPREAD, 1, 0.01);
    fill(COL_STRICT, NAN, NAN);
    dg_health_find(&h, &run);
    dg_health_order(order, &h);
    for (int i = 0; i < h.num; i++) {
        /* good ones before what is not known */
        const int level = h.finding[order[i]].level;
        const int rank = level == LEVEL_UNKNOWN ? -1 : level;

        assert_true(rank <= last);
        last = rank;
    }
    assert_int_equal(h.finding[order[0]].level, LEVEL_WRONG);
    assert_int_equal(last, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_right_run_has_nothing_to_tell),
        cmocka_unit_test(test_the_worst_ratio_is_named),
        cmocka_unit_test(test_directions_are_told_beyond_noise),
        cmocka_unit_test(test_groups_are_counted_of_all_rewards),
        cmocka_unit_test(test_clipping_has_three_levels),
        cmocka_unit_test(test_gradients_that_grow_or_stop_are_told),
        cmocka_unit_test(test_scores_that_are_missing_are_counted),
        cmocka_unit_test(test_what_is_not_finite_is_found),
        cmocka_unit_test(test_groups_that_become_alike_are_told),
        cmocka_unit_test(test_a_hacked_reward_is_told),
        cmocka_unit_test(
            test_a_strict_score_that_seems_to_rise_does_not_stand_still),
        cmocka_unit_test(test_held_out_prompts_decide),
        cmocka_unit_test(test_a_record_may_be_cut_or_mixed),
        cmocka_unit_test(test_the_worst_stands_first),
    };

    return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
