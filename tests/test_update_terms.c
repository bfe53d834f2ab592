/* What a term of an update counts, and of which ratio it is, in a run: the
 * objective has its formulas in test_objective.c. */
#include "update_bed.h"

#include <math.h>

/* What the network answers at a step of an item, to u [D]. */
static void answer(TinyRun *t, float *u, int64_t item, int step)
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
    out = dg_policy_predict(t->policy, ctx, &b);
    assert_non_null(out);
    memcpy(u, dg_tensor_f32(out), sizeof *u * (size_t)r->D);
}

/* Of the second update, which is not applied since one of its samples fails:
 * the first one's weights stay, by which its ratios can be computed. */
static void test_guard_knows_where_the_rollout_was(void **state)
{
    enum { ITEM = 5 };
    static const char *const sets[] = { "grpo.prompts_per_iteration=2",
                                        "grpo.timestep_fraction=1",
                                        "sampler.steps=4",
                                        "grpo.clip_range=1",
                                        "grpo.ratio=guard",
                                        NULL };
    float *u, *old;
    UpdateStats stats;
    TinyRun t;

    (void)state;
    open_update(&t, 2, sets);
    u = malloc(sizeof *u * (size_t)(t.rollout->D * 4));
    old = u + t.rollout->D;
    for (int i = 0; i < 3; i++)
        answer(&t, old + i * t.rollout->D, ITEM, i);
    dg_rollout_latent(t.rollout, 7, 1)[0] = NAN;
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(t.learner->updates, 1);
    assert_true(stats.ratio_max_deviation == 0);
    for (int64_t k = ITEM * 3; k < ITEM * 3 + 3; k++) {
        const StepResult *res = &t.update->result[k];
        const SdeStep *s = &t.rollout->steps[res->step];
        const float *z = dg_rollout_latent(t.rollout, ITEM, res->step);
        const int64_t D = t.rollout->D;
        double want;

        answer(&t, u, ITEM, res->step);
        want = dg_sde_log_prob(s, z, u, z + D, D);
        assert_true(want == res->log_prob);
        want -= t.rollout->log_prob[ITEM * t.rollout->T + res->step];
        want += dg_sde_kl(s, u, old + res->step * D, D);
        want *= s->std;
        assert_true(fabs(want) > 3e-5);
        assert_true(fabs(log(res->ratio) - want) < 1e-7);
    }
    t.config.grpo.kl_beta = 0.1;
    assert_int_equal(dg_config_check(&t.config), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text,
                           "grpo.kl_beta = 0.1: must be 0 with grpo.ratio"));
    t.config.grpo.kl_beta = 0;
    t.config.sampler.sde = DG_SDE_CPS;
    t.config.sampler.cps_gaussian = 0;
    assert_int_equal(dg_config_check(&t.config), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "sampler.cps_gaussian"));
    free(u);
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
    cmocka_unit_test(test_steps_count_by_their_noise),
};

TINY_MAIN(tests)
