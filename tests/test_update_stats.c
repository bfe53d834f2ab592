/* What metrics say of the updates after an iteration's first: of terms made by
 * hand, and of those of a run reckoned again from their ratios. */
#include "tiny_run.h"

#include "../src/train/update_stats.h"
#include "grpo/objective.h"

#include <math.h>

/* --- terms by hand --------------------------------------------------------- */

enum { ITEMS = 5, STEPS = 2 };

typedef struct ByHand {
    Update update;
    int32_t belongs[ITEMS], set_aside[ITEMS];
    StepResult result[ITEMS * STEPS];
} ByHand;

/* Items 0 and 3 are of the first update, 1 and 4 of the second, 2 of the third;
 * a term's ratio is e^x. */
static void make_terms(ByHand *h, const double *x)
{
    static const int32_t belongs[ITEMS] = { 0, 1, 2, 0, 1 };

    memset(h, 0, sizeof *h);
    memcpy(h->belongs, belongs, sizeof belongs);
    for (int i = 0; i < ITEMS * STEPS; i++)
        h->result[i] =
            (StepResult) { .ratio = exp(x[i]),
                           .approx_kl = dg_objective_approx_kl(x[i]) };
    h->update = (Update) { .num_parts = 3,
                           .epochs = 1,
                           .num_updates = 3,
                           .steps_per_item = STEPS,
                           .num_kept = ITEMS,
                           .belongs = h->belongs,
                           .set_aside = h->set_aside,
                           .result = h->result };
}

static UpdateStats stats_of(const ByHand *h)
{
    UpdateStats s;

    dg_update_stats_begin(&s);
    for (int i = 0; i < h->update.num_updates; i++)
        dg_update_stats_add(&s, &h->update, i);
    dg_update_stats_end(&s);
    return s;
}

static const double moved[ITEMS * STEPS] = { 0,    0, -0.5, 0.25, 0.125,
                                             -1.5, 0, 0,    1,    -0.75 };

/* The closed form of each, over the six terms of the second and the third. */
static void test_later_updates_by_their_closed_form(void **state)
{
    const double want =
        (exp(-0.5) - 0.5 + exp(0.25) - 1.25 + exp(0.125) - 1.125 + exp(-1.5) +
         0.5 + exp(1) - 2 + exp(-0.75) - 0.25) /
        6;
    ByHand h;
    UpdateStats s;

    (void)state;
    make_terms(&h, moved);
    h.result[2].clipped = 1; /* e^-0.5 */
    h.result[5].clipped = 1; /* e^-1.5 */
    h.result[8].clipped = 1; /* e */
    s = stats_of(&h);
    assert_true(fabs(s.approx_kl / want - 1) < 1e-14);
    assert_true(s.ratio_min == exp(-1.5) && s.ratio_max == exp(1));
    assert_true(fabs(s.clip_low - 2 / 10.0) < 1e-15);
    assert_true(fabs(s.clip_high - 1 / 10.0) < 1e-15);
    assert_true(fabs(s.clip_fraction - 3 / 10.0) < 1e-15);
    assert_true(s.ratio_max_deviation == 0);
}

/* Two passes of the same terms: the first update's count in the second, and parts
 * and means are of all. */
static void test_passes_are_told_together(void **state)
{
    ByHand h;
    UpdateStats one, two;

    (void)state;
    make_terms(&h, moved);
    for (int i = 0; i < ITEMS * STEPS; i++)
        h.result[i].loss = h.result[i].kl = 1 + 0.125 * i;
    h.result[2].clipped = h.result[8].clipped = 1;
    one = stats_of(&h);
    h.update.epochs = 2;
    h.update.num_updates = 6;
    two = stats_of(&h);
    assert_int_equal(one.later_terms, 6);
    assert_int_equal(two.later_terms, 16);
    assert_true(fabs(two.approx_kl / one.approx_kl - 12 / 16.0) < 1e-14);
    assert_true(fabs(two.clip_fraction - one.clip_fraction) < 1e-15);
    assert_true(fabs(two.clip_low - one.clip_low) < 1e-15);
    assert_true(fabs(two.loss / one.loss - 1) < 1e-14);
    assert_true(fabs(two.kl / one.kl - 1) < 1e-14);
    assert_true(two.ratio_max_deviation == 0);
}

/* A sample that was set aside has no ratio, whatever is written there. */
static void test_samples_set_aside_have_no_part(void **state)
{
    const double want = (exp(0.125) - 1.125 + exp(-1.5) + 0.5) / 2;
    ByHand h;
    UpdateStats s;

    (void)state;
    make_terms(&h, moved);
    h.set_aside[1] = DG_ASIDE_FAILED;
    h.set_aside[4] = DG_ASIDE_NO_SCORE;
    h.result[2].ratio = h.result[3].ratio = NAN;
    h.result[2].approx_kl = NAN;
    s = stats_of(&h);
    assert_true(fabs(s.approx_kl / want - 1) < 1e-14);
    assert_true(s.ratio_min == exp(-1.5) && s.ratio_max == exp(0.125));
    h.set_aside[2] = DG_ASIDE_FAILED; /* now none is left */
    s = stats_of(&h);
    assert_true(isnan(s.approx_kl) && isnan(s.ratio_min) && isnan(s.ratio_max));
    assert_int_equal(s.set_aside, 3);
    assert_true(s.ratio_max_deviation == 0);
    h.set_aside[0] = h.set_aside[3] = DG_ASIDE_NO_SCORE; /* nor of the first */
    s = stats_of(&h);
    assert_true(isnan(s.ratio_max_deviation));
}

/* --- terms of a run -------------------------------------------------------- */

/* A rollout with two updates whose terms the narrow clip acts on. */
static UpdateStats run(TinyRun *t, const char *more, float lr)
{
    const char *const sets[] = { "grpo.clip_range=1e-5",
                                 "policy.draw_all=false", more, NULL };
    UpdateStats stats;

    tiny_open(t, 2, sets);
    t->learner->optim.lr *= (double)lr;
    tiny_experience(t, 0);
    for (int64_t i = 0; i < t->rollout->N * t->rollout->K; i++)
        t->rollout->scores[i] =
            (RewardScore) { (float)sin(1.7 * (double)(i * i + 1)), NAN, 0 };
    MUST(dg_update_prepare(t->update, &t->session, t->rollout));
    MUST(tiny_update(t, 0, &stats));
    return stats;
}

/* By long doubles from the log-densities: the replay's, and the rollout's. */
static void check_run(const TinyRun *t, const UpdateStats *s)
{
    const Update *u = t->update;
    const Rollout *r = t->rollout;
    long double kl = 0, low = 0, high = 0;
    double least = INFINITY, most = 0;
    int64_t terms = 0;

    for (int64_t i = 0; i < u->num_kept * u->steps_per_item; i++) {
        const StepResult *res = &u->result[i];
        const int64_t item = u->kept[i / u->steps_per_item];
        const long double x = (long double)res->log_prob -
                              (long double)r->log_prob[item * r->T + res->step];

        if (u->belongs[i / u->steps_per_item] == 0)
            continue;
        terms++;
        kl += expm1l(x) - x;
        least = fmin(least, (double)expl(x));
        most = fmax(most, (double)expl(x));
        low += res->clipped && x < 0;
        high += res->clipped && x > 0;
    }
    assert_true(terms > 0 && kl > 0 && low > 0 && high > 0);
    /* long double keeps 64 bits: x > 1e-7 leaves 2^-64 / 1e-7 = 5e-13 of it */
    assert_true(fabsl(s->approx_kl / (kl / (long double)terms) - 1) < 1e-11L);
    assert_true(fabs(s->ratio_min - least) < 1e-15);
    assert_true(fabs(s->ratio_max - most) < 1e-15);
    assert_true(s->ratio_min < 1 && s->ratio_max > 1);
    terms = u->num_kept * u->steps_per_item; /* the clip's are of all */
    assert_true(fabsl(s->clip_low - low / (long double)terms) < 1e-12L);
    assert_true(fabsl(s->clip_high - high / (long double)terms) < 1e-12L);
    assert_true(fabs(s->clip_low + s->clip_high - s->clip_fraction) < 1e-12);
}

static void test_of_a_run_they_are_those_of_the_terms(void **state)
{
    TinyRun t;
    UpdateStats s = run(&t, NULL, 1);

    (void)state;
    check_run(&t, &s);
    tiny_close(&t);
    s = run(&t, NULL, 0.03f); /* hardly moves */
    check_run(&t, &s);
    assert_true(s.approx_kl < 1e-6);
    tiny_close(&t);
}

/* Of a side's own key, and of grpo.clip_range where it has none. */
static void test_sides_of_the_clip(void **state)
{
    TinyRun t;
    const UpdateStats both = run(&t, NULL, 1);
    UpdateStats s;

    (void)state;
    tiny_close(&t);
    s = run(&t, "grpo.clip_range_low=1", 1);
    assert_true(s.clip_low == 0 && s.clip_high == both.clip_high);
    tiny_close(&t);
    s = run(&t, "grpo.clip_range_high=1e3", 1);
    assert_true(s.clip_high == 0 && s.clip_low == both.clip_low);
    tiny_close(&t);
    s = run(&t, "grpo.clip_range_high=1e-5", 1);
    assert_true(s.clip_high == both.clip_high && s.loss == both.loss);
    tiny_close(&t);
}

/* There is nothing to tell of where the rollout's policy is never left. */
static void test_one_update_has_none(void **state)
{
    TinyRun t;
    const UpdateStats s = run(&t, "grpo.updates_per_iteration=1", 1);

    (void)state;
    assert_true(isnan(s.approx_kl) && isnan(s.ratio_min) && isnan(s.ratio_max));
    assert_true(s.clip_low == 0 && s.clip_high == 0);
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_later_updates_by_their_closed_form),
    cmocka_unit_test(test_passes_are_told_together),
    cmocka_unit_test(test_samples_set_aside_have_no_part),
    cmocka_unit_test(test_of_a_run_they_are_those_of_the_terms),
    cmocka_unit_test(test_sides_of_the_clip),
    cmocka_unit_test(test_one_update_has_none),
};

TINY_MAIN(tests)
