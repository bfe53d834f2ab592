/* The clipped objective against its definition in double and against finite
 * differences through the log-density. invNN: doc/invariants.md. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/philox.h"
#include "grpo/objective.h"

enum { D = 100 };

static const double one_weight[] = { 1 };
static Schedule flow, ddim;
static float z[D], u[D], u_old[D], u_ref[D], noise[D], next[D], grad[D];

static void fill(float *x, uint32_t sample)
{
    const RngKey k = { .seed = 31, .purpose = DG_RNG_TEST, .sample = sample };

    dg_rng_normal(x, 0, D, &k);
}

static int setup(void **state)
{
    (void)state;
    fill(z, 1);
    fill(u, 2);
    fill(u_ref, 3);
    fill(noise, 4);
    return dg_schedule_init_flow(&flow, 16, 3) ||
           dg_schedule_init_ddim(&ddim, 50);
}

static int teardown(void **state)
{
    (void)state;
    dg_schedule_fini(&flow);
    dg_schedule_fini(&ddim);
    return 0;
}

static const SdeOpts kinds[] = {
    { DG_SDE_DANCE, DG_LOG_PROB_GAUSSIAN, 0.3 },
    { DG_SDE_FLOW_SDE, DG_LOG_PROB_GAUSSIAN, 0.7 },
    { DG_SDE_CPS, DG_LOG_PROB_GAUSSIAN, 0.6 },
    { DG_SDE_CPS, DG_LOG_PROB_SQUARED, 0.6 },
    { DG_SDE_DDIM, DG_LOG_PROB_GAUSSIAN, 1 },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static SdeStep make(int k)
{
    SdeStep s;

    assert_int_equal(
        dg_sde_step_init(&s, &kinds[k],
                         kinds[k].kind == DG_SDE_DDIM ? &ddim : &flow, 5),
        DG_OK);
    return s;
}

static ObjectiveOpts opts(double clip)
{
    return (ObjectiveOpts) { .clip = { clip, clip },
                             .advantage_clip = 5,
                             .num_rewards = 1,
                             .weights = one_weight };
}

/* A term with a given ratio and advantage, at D elements. */
static ObjectiveTerm term(const ObjectiveOpts *o, double ratio, double A)
{
    const SdeStep s = make(0);
    const float a = (float)A;
    const ObjectiveInput in = { .log_prob = (float)log(ratio),
                                .total = a,
                                .advantage = &a,
                                .D = D,
                                .divisor = 1 };
    ObjectiveTerm t;

    assert_int_equal(dg_objective_term(&t, o, &s, &in), DG_OK);
    return t;
}

static void test_objective_inv09_equal_log_probs_give_ratio_one(void **state)
{
    const ObjectiveOpts o = opts(1e-4);

    (void)state;
    for (int k = 0; k < KINDS; k++) {
        const SdeStep s = make(k);
        ObjectiveInput in = { .total = 0.7f, .D = D, .divisor = 1 };
        ObjectiveTerm t;

        dg_sde_next(next, &s, z, u, noise, D);
        in.log_prob_old = dg_sde_log_prob(&s, z, u, next, D);
        in.log_prob = dg_sde_log_prob(&s, z, u, next, D);
        assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
        assert_true(t.ratio == 1.0 && !t.clipped);
        assert_true(t.loss == -(double)0.7f);
    }
}

static void test_objective_inv10_is_reinforce_at_ratio_one(void **state)
{
    const ObjectiveOpts o = opts(1e-4);
    const double A = -1.25;
    float score[D];

    (void)state;
    for (int k = 0; k < KINDS; k++) {
        const SdeStep s = make(k);
        const ObjectiveTensors x = { z, u, next, NULL, NULL };
        const ObjectiveInput in = { .total = (float)A, .D = D, .divisor = 4 };
        ObjectiveTerm t;

        dg_sde_next(next, &s, z, u, noise, D);
        dg_sde_grad_u(score, &s, z, u, next, s.mean_u * s.precision / D, D);
        assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
        dg_objective_seed(grad, &t, &s, &x, D);
        for (int d = 0; d < D; d++)
            assert_true(fabs(grad[d] + A / 4 * score[d]) <=
                        2e-7 * fabs(grad[d]));
    }
}

/* The loss in double as a function of u, from the definitions alone. */
static double ref_loss(const SdeStep *s, const ObjectiveOpts *o,
                       const double *v, double log_prob_old, const double *A,
                       int num)
{
    double sum = 0, kl = 0, drift = 0, loss = 0;

    for (int d = 0; d < D; d++) {
        const double mu = (double)s->mean_z * z[d] + s->mean_u * v[d];
        const double ref = (double)s->mean_z * z[d] + s->mean_u * u_ref[d];

        sum += (next[d] - mu) * (next[d] - mu) / D;
        kl += (mu - ref) * (mu - ref) / (2.0 * s->std * s->std) / D;
        drift += s->mean_u * s->mean_u * (v[d] - u_old[d]) * (v[d] - u_old[d]) /
                 (2.0 * s->std * s->std) / D;
    }
    const double moved = s->offset - 0.5 * s->precision * sum - log_prob_old;
    const double r =
        exp(o->ratio == DG_RATIO_GUARD ? s->std * (moved + drift) : moved);

    for (int k = 0; k < num; k++) {
        const double w = num > 1 ? o->weights[k] : 1;
        const double lo = 1 - o->clip.low, hi = 1 + o->clip.high;
        const double a = fmax(-5, fmin(5, A[k]));

        loss += w * fmax(-a * r, -a * fmax(lo, fmin(hi, r)));
    }
    if (o->step_weight != NULL)
        loss *= o->step_weight[s->index];
    return loss + o->kl_beta * kl;
}

/* Moves u away from the rollout's and compares all D seeds. */
static void check_seed(int k, const ObjectiveOpts *o, const double *A)
{
    const SdeStep s = make(k);
    const int num = o->agg == DG_AGG_SUM ? 1 : o->num_rewards;
    const float as_float[2] = { (float)A[0], (float)A[1] };
    const int guard = o->ratio == DG_RATIO_GUARD;
    const ObjectiveTensors x = { z, u, next, u_ref, u_old };
    ObjectiveInput in = {
        .total = as_float[0], .advantage = as_float, .D = D, .divisor = 6
    };
    ObjectiveTerm t;
    double v[D];

    for (int d = 0; d < D; d++)
        u_old[d] = u[d] + 0.002f * u_ref[d];
    dg_sde_next(next, &s, z, u_old, noise, D);
    in.log_prob_old = dg_sde_log_prob(&s, z, u_old, next, D);
    in.log_prob = dg_sde_log_prob(&s, z, u, next, D);
    in.kl = dg_sde_kl(&s, u, u_ref, D);
    in.drift = guard ? dg_sde_kl(&s, u, u_old, D) : 0;
    assert_int_equal(dg_objective_term(&t, o, &s, &in), DG_OK);
    assert_true(t.ratio != 1 && !t.clipped);
    dg_objective_seed(grad, &t, &s, &x, D);
    for (int d = 0; d < D; d++)
        v[d] = u[d];
    const double old = in.log_prob_old;

    assert_true(fabs(t.loss - ref_loss(&s, o, v, old, A, num) / 6) < 2e-6);
    for (int d = 0; d < D; d += 9) {
        const double h = 1e-5;

        v[d] += h;
        const double hi = ref_loss(&s, o, v, old, A, num);
        v[d] -= 2 * h;
        const double lo = ref_loss(&s, o, v, old, A, num);
        v[d] = u[d];
        const double want = (hi - lo) / (2 * h) / 6;

        assert_true(fabs(grad[d] - want) < 3e-5 * fabs(want) + 1e-8);
    }
}

static void test_objective_inv10_seed_matches_differences(void **state)
{
    ObjectiveOpts o = opts(0.5);
    const double A[] = { 1.5, -0.75 }, B[] = { -2, 0 };
    const double weight[] = { 9, 9, 9, 9, 9, 0.3, 9 }; /* of step 5 */

    (void)state;
    for (int k = 0; k < KINDS; k++) {
        o.kl_beta = 0;
        check_seed(k, &o, A);
        check_seed(k, &o, B);
        o.kl_beta = 0.04;
        check_seed(k, &o, A);
        o.step_weight = weight;
        check_seed(k, &o, A);
        o.step_weight = NULL;
    }
}

/* Guard's logarithm is the noise along which the mean has moved, alone: it does
 * not fall whatever moves, and where nothing has it is 0 for any width. */
static void test_objective_guard(void **state)
{
    ObjectiveOpts o = opts(0.5);
    const double A[] = { 1.5, 0 };

    (void)state;
    o.ratio = DG_RATIO_GUARD;
    for (int k = 0; k < KINDS; k++) {
        const SdeStep s = make(k);
        ObjectiveInput in = {
            .log_prob = 3, .log_prob_old = 3, .total = 1, .D = D, .divisor = 2
        };
        ObjectiveTerm t;
        double along = 0;

        if (kinds[k].log_prob == DG_LOG_PROB_SQUARED) {
            assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_EINVAL);
            continue;
        }
        check_seed(k, &o, A);
        o.kl_beta = 0.04;
        check_seed(k, &o, A);
        o.kl_beta = 0;
        assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
        assert_true(t.ratio == 1 && t.kl_coef == 0 && t.drift_coef == 0);
        assert_true(t.loss == -0.5);
        for (int d = 0; d < D; d++)
            along += (double)noise[d] * s.mean_u * (u[d] - u_old[d]) / D;
        in.log_prob_old = dg_sde_log_prob(&s, z, u_old, next, D);
        in.log_prob = dg_sde_log_prob(&s, z, u, next, D);
        in.drift = dg_sde_kl(&s, u, u_old, D);
        assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
        assert_true(fabs(log(t.ratio) - along) < 3e-7);
    }
}

static void test_objective_inv15_seed_of_two_rewards(void **state)
{
    const double weights[] = { 0.7, 1.4 }, A[] = { 1.5, -0.75 };
    ObjectiveOpts o = opts(0.5);

    (void)state;
    o.agg = DG_AGG_PER_REWARD;
    o.num_rewards = 2;
    o.weights = weights;
    for (int k = 0; k < KINDS; k++)
        check_seed(k, &o, A);
}

static void test_objective_inv11_quadrants_of_the_clip(void **state)
{
    const ObjectiveOpts o = opts(1e-4);
    const SdeStep s = make(0);
    const ObjectiveTensors x = { z, u, next, NULL, NULL };
    static const struct {
        double ratio, A;
        int clipped;
    } cases[] = { { 1.001, 1, 1 },    { 0.999, 1, 0 },   { 1.001, -1, 0 },
                  { 0.999, -1, 1 },   { 1.00005, 1, 0 }, { 0.99995, 1, 0 },
                  { 1.00005, -1, 0 }, { 0.99995, -1, 0 } };

    (void)state;
    dg_sde_next(next, &s, z, u, noise, D);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const double A = cases[k].A;
        const ObjectiveTerm t = term(&o, cases[k].ratio, A);
        const double held = fmax(0.9999, fmin(1.0001, t.ratio));

        assert_int_equal(t.clipped, cases[k].clipped);
        assert_true(fabs(t.loss - fmax(-A * t.ratio, -A * held)) < 1e-15);
        dg_objective_seed(grad, &t, &s, &x, D);
        for (int d = 0; d < D; d++)
            assert_true((grad[d] == 0) == cases[k].clipped);
    }
}

/* 1 - c is exact here, so that the ratio is the bound itself, bit for bit: the
 * clip does not act yet. */
static void test_objective_bound_is_not_clipped(void **state)
{
    ObjectiveOpts o = opts(0.25);

    (void)state;
    for (int side = -1; side <= 1; side += 2) {
        const double ratio = term(&o, 1 + 0.2 * side, side).ratio;
        double *const bound = side < 0 ? &o.clip.low : &o.clip.high;
        ObjectiveTerm t;

        *bound = fabs(ratio - 1);
        assert_true(1 + side * *bound == ratio);
        t = term(&o, 1 + 0.2 * side, side);
        assert_true(!t.clipped && t.coef != 0);
        *bound -= 1e-15;
        t = term(&o, 1 + 0.2 * side, side);
        assert_true(t.clipped && t.coef == 0);
    }
}

/* By sides, each bound is the advantage's of one sign alone: what stands there is
 * what max(-A r, -A clamp(r)) is by hand. */
static void test_objective_sides_of_the_clip(void **state)
{
    ObjectiveOpts o = opts(0);
    static const struct {
        double ratio, A;
        int clipped;
        double loss;
    } cases[] = { { 1.3, 1, 1, -1.28 },  { 1.25, 1, 0, -1.25 },
                  { 1.3, -1, 0, 1.3 },   { 0.75, -1, 1, 0.8 },
                  { 0.85, -1, 0, 0.85 }, { 0.75, 1, 0, -0.75 } };

    (void)state;
    o.clip = (ClipRange) { 0.2, 0.28 };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const ObjectiveTerm t = term(&o, cases[k].ratio, cases[k].A);

        assert_int_equal(t.clipped, cases[k].clipped);
        assert_int_equal(t.coef == 0, cases[k].clipped);
        assert_true(fabs(t.loss - cases[k].loss) < 1e-7);
    }
    o.clip.low = 1; /* no ratio is below */
    assert_true(!term(&o, 1e-3, -1).clipped);
}

static void test_objective_advantage_is_clamped(void **state)
{
    ObjectiveOpts o = opts(1e-4);

    (void)state;
    assert_true(term(&o, 1, 7).coef == term(&o, 1, 5).coef);
    assert_true(term(&o, 1, -7).loss == 5);
    o.advantage_clip = 0;
    assert_true(term(&o, 1, -7).loss == 7);
}

static void test_objective_inv13_zero_advantage_has_no_gradient(void **state)
{
    ObjectiveOpts o = opts(1e-4);
    const SdeStep s = make(0);
    const ObjectiveTensors x = { z, u, next, NULL, NULL };

    (void)state;
    for (int a = 0; a < 2; a++)
        for (double r = 0.99; r < 1.02; r += 0.01) {
            o.agg = a ? DG_AGG_PER_REWARD : DG_AGG_SUM;
            const ObjectiveTerm t = term(&o, r, 0);

            assert_true(t.loss == 0 && t.coef == 0 && !t.clipped);
            dg_objective_seed(grad, &t, &s, &x, D);
            for (int d = 0; d < D; d++)
                assert_true(grad[d] == 0);
        }
}

static ObjectiveTerm two(AdvantageAgg agg, const double *w, double ratio,
                         const float *A)
{
    const ObjectiveOpts o = { .clip = { 1e-4, 1e-4 },
                              .advantage_clip = 5,
                              .agg = agg,
                              .num_rewards = 2,
                              .weights = w };
    const SdeStep s = make(0);
    const ObjectiveInput in = { .log_prob = (float)log(ratio),
                                .total = (float)(w[0] * A[0] + w[1] * A[1]),
                                .advantage = A,
                                .D = D,
                                .divisor = 1 };
    ObjectiveTerm t;

    assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
    return t;
}

static void test_objective_inv15_both_aggregations(void **state)
{
    static const double ones[] = { 1, 1 }, w[] = { 0.7, 1.4 };
    static const float example[] = { 1.5f, -1 };
    const SdeStep s = make(0);
    /* d loss / d ratio out of coef = slope ratio kappa precision / D */
    const double unit = (double)s.mean_u * s.precision / D;
    ObjectiveOpts o = opts(1e-4);

    (void)state;
    /* the worked example: slopes 1 and 0 above, -1.5 and -0.5 below */
    ObjectiveTerm p = two(DG_AGG_PER_REWARD, ones, 1.001, example);
    ObjectiveTerm t = two(DG_AGG_SUM, ones, 1.001, example);
    assert_true(fabs(p.coef / unit / p.ratio - 1) < 1e-12 && t.coef == 0);
    p = two(DG_AGG_PER_REWARD, ones, 0.999, example);
    t = two(DG_AGG_SUM, ones, 0.999, example);
    assert_true(fabs(p.coef / unit / p.ratio + 1.5) < 1e-12);
    assert_true(fabs(t.coef / unit / t.ratio + 0.5) < 1e-12);
    /* told as clipped whichever of the two it was */
    for (int first = 0; first < 2; first++) {
        const float A[] = { first ? 1.5f : -1, first ? -1 : 1.5f };

        assert_true(two(DG_AGG_PER_REWARD, ones, 1.001, A).clipped);
        assert_true(!two(DG_AGG_PER_REWARD, ones, 1, A).clipped);
    }

    for (int i = 0; i + 1 < D; i++) {
        const float A[] = { z[i], u[i] };
        const double r = 1 + 1e-3 * noise[i];

        p = two(DG_AGG_PER_REWARD, w, 1, A);
        t = two(DG_AGG_SUM, w, 1, A);
        assert_true(fabs(p.coef - t.coef) < 1e-6 * fabs(unit));
        p = two(DG_AGG_PER_REWARD, w, r, A);
        t = two(DG_AGG_SUM, w, r, A);
        assert_true(p.loss >= t.loss - 1e-6);
        /* K = 1 is the single reward */
        o.agg = DG_AGG_SUM;
        t = term(&o, r, A[0]);
        o.agg = DG_AGG_PER_REWARD;
        p = term(&o, r, A[0]);
        assert_true(p.loss == t.loss && p.coef == t.coef);
    }
}

static void test_objective_inv14_divisor_splits_the_loss(void **state)
{
    const ObjectiveOpts o = opts(1e-4);
    const SdeStep s = make(0);
    ObjectiveInput in = { .total = 2, .D = D, .divisor = 1 };
    ObjectiveTerm one, eighth;

    (void)state;
    dg_objective_term(&one, &o, &s, &in);
    in.divisor = 8;
    dg_objective_term(&eighth, &o, &s, &in);
    assert_true(one.loss == 8 * eighth.loss && one.coef == 8 * eighth.coef);
}

static void test_objective_inv20_kl_at_the_reference(void **state)
{
    ObjectiveOpts o = opts(1e-4);
    const SdeStep s = make(0);
    const ObjectiveTensors x = { z, u, next, u, NULL };
    ObjectiveInput in = { .D = D, .divisor = 1 };
    ObjectiveTerm t;

    (void)state;
    o.kl_beta = 0.04;
    dg_sde_next(next, &s, z, u, noise, D);
    in.kl = dg_sde_kl(&s, u, u, D);
    assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
    assert_true(t.loss == 0 && t.kl_coef > 0);
    dg_objective_seed(grad, &t, &s, &x, D);
    for (int d = 0; d < D; d++)
        assert_true(grad[d] == 0);
}

static void test_objective_refuses_what_is_not_finite(void **state)
{
    const SdeOpts ode = { .kind = DG_SDE_ODE };
    ObjectiveOpts o = opts(1e-4);
    SdeStep s = make(0), det;
    ObjectiveInput in = { .D = D, .divisor = 1 }, bad;
    ObjectiveTerm t = { .loss = 77 };

    (void)state;
    dg_sde_step_init(&det, &ode, &flow, 3);
    assert_int_equal(dg_objective_term(&t, &o, &det, &in), DG_EINVAL);
    bad = in, bad.log_prob = NAN;
    assert_int_equal(dg_objective_term(&t, &o, &s, &bad), DG_ENUMERIC);
    bad = in, bad.log_prob = 1000; /* exp overflows */
    assert_int_equal(dg_objective_term(&t, &o, &s, &bad), DG_ENUMERIC);
    bad = in, bad.total = NAN;
    assert_int_equal(dg_objective_term(&t, &o, &s, &bad), DG_ENUMERIC);
    bad = in, bad.kl = NAN, o.kl_beta = 1;
    assert_int_equal(dg_objective_term(&t, &o, &s, &bad), DG_ENUMERIC);
    assert_true(t.loss == 77);
    o.kl_beta = 0; /* then nobody looks at it */
    assert_int_equal(dg_objective_term(&t, &o, &s, &bad), DG_OK);
    assert_true(t.loss == 0);
}

/* Against the sum of its series in long double, which cancels nothing. */
static void test_objective_inv24_approx_kl_keeps_its_digits(void **state)
{
    (void)state;
    assert_true(dg_objective_approx_kl(0) == 0);
    for (int i = -1000; i <= 200; i++) {
        const double size = 0.01 * pow(10, i / 100.0); /* both ways of it */

        for (int sign = -1; sign <= 1; sign += 2) {
            const double x = sign * size;
            long double power = x, want = 0;

            for (int k = 2; k < 40; k++) {
                power *= (long double)x / k;
                want += power;
            }
            assert_true(fabsl(dg_objective_approx_kl(x) / want - 1) < 1e-13L);
        }
    }
}

/* Two policies of a step, KL apart: log of their densities' ratio is normal
 * with mean -KL and variance 2 KL; a D-th of it is what the objective sees. */
static void test_objective_inv24_approx_kl_of_a_step(void **state)
{
    enum { SAMPLES = 40000 };
    const ObjectiveOpts o = opts(1e-4);
    const SdeStep s = make(0);
    double sum = 0, kl, scale, off;

    (void)state;
    /* old policy: u_ref, moved towards u until the KL is 1/2 */
    scale = sqrt(0.5 / (D * dg_sde_kl(&s, u, u_ref, D)));
    for (int d = 0; d < D; d++)
        u_old[d] = (float)(u[d] + scale * (double)(u_ref[d] - u[d]));
    kl = D * dg_sde_kl(&s, u, u_old, D);
    assert_true(fabs(kl - 0.5) < 1e-5);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        ObjectiveInput in = { .total = 1, .D = D, .divisor = 1 };
        ObjectiveTerm t;

        fill(noise, 100 + i);
        dg_sde_next(next, &s, z, u_old, noise, D);
        in.log_prob_old = dg_sde_log_prob(&s, z, u_old, next, D);
        in.log_prob = dg_sde_log_prob(&s, z, u, next, D);
        assert_int_equal(dg_objective_term(&t, &o, &s, &in), DG_OK);
        sum += t.approx_kl;
    }
    /* L = -KL + sqrt(2 KL) n has E L^2 = 5/4 and Var L^2 = 3: the mean of
     * L^2 / 2 within 5 sqrt(3 / SAMPLES) / (5/4) of it; a D-th of L makes the
     * next term, L^3 / 6 D, 0.3 % */
    off = sum / SAMPLES * D * D / (kl + kl * kl / 2) - 1;
    assert_true(fabs(off) < 5 * sqrt(3.0 / SAMPLES) / 1.25 + 0.005);
    fill(noise, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objective_inv09_equal_log_probs_give_ratio_one),
        cmocka_unit_test(test_objective_inv10_is_reinforce_at_ratio_one),
        cmocka_unit_test(test_objective_inv10_seed_matches_differences),
        cmocka_unit_test(test_objective_guard),
        cmocka_unit_test(test_objective_inv15_seed_of_two_rewards),
        cmocka_unit_test(test_objective_inv11_quadrants_of_the_clip),
        cmocka_unit_test(test_objective_bound_is_not_clipped),
        cmocka_unit_test(test_objective_sides_of_the_clip),
        cmocka_unit_test(test_objective_advantage_is_clamped),
        cmocka_unit_test(test_objective_inv13_zero_advantage_has_no_gradient),
        cmocka_unit_test(test_objective_inv15_both_aggregations),
        cmocka_unit_test(test_objective_inv14_divisor_splits_the_loss),
        cmocka_unit_test(test_objective_inv20_kl_at_the_reference),
        cmocka_unit_test(test_objective_inv24_approx_kl_keeps_its_digits),
        cmocka_unit_test(test_objective_inv24_approx_kl_of_a_step),
        cmocka_unit_test(test_objective_refuses_what_is_not_finite),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
