/* The whole algorithm on the Gaussian testbed: the policy's only weights are
 * the D means theta it believes the data to have, its velocity is exact for
 * N(theta, sd^2), and d u / d theta = -1 - k (1 - sigma). The reward is
 * -mean (x0 - a)^2. Rollout, advantages, choice of steps, replay, clipped
 * objective, AdamW: everything but networks and ranks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "gaussian_bed.h"
#include "grpo/advantage.h"
#include "grpo/objective.h"
#include "grpo/timesteps.h"
#include "optim/adamw.h"
#include "optim/grad_norm.h"

enum { D = 8, T = 8, G = 12, PROMPTS = 2, N = G * PROMPTS, UPDATES = 2 };

typedef struct Bed {
    SdeOpts sde;
    AdvantageAgg agg;
    double kl_beta;
    double weight_decay;
    int constant_reward;
    int poison; /* sample whose reward is NaN, or -1 */
} Bed;

typedef struct Learner {
    float theta[D], m[D], v[D];
    int64_t updates;
    double max_ratio_deviation; /* over the first updates of iterations */
    double late_deviation;      /* over the others */
} Learner;

typedef struct Rollout {
    float z[T + 1][D], x0[D], log_prob[T];
} Rollout;

static const double sd = 0.5, target = 1.5;
static Rollout rollouts[N];

static void predict(float *u, const float *z, const float *theta,
                    const SdeStep *s)
{
    for (int d = 0; d < D; d++)
        bed_velocity(u + d, z + d, 1, s->sigma, theta[d], sd);
}

static void roll_out(Rollout *r, const float *theta, const SdeStep *steps,
                     uint32_t iteration, int sample)
{
    RngKey key = { .seed = 1,
                   .purpose = DG_RNG_INIT_LATENTS,
                   .iteration = iteration,
                   .prompt = (uint32_t)(sample / G) };
    float u[D], noise[D];

    dg_rng_normal(r->z[0], 0, D, &key); /* shared by the group */
    key.purpose = DG_RNG_SDE_NOISE;
    key.sample = (uint32_t)(sample % G);
    for (int i = 0; i < T; i++) {
        key.step = (uint32_t)i;
        dg_rng_normal(noise, 0, D, &key);
        predict(u, r->z[i], theta, &steps[i]);
        dg_sde_next(r->z[i + 1], &steps[i], r->z[i], u, noise, D);
        r->log_prob[i] = dg_sde_log_prob(&steps[i], r->z[i], u, r->z[i + 1], D);
        dg_sde_x0(r->x0, &steps[i], r->z[i], u, D);
    }
}

static double score(const Rollout *r)
{
    double sum = 0;

    for (int d = 0; d < D; d++)
        sum -= (r->x0[d] - target) * (r->x0[d] - target) / D;
    return sum;
}

/* d loss / d theta of one (sample, step), added to grad. */
static double add_term(double *grad, const Learner *w, const Bed *b,
                       const Rollout *r, const SdeStep *s,
                       const ObjectiveInput *advantages)
{
    static const double weights[] = { 1, 0 };
    static const float theta_ref[D] = { 0 };
    const ObjectiveOpts o = { .clip = { 0.01, 0.01 },
                              .advantage_clip = 5,
                              .agg = b->agg,
                              .kl_beta = b->kl_beta,
                              .num_rewards = 1,
                              .weights = weights };
    const int i = s->index;
    float u[D], ref[D], seed[D];
    ObjectiveInput in = *advantages;
    ObjectiveTerm t;

    predict(u, r->z[i], w->theta, s);
    predict(ref, r->z[i], theta_ref, s);
    in.log_prob = dg_sde_log_prob(s, r->z[i], u, r->z[i + 1], D);
    in.log_prob_old = r->log_prob[i];
    in.kl = dg_sde_kl(s, u, ref, D);
    in.D = D;
    assert_int_equal(dg_objective_term(&t, &o, s, &in), 0);

    const ObjectiveTensors x = { r->z[i], u, r->z[i + 1], ref, NULL };
    const double slope = -1 - bed_slope(s->sigma, sd) * (1 - (double)s->sigma);

    dg_objective_seed(seed, &t, s, &x, D);
    for (int d = 0; d < D; d++)
        grad[d] += slope * seed[d];
    return fabs(t.ratio - 1);
}

static void update(Learner *w, const Bed *b, const SdeStep *steps,
                   const float *total, uint32_t iteration, int which)
{
    const TimestepOpts choose = { .fraction = 0.6, .seed = 1 };
    const AdamwOpts adamw = { 0.9, 0.999, 1e-8, b->weight_decay };
    const SdeWindow window = { 0, T };
    double grad[D] = { 0 }, worst = 0, scratch[1], scale;
    float as_float[D];
    int count;
    AdamwStep step;

    assert_int_equal(dg_timesteps_count(&count, &choose, T, &window), 0);
    for (int n = which; n < N; n += UPDATES) {
        const TimestepPlace place = { iteration, (uint32_t)(n / G),
                                      (uint32_t)(n % G) };
        const ObjectiveInput in = { .total = total[n],
                                    .advantage = &total[n],
                                    .divisor = (double)N / UPDATES * count };
        int32_t chosen[T];

        dg_timesteps_select(chosen, &choose, T, &window, place);
        for (int k = 0; k < count; k++)
            worst = fmax(worst, add_term(grad, w, b, &rollouts[n],
                                         &steps[chosen[k]], &in));
    }
    if (which == 0)
        w->max_ratio_deviation = fmax(w->max_ratio_deviation, worst);
    else
        w->late_deviation = fmax(w->late_deviation, worst);
    for (int d = 0; d < D; d++)
        as_float[d] = (float)grad[d];
    assert_int_equal(
        dg_grad_norm_scale(&scale, dg_grad_norm(as_float, D, scratch), 1), 0);
    dg_adamw_step_init(&step, &adamw, 0.02, ++w->updates, scale);
    dg_adamw_update(w->theta, w->m, w->v, as_float, D, &step);
}

/* Runs iterations; mean reward of the first and of the last. */
static void train(Learner *w, const Bed *b, int iterations, double *first,
                  double *last)
{
    const double weight = 1;
    const AdvantageOpts o = { .num_generations = G,
                              .num_rewards = 1,
                              .weights = &weight };
    float reward[N], advantage[N], total[N];
    SdeStep steps[T];
    Schedule s;

    assert_int_equal(dg_schedule_init_flow(&s, T, 1), 0);
    for (int i = 0; i < T; i++)
        assert_int_equal(dg_sde_step_init(&steps[i], &b->sde, &s, i), 0);
    for (int it = 0; it < iterations; it++) {
        double mean = 0;

        for (int n = 0; n < N; n++) {
            roll_out(&rollouts[n], w->theta, steps, (uint32_t)it, n);
            reward[n] = b->constant_reward ? 0.3f : (float)score(&rollouts[n]);
            mean += score(&rollouts[n]) / N;
            if (n == b->poison)
                reward[n] = NAN;
        }
        *(it == 0 ? first : last) = mean;
        dg_advantage_compute(advantage, total, NULL, reward, NULL, PROMPTS, &o);
        for (int k = 0; k < UPDATES; k++)
            update(w, b, steps, total, (uint32_t)it, k);
    }
    dg_schedule_fini(&s);
}

static Bed usual(void)
{
    return (Bed) { .sde = { .kind = DG_SDE_DANCE, .eta = 0.5 }, .poison = -1 };
}

static void test_grpo_inv23_reward_rises_for_every_sde(void **state)
{
    static const SdeOpts kinds[] = {
        { DG_SDE_DANCE, DG_LOG_PROB_GAUSSIAN, 0.5 },
        { DG_SDE_FLOW_SDE, DG_LOG_PROB_GAUSSIAN, 0.7 },
        { DG_SDE_CPS, DG_LOG_PROB_GAUSSIAN, 0.7 },
        { DG_SDE_CPS, DG_LOG_PROB_SQUARED, 0.7 },
    };

    (void)state;
    for (int k = 0; k < 4; k++) {
        Bed b = usual();
        Learner w = { .updates = 0 };
        double first = 0, last = 0, far = 0;

        b.sde = kinds[k];
        b.agg = k % 2 ? DG_AGG_PER_REWARD : DG_AGG_SUM;
        train(&w, &b, 120, &first, &last);
        /* from -(1.5^2 + spread) most of the way to -spread */
        assert_true(first < -2 && last > -0.6);
        for (int d = 0; d < D; d++)
            far = fmax(far, fabs(w.theta[d] - target));
        assert_true(far < 0.6);
    }
}

static void test_grpo_inv09_first_ratio_is_one_bitwise(void **state)
{
    const Bed b = usual();
    Learner w = { .updates = 0 };
    double first, last;

    (void)state;
    train(&w, &b, 10, &first, &last);
    assert_true(w.max_ratio_deviation == 0);
    assert_true(w.late_deviation > 0); /* later updates do move it */
}

static void test_grpo_inv23_constant_reward_moves_nothing(void **state)
{
    Bed b = usual();
    Learner w = { .theta = { 0.1f, -2, 3, 0.7f }, .updates = 0 };
    const Learner was = w;
    double first, last;

    (void)state;
    b.constant_reward = 1;
    train(&w, &b, 10, &first, &last);
    assert_memory_equal(w.theta, was.theta, sizeof w.theta);
}

static void test_grpo_inv13_nan_reward_leaves_weights_finite(void **state)
{
    Bed b = usual();
    Learner w = { .updates = 0 };
    double first, last;

    (void)state;
    b.poison = 5;
    train(&w, &b, 60, &first, &last);
    for (int d = 0; d < D; d++)
        assert_true(isfinite(w.theta[d]));
    assert_true(last > first + 0.5);
}

static void test_grpo_kl_holds_the_policy_back(void **state)
{
    Bed b = usual();
    Learner free = { .updates = 0 }, held = { .updates = 0 };
    double first, last, a = 0, c = 0;

    (void)state;
    train(&free, &b, 60, &first, &last);
    b.kl_beta = 2;
    train(&held, &b, 60, &first, &last);
    for (int d = 0; d < D; d++) {
        a += fabs(free.theta[d]) / D;
        c += fabs(held.theta[d]) / D;
    }
    assert_true(c < 0.5 * a);
}

static void test_grpo_inv18_chain_replays_from_its_counters(void **state)
{
    const Bed b = usual();
    const float theta[D] = { 0.5f, 1, -1 };
    Rollout x, y, other;
    SdeStep steps[T];
    Schedule s;

    (void)state;
    assert_int_equal(dg_schedule_init_flow(&s, T, 1), 0);
    for (int i = 0; i < T; i++)
        dg_sde_step_init(&steps[i], &b.sde, &s, i);
    roll_out(&x, theta, steps, 3, 4);
    roll_out(&y, theta, steps, 3, 4);
    roll_out(&other, theta, steps, 3, 5);
    assert_memory_equal(&x, &y, sizeof x);
    assert_memory_equal(x.z[0], other.z[0], sizeof x.z[0]);
    for (int i = 1; i <= T; i++)
        assert_memory_not_equal(x.z[i], other.z[i], sizeof x.z[i]);
    dg_schedule_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grpo_inv23_reward_rises_for_every_sde),
        cmocka_unit_test(test_grpo_inv09_first_ratio_is_one_bitwise),
        cmocka_unit_test(test_grpo_inv23_constant_reward_moves_nothing),
        cmocka_unit_test(test_grpo_inv13_nan_reward_leaves_weights_finite),
        cmocka_unit_test(test_grpo_kl_holds_the_policy_back),
        cmocka_unit_test(test_grpo_inv18_chain_replays_from_its_counters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
