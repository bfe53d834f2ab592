/* The gradient of an iteration, through network, SDE step, ratio, clip and KL:
 * against finite differences of its own loss, and exactly zero where the
 * objective is flat. */
#include "update_bed.h"

#include "optim/ema.h"
#include "optim/grad_norm.h"

#include <math.h>

/* every how manieth parameter has its gradient checked: sanitizers are slow */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY = 6 };
#else
enum { EVERY = 1 };
#endif

/* One update of all steps, whose clip does not act. */
#define ONE_UPDATE                                       \
    "grpo.updates_per_iteration=1", "grpo.clip_range=1", \
        "grpo.timestep_fraction=1", "sampler.steps=4"

static const char *const one_update[] = { ONE_UPDATE,
                                          "grpo.prompts_per_iteration=2",
                                          NULL };

/* Sum of the terms of the last dg_update_run(). */
static double loss_of(const TinyRun *t)
{
    const Update *u = t->update;
    double loss = 0;

    for (int64_t i = 0; i < u->num_kept * u->steps_per_item; i++)
        loss += u->result[i].loss;
    return loss;
}

/* The loss at weights + step * direction; old log-probs stay. */
static double loss_at(TinyRun *t, const float *origin, const float *direction,
                      double step)
{
    UpdateStats stats;
    int err;

    for (int64_t i = 0; i < t->policy->net.count; i++)
        t->policy->values[i] =
            (float)((double)origin[i] + step * (double)direction[i]);
    err = tiny_update(t, 1, &stats);
    /* away from the origin the ratio is not 1, which is told and no matter */
    assert_true(err == DG_OK || err == DG_EPROMISE);
    return loss_of(t);
}

/* The weights as they are now, to free. */
static float *kept_values(const TinyRun *t)
{
    const size_t bytes = sizeof(float) * (size_t)t->policy->num_values;
    float *kept = malloc(bytes);

    assert_non_null(kept);
    return memcpy(kept, t->policy->values, bytes);
}

/* Still those; kept is freed. */
static void assert_values_are(const TinyRun *t, float *kept)
{
    assert_memory_equal(kept, t->policy->values,
                        sizeof *kept * (size_t)t->policy->num_values);
    free(kept);
}

/* A reference whose weights are the policy's times factor. */
static void open_reference(TinyRun *t, float factor)
{
    MUST(dg_policy_reference(&t->reference, t->policy, &t->config));
    for (int64_t i = 0; i < t->reference->net.count; i++)
        t->reference->net.values[i] *= factor;
}

/* Every log-density of the rollout moves by this, or back where the
 * advantage is negative. */
static void move_log_probs(TinyRun *t, float by)
{
    const Rollout *r = t->rollout;

    for (int64_t i = 0; i < r->N; i++)
        for (int j = 0; j < r->T; j++)
            r->log_prob[i * r->T + j] += t->update->total[i] > 0 ? by : -by;
}

static void assert_clipped(const TinyRun *t, int clipped)
{
    const Update *u = t->update;

    for (int64_t k = 0; k < u->num_kept * u->steps_per_item; k++)
        assert_int_equal(u->result[k].clipped, clipped);
}

/* (L(h) - L(-h)) / 2h against g.d, for d = the gradient itself within one
 * parameter: no other direction there has a larger derivative. Steps have
 * norm reach. L is a mean over 12 terms or more of A exp(log_prob - old), each
 * log_prob of at most 1 rounded to float: noise 2^-24 / sqrt(12) = 1.7e-8.
 * With |g| = 2e-6 / reach that is 0.4 % of 2 reach |g|; 1 % is allowed, flatter
 * parameters are left out. */
static void check_gradient(TinyRun *t, double reach)
{
    const ParamSet *net = &t->policy->net;
    const size_t bytes = sizeof(float) * (size_t)net->count;
    float *origin = malloc(bytes), *direction = malloc(bytes);
    UpdateStats stats;
    int checked = 0;

    memcpy(origin, t->policy->values, bytes);
    MUST(tiny_update(t, 1, &stats));
    assert_true(stats.ratio_max_deviation == 0);
    for (int k = 0; k < net->num_params; k += EVERY) {
        const Tensor *v = &net->params[k]->value;
        const int64_t from = v->param_offset, num = dg_tensor_count(v);
        double square = 0, slope, h;

        memset(direction, 0, bytes);
        for (int64_t i = from; i < from + num; i++) {
            direction[i] = t->learner->grads[i];
            square += (double)direction[i] * (double)direction[i];
        }
        if (sqrt(square) < 2e-6 / reach)
            continue;
        h = reach / sqrt(square);
        slope = (loss_at(t, origin, direction, h) -
                 loss_at(t, origin, direction, -h)) /
                (2 * h);
        if (fabs(slope / square - 1) > 1e-2)
            fail_msg("%s: difference %g, gradient %g", net->params[k]->name,
                     slope, square);
        memcpy(t->policy->values, origin, bytes);
        MUST(tiny_update(t, 1, &stats)); /* the gradient again */
        checked++;
    }
    assert_true(checked > net->num_params / (2 * EVERY));
    free(origin);
    free(direction);
}

static void test_gradient_is_that_of_the_loss(void **state)
{
    TinyRun t;

    (void)state;
    open_update(&t, 1, one_update);
    check_gradient(&t, 0.005);
    tiny_close(&t);
}

static void test_gradient_of_kl_is_that_of_the_loss(void **state)
{
    static const char *const sets[] = { ONE_UPDATE, "grpo.kl_beta=0.3",
                                        "grpo.adv_agg=per_reward",
                                        "grpo.prompts_per_iteration=1", NULL };
    TinyRun t;

    (void)state;
    open_update(&t, 1, sets);
    open_reference(&t, 0.95f);
    check_gradient(&t, 0.005);
    tiny_close(&t);
}

/* Noise prediction, both branches of the guidance, and the KL to a guided
 * reference. Guidance multiplies what a step does: it is a shorter one. */
static void test_gradient_of_guided_is_that_of_the_loss(void **state)
{
    static const char *const sets[] = { ONE_UPDATE,
                                        "policy.prediction=epsilon",
                                        "sampler.sde=ddim",
                                        "sampler.eta=1",
                                        "cfg.scale=2.5",
                                        "grpo.kl_beta=0.01",
                                        "grpo.prompts_per_iteration=1",
                                        NULL };
    TinyRun t;

    (void)state;
    open_update(&t, 1, sets);
    open_reference(&t, 0.99f);
    check_gradient(&t, 0.002);
    tiny_close(&t);
}

static void test_gradient_through_data_is_that_of_the_loss(void **state)
{
    static const char *const sets[] = { ONE_UPDATE, "policy.prediction=data",
                                        "grpo.prompts_per_iteration=2", NULL };
    TinyRun t;

    (void)state;
    open_update(&t, 1, sets);
    check_gradient(&t, 0.005);
    tiny_close(&t);
}

static int all_zero(const TinyRun *t)
{
    float *grads = t->learner->grads;

    dg_exact_read(&t->team->workers[0].sum, grads, 1);
    for (int64_t i = 0; i < t->learner->num; i++)
        if (grads[i] != 0)
            return 0;
    return 1;
}

/* Old log-probs are moved so that each ratio lies e, or 1/e, beyond the clip
 * on the side where it acts. */
static void test_clipped_terms_give_exactly_nothing(void **state)
{
    TinyRun t;
    UpdateStats stats;

    (void)state;
    open_update(&t, 2, one_update);
    t.config.grpo.clip_range = 1e-3;
    MUST(tiny_update(&t, 1, &stats));
    assert_false(all_zero(&t));
    move_log_probs(&t, -1);
    assert_int_equal(tiny_update(&t, 1, &stats), DG_EPROMISE);
    assert_true(all_zero(&t));
    assert_clipped(&t, 1);
    tiny_close(&t);
}

/* On the other side the clip does not act. */
static void test_unclipped_side_still_learns(void **state)
{
    TinyRun t;
    UpdateStats stats;

    (void)state;
    open_update(&t, 2, one_update);
    t.config.grpo.clip_range = 1e-3;
    move_log_probs(&t, 1);
    assert_int_equal(tiny_update(&t, 1, &stats), DG_EPROMISE);
    assert_false(all_zero(&t));
    assert_clipped(&t, 0);
    tiny_close(&t);
}

static void test_equal_rewards_leave_the_weights(void **state)
{
    TinyRun t;
    UpdateStats stats;
    float *before;

    (void)state;
    tiny_open(&t, 2, NULL);
    t.learner->optim.weight_decay = 0;
    before = kept_values(&t);
    tiny_experience(&t, 0);
    for (int64_t i = 0; i < t.rollout->N * t.rollout->K; i++)
        t.rollout->scores[i] = (RewardScore) { 0.625f, NAN, 0 };
    MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    MUST(tiny_update(&t, 0, &stats));
    assert_true(all_zero(&t));
    assert_true(stats.grad_norm == 0 && stats.lr > 0);
    assert_values_are(&t, before);
    tiny_close(&t);
}

/* Names where the old log-prob is wrong, and leaves the weights alone. */
static void test_broken_ratio_stops_and_names(void **state)
{
    TinyRun t;
    UpdateStats stats;
    char text[64];
    float *before;
    int step;

    (void)state;
    open_update(&t, 2, one_update);
    before = kept_values(&t);
    step = t.update->steps[5 * t.rollout->T + 1];
    t.rollout->log_prob[5 * t.rollout->T + step] =
        nextafterf(t.rollout->log_prob[5 * t.rollout->T + step], 2);
    assert_int_equal(tiny_update(&t, 0, &stats), DG_EPROMISE);
    snprintf(text, sizeof text, "sample 1, timestep %d: ratio 0.99999999",
             step);
    assert_non_null(strstr(dg_last_error()->text, text));
    assert_values_are(&t, before);
    tiny_close(&t);
}

/* A sample whose gradient is not finite: its update is not applied. */
static void test_not_finite_is_not_applied(void **state)
{
    TinyRun t;
    UpdateStats stats;
    float *before;

    (void)state;
    open_update(&t, 2, one_update);
    before = kept_values(&t);
    for (int64_t i = 0; i < t.rollout->D; i++)
        dg_rollout_latent(t.rollout, 3, 1)[i] = NAN;
    MUST(tiny_update(&t, 0, &stats));
    assert_int_equal(stats.set_aside, 1);
    assert_int_equal(stats.skipped_updates, 1);
    assert_int_equal(t.update->note_item, 3);
    assert_non_null(strstr(t.update->note, "sample 3, rank 0: layer "));
    assert_int_equal(t.learner->updates, 0);
    assert_values_are(&t, before);
    tiny_close(&t);
}

/* Terms of an update, and the sums of what is told of all updates' terms. */
typedef struct Told {
    double clipped, loss, kl;
} Told;

/* At a ratio of 1 a loss is minus the weighted advantages, which in sum are
 * the total, and the divergence. */
static void check_first_losses(const TinyRun *t, double beta)
{
    const Update *u = t->update;
    int64_t items = 0;

    for (int64_t k = 0; k < u->num_kept; k++)
        items += u->belongs[k] == 0;
    for (int64_t i = 0; i < u->num_kept * u->steps_per_item; i++) {
        const int64_t k = i / u->steps_per_item;
        const double want = beta * u->result[i].kl - u->total[u->kept[k]];
        const double terms = (double)(items * u->steps_per_item);

        if (u->belongs[k] == 0)
            assert_true(fabs(u->result[i].loss * terms - want) < 1e-6);
    }
}

static Told told_of(const Update *u)
{
    const int64_t num = u->num_kept * u->steps_per_item;
    Told sum = { 0 };

    for (int64_t i = 0; i < num; i++) {
        sum.clipped += u->result[i].clipped / (double)num;
        sum.loss += u->result[i].loss / u->num_updates;
        sum.kl += u->result[i].kl / (double)num;
    }
    return sum;
}

static double norm_of_gradient(const TinyRun *t)
{
    const int64_t num = t->learner->num;
    double *scratch =
        malloc(sizeof *scratch * (size_t)dg_grad_norm_num_chunks(num));
    double norm;

    assert_non_null(scratch);
    norm = dg_grad_norm(t->learner->grads, num, scratch);
    free(scratch);
    return norm;
}

/* The larger of two updates' norms, of which the first, alone, moves nothing.
 * turned: the updates change places. */
static void check_what_is_told(int turned, double *first, double *second)
{
    static const char *const sets[] = { "grpo.kl_beta=0.3",
                                        "grpo.adv_agg=per_reward",
                                        "grpo.clip_range=1e-5",
                                        "policy.draw_all=false", NULL };
    TinyRun t;
    UpdateStats stats;
    Told want;

    open_update(&t, 2, sets);
    open_reference(&t, 0.95f);
    for (int64_t k = 0; k < t.update->num_kept; k++)
        t.update->belongs[k] ^= turned;
    t.update->num_updates = 1;
    MUST(tiny_update(&t, 1, &stats));
    *first = norm_of_gradient(&t);
    t.update->num_updates = 2;
    MUST(tiny_update(&t, 0, &stats));
    *second = norm_of_gradient(&t);
    check_first_losses(&t, 0.3);
    want = told_of(t.update);
    assert_true(want.clipped > 0 && want.clipped < 0.5 && want.kl > 0);
    assert_true(fabs(stats.clip_fraction - want.clipped) < 1e-12);
    assert_true(fabs(stats.loss - want.loss) < 1e-12);
    assert_true(fabs(stats.kl / want.kl - 1) < 1e-12);
    assert_true(stats.grad_norm == fmax(*first, *second));
    assert_int_equal(t.learner->updates, 2);
    tiny_close(&t);
}

/* What metrics say of two updates is what their terms say. */
static void test_what_is_told_is_that_of_the_terms(void **state)
{
    double first[2], second[2];

    (void)state;
    for (int turned = 0; turned < 2; turned++)
        check_what_is_told(turned, &first[turned], &second[turned]);
    /* either may be the larger one */
    assert_true((first[0] > second[0]) != (first[1] > second[1]));
}

/* The learner follows its schedule: of 100 updates the first two rise, the
 * others fall to nothing. */
static void test_rate_follows_the_schedule(void **state)
{
    static const char *const sets[] = { "optim.schedule=linear",
                                        "optim.warmup=3", NULL };
    TinyRun t;
    UpdateStats stats;

    (void)state;
    open_update(&t, 2, sets);
    MUST(tiny_update(&t, 0, &stats));
    assert_true(fabs(stats.lr / (1e-3 * 2 / 3) - 1) < 1e-12);
    t.learner->updates = 50;
    t.update->num_updates = 1;
    for (int64_t k = 0; k < t.update->num_kept; k++) /* none is replayed */
        t.update->belongs[k] = 1;
    MUST(tiny_update(&t, 0, &stats));
    assert_true(fabs(stats.lr / (1e-3 * (1 - 48.0 / 97)) - 1) < 1e-12);
    tiny_close(&t);
}

/* AdamW's state of a learner of no ranges, beside it. */
typedef struct AdamwBeside {
    float *w, *m, *v, *ema;
    size_t bytes;
} AdamwBeside;

static AdamwBeside open_beside(const TinyRun *t)
{
    const size_t num = (size_t)t->learner->num;
    AdamwBeside x = { .w = malloc(num * sizeof(float)),
                      .m = calloc(num, sizeof(float)),
                      .v = calloc(num, sizeof(float)),
                      .ema = malloc(num * sizeof(float)),
                      .bytes = num * sizeof(float) };

    memcpy(x.w, t->policy->values, x.bytes);
    memcpy(x.ema, x.w, x.bytes);
    return x;
}

static void close_beside(AdamwBeside *x)
{
    free(x->w);
    free(x->m);
    free(x->v);
    free(x->ema);
}

/* Update n from the gradient that the learner had: clipped by its norm. */
static void follow(AdamwBeside *x, const TinyRun *t, int n)
{
    const OptimConfig *c = &t->config.optim;
    const AdamwOpts o = { c->beta1, c->beta2, c->eps, c->weight_decay };
    const double norm = norm_of_gradient(t);
    double scale;
    AdamwStep step;

    assert_true(norm > c->max_grad_norm);
    MUST(dg_grad_norm_scale(&scale, norm, c->max_grad_norm));
    MUST(dg_adamw_step_init(&step, &o, c->lr, n, scale));
    dg_adamw_update(x->w, x->m, x->v, t->learner->grads, t->learner->num,
                    &step);
    dg_ema_update(x->ema, x->w, t->learner->num,
                  c->ema_ramp ? fmin(c->ema_decay, (1.0 + n) / (10.0 + n))
                              : c->ema_decay);
}

/* Every constant of the configuration in its place, bit for bit, update after
 * update; the average takes its part of each. */
static void check_updates(const char *ramp)
{
    const char *const sets[] = { ONE_UPDATE,
                                 ramp,
                                 "optim.beta1=0.8",
                                 "optim.beta2=0.95",
                                 "optim.eps=1e-4",
                                 "optim.lr=2e-3",
                                 "optim.weight_decay=0.1",
                                 "optim.ema_decay=0.7",
                                 "optim.max_grad_norm=1e-3",
                                 NULL };
    TinyRun t;
    UpdateStats stats;
    AdamwBeside x;
    float *ema;

    open_update(&t, 2, sets);
    x = open_beside(&t);
    ema = malloc(x.bytes);
    for (int n = 1; n <= 3; n++) {
        MUST(tiny_update(&t, 0, &stats));
        MUST(dg_learner_average(t.learner));
        follow(&x, &t, n);
        assert_memory_equal(t.policy->values, x.w, x.bytes);
        MUST(dg_learner_get(t.learner, DG_STATE_EMA, ema, 0, t.learner->num));
        assert_memory_equal(ema, x.ema, x.bytes);
        tiny_experience(&t, n);
        give_scores(&t);
        MUST(dg_update_prepare(t.update, &t.session, t.rollout));
    }
    MUST(dg_learner_swap_ema(t.learner)); /* for pictures, and back */
    assert_memory_equal(t.policy->values, x.ema, x.bytes);
    MUST(dg_learner_swap_ema(t.learner));
    assert_memory_equal(t.policy->values, x.w, x.bytes);
    free(ema);
    close_beside(&x);
    tiny_close(&t);
}

static void test_updates_are_adamw_of_the_clipped_gradient(void **state)
{
    (void)state;
    check_updates("optim.ema_ramp=false");
    check_updates("optim.ema_ramp=true");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gradient_is_that_of_the_loss),
    cmocka_unit_test(test_gradient_of_kl_is_that_of_the_loss),
    cmocka_unit_test(test_gradient_through_data_is_that_of_the_loss),
    cmocka_unit_test(test_gradient_of_guided_is_that_of_the_loss),
    cmocka_unit_test(test_clipped_terms_give_exactly_nothing),
    cmocka_unit_test(test_unclipped_side_still_learns),
    cmocka_unit_test(test_equal_rewards_leave_the_weights),
    cmocka_unit_test(test_broken_ratio_stops_and_names),
    cmocka_unit_test(test_not_finite_is_not_applied),
    cmocka_unit_test(test_rate_follows_the_schedule),
    cmocka_unit_test(test_updates_are_adamw_of_the_clipped_gradient),
    cmocka_unit_test(test_what_is_told_is_that_of_the_terms),
};

TINY_MAIN(tests)
