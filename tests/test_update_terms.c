/* What a term of an update counts, and of which ratio it is, in a run: the
 * objective has its formulas in test_objective.c. */
#include "update_bed.h"

#include <math.h>

/* What a network answers at a step of an item, to u [D]. */
static void answer(TinyRun *t, const Policy *p, float *u, int64_t item,
                   int step)
{
    Context *ctx = &t->team->workers[0].ctx;
    const Rollout *r = t->rollout;
    const float *z = dg_rollout_latent(r, item, step);
    const float *condition = dg_rollout_condition(r, t->policy, item);
    const PolicyBatch b = {
        .num = 1, .z = &z, .time = &r->time[step], .condition = &condition
    };
    const Tensor *out;

    dg_context_reset(ctx);
    out = dg_policy_predict(p, ctx, &b);
    assert_non_null(out);
    memcpy(u, dg_tensor_f32(out), sizeof *u * (size_t)r->D);
}

/* A term of 12 whose rollout answered old; room: [2, D]. */
static void check_guarded(TinyRun *t, const StepResult *res, int64_t item,
                          const float *old, float *room)
{
    const SdeStep *s = &t->rollout->steps[res->step];
    const float *z = dg_rollout_latent(t->rollout, item, res->step);
    const int64_t D = t->rollout->D;
    float *u = room, *u_ref = room + D;
    double want;

    answer(t, t->policy, u, item, res->step);
    answer(t, t->reference, u_ref, item, res->step);
    want = dg_sde_log_prob(s, z, u, z + D, D);
    assert_true(want == res->log_prob);
    want -= t->rollout->log_prob[item * t->rollout->T + res->step];
    want += dg_sde_kl(s, u, old, D);
    want *= s->std;
    assert_true(fabs(want) > 3e-5);
    assert_true(fabs(log(res->ratio) - want) < 1e-7);
    assert_true(res->kl == dg_sde_kl(s, u, u_ref, D) && res->kl > 0);
    want =
        t->config.grpo.kl_beta * res->kl - res->ratio * t->update->total[item];
    assert_true(fabs(12 * res->loss - want) < 1e-12);
}

/* Of the second update, which is not applied since one of its samples fails:
 * the first one's weights stay, by which its ratios can be computed, and how far
 * the mean is from the reference's. */
static void test_guard_knows_where_the_rollout_was(void **state)
{
    enum { ITEM = 5 };
    static const char *const sets[] = { "grpo.prompts_per_iteration=2",
                                        "grpo.timestep_fraction=1",
                                        "sampler.steps=4",
                                        "grpo.clip_range=1",
                                        "grpo.ratio=guard",
                                        "grpo.kl_beta=0.3",
                                        NULL };
    float *u, *old;
    UpdateStats stats;
    TinyRun t;

    (void)state;
    open_update(&t, 2, sets);
    MUST(dg_policy_reference(&t.reference, t.policy, &t.config));
    t.reference->net.values[100] *= 1.5f;
    u = malloc(sizeof *u * (size_t)(t.rollout->D * 5));
    old = u + 2 * t.rollout->D;
    for (int i = 0; i < 3; i++)
        answer(&t, t.policy, old + i * t.rollout->D, ITEM, i);
    dg_rollout_latent(t.rollout, 7, 1)[0] = NAN;
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(t.learner->updates, 1);
    assert_true(stats.ratio_max_deviation == 0);
    for (int64_t k = ITEM * 3; k < ITEM * 3 + 3; k++) {
        const StepResult *res = &t.update->result[k];

        check_guarded(&t, res, ITEM, old + res->step * t.rollout->D, u);
    }
    t.config.sampler.sde = DG_SDE_CPS;
    t.config.sampler.cps_gaussian = 0;
    assert_int_equal(dg_config_check(&t.config), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "sampler.cps_gaussian"));
    free(u);
    tiny_close(&t);
}

/* A second pass over the same samples and steps begins with the weights that the
 * first left, whose ratios to the rollout's are not 1. */
static void test_second_pass_goes_on_from_the_first(void **state)
{
    static const char *const one[] = { "grpo.updates_per_iteration=1",
                                       "sampler.steps=4", NULL };
    static const char *const two[] = { "grpo.updates_per_iteration=1",
                                       "sampler.steps=4", "grpo.epochs=2",
                                       NULL };
    UpdateStats first, both;
    double loss = 0;
    TinyRun t, u;
    float *answered;

    (void)state;
    open_update(&t, 2, one);
    open_update(&u, 2, two);
    MUST(tiny_update(&t, 0, &first));
    MUST(tiny_update(&u, 0, &both));
    assert_int_equal(u.learner->updates, 2);
    assert_true(both.ratio_max_deviation == 0 && both.approx_kl > 0);
    assert_int_equal(both.later_terms,
                     u.update->num_kept * u.update->steps_per_item);
    answered = malloc(sizeof *answered * (size_t)t.rollout->D);
    for (int64_t i = 0; i < both.later_terms; i++) {
        const StepResult *res = &u.update->result[i];
        const int64_t item = u.update->kept[i / u.update->steps_per_item];
        const int64_t at = item * u.rollout->T + res->step;
        const float *z = dg_rollout_latent(t.rollout, item, res->step);
        const int64_t D = t.rollout->D;

        assert_int_equal(res->step, t.update->result[i].step);
        answer(&t, t.policy, answered, item, res->step);
        assert_true(res->log_prob ==
                    dg_sde_log_prob(&t.rollout->steps[res->step], z, answered,
                                    z + D, D));
        assert_true(res->ratio == exp((double)res->log_prob -
                                      (double)u.rollout->log_prob[at]));
        assert_true(res->ratio != 1);
        loss += res->loss;
    }
    assert_true(fabs(2 * both.loss - first.loss - loss) < 1e-12);
    u.config.grpo.ratio = DG_RATIO_GUARD;
    assert_int_equal(dg_update_guard_rows(&u.config),
                     1 + u.config.grpo.micro_batch);
    u.config.grpo.epochs = 1;
    assert_int_equal(dg_update_guard_rows(&u.config), 0);
    free(answered);
    tiny_close(&u);
    tiny_close(&t);
}

/* What fails in a pass is tried again in the next, and counted in each. */
static void test_each_pass_sets_aside_anew(void **state)
{
    static const char *const sets[] = { "grpo.epochs=3", NULL };
    UpdateStats stats;
    TinyRun t;

    (void)state;
    open_update(&t, 2, sets);
    for (int64_t k = 0; k < t.update->num_kept; k++)
        t.update->set_aside[k] = DG_ASIDE_FAILED;
    for (int i = 0; i < 4; i++) /* whichever steps it is trained on */
        dg_rollout_latent(t.rollout, 1, i)[0] = NAN;
    MUST(tiny_update(&t, 0, &stats));
    assert_non_null(strstr(t.update->note, ", update 2, "));
    assert_int_equal(stats.skipped_updates, 3);
    assert_int_equal(stats.set_aside, 3);
    assert_int_equal(t.learner->updates, 3);
    tiny_close(&t);
}

/* Each step's advantages count by the width of its noise. */
static void test_steps_count_by_their_noise(void **state)
{
    static const char *const sets[] = {
        "grpo.updates_per_iteration=1", "sampler.steps=4",
        "grpo.timestep_fraction=1",     "grpo.timestep_weight=std",
        "sampler.sde=flow_sde",         NULL
    };
    double weight[4], least = 9, most = 0;
    UpdateStats stats;
    TinyRun t;

    (void)state;
    open_update(&t, 2, sets);
    dg_timesteps_weigh(weight, DG_WEIGHT_STD, t.rollout->steps, 4,
                       &t.rollout->window);
    MUST(tiny_update(&t, 0, &stats));
    for (int64_t i = 0; i < t.update->num_kept * 3; i++) {
        const StepResult *r = &t.update->result[i];
        const double w = weight[r->step];

        assert_true(fabs(r->loss * (double)(t.update->num_kept * 3) +
                         w * t.update->total[t.update->kept[i / 3]]) < 1e-6);
        least = w < least ? w : least;
        most = w > most ? w : most;
    }
    assert_true(most > 1.2 * least);
    tiny_close(&t);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_guard_knows_where_the_rollout_was),
    cmocka_unit_test(test_second_pass_goes_on_from_the_first),
    cmocka_unit_test(test_each_pass_sets_aside_anew),
    cmocka_unit_test(test_steps_count_by_their_noise),
};

TINY_MAIN(tests)
