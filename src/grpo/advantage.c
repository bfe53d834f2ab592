#include "grpo/advantage.h"

#include <math.h>
#include <stddef.h>

#include "base/error.h"

/* One reward's column of the [N, K] tables, or their weighted sum. */
typedef struct Column {
    const float *reward;
    const uint8_t *missing;
    int num_rewards, k;    /* k = num_rewards: the sum */
    const double *weights; /* [K]; NULL: each reward by itself. Else a sample
                              that lacks one of weight other than 0 has none */
} Column;

typedef struct Moments {
    int64_t num;
    double mean, sum_squares; /* sum of (r - mean)^2 */
} Moments;

/* What a group's deviations are divided by; zero: it has none. */
typedef struct Scale {
    double std;
    int skip, flat;
} Scale;

static int64_t at(const Column *c, int64_t i, int k)
{
    return i * c->num_rewards + k;
}

static int has(const Column *c, int64_t i, int k)
{
    return (c->missing == NULL || !c->missing[at(c, i, k)]) &&
           isfinite(c->reward[at(c, i, k)]);
}

static int is_valid(const Column *c, int64_t i)
{
    int all = c->k == c->num_rewards || has(c, i, c->k);

    for (int k = 0; k < c->num_rewards && c->weights != NULL; k++)
        all &= c->weights[k] == 0 || has(c, i, k);
    return all;
}

static double value(const Column *c, int64_t i)
{
    double sum = 0;

    if (c->k < c->num_rewards)
        return c->reward[at(c, i, c->k)];
    for (int k = 0; k < c->num_rewards; k++)
        if (c->weights[k] != 0) /* whose score may be NaN */
            sum += c->weights[k] * (double)c->reward[at(c, i, k)];
    return sum;
}

/* Two passes in index order: the mean first, so that equal scores leave a
 * spread of rounding size only. */
static Moments moments(const Column *c, int64_t first, int64_t num)
{
    Moments m = { 0 };

    for (int64_t i = first; i < first + num; i++)
        if (is_valid(c, i)) {
            m.mean += value(c, i);
            m.num++;
        }
    if (m.num == 0)
        return m;
    m.mean /= (double)m.num;
    for (int64_t i = first; i < first + num; i++)
        if (is_valid(c, i)) {
            const double d = value(c, i) - m.mean;

            m.sum_squares += d * d;
        }
    return m;
}

static double unbiased_std(const Moments *m)
{
    return m->num > 1 ? sqrt(m->sum_squares / (double)(m->num - 1)) : 0.0;
}

static int has_no_spread(const Moments *m)
{
    return unbiased_std(m) < 1e-6 * fmax(1.0, fabs(m->mean));
}

/* of all samples, with DG_STD_GLOBAL; negative: each group has its own */
static double batch_std(const Moments *all, const AdvantageOpts *o)
{
    if (o->std != DG_STD_GLOBAL)
        return -1;
    return 1e-4 +
           (all->num > 0 ? sqrt(all->sum_squares / (double)all->num) : 0.0);
}

static Scale scale_of(const Moments *group, double batch)
{
    const int skip = group->num < 2;

    return (Scale) { .std = batch < 0 ? unbiased_std(group) + 1e-8 : batch,
                     .skip = skip,
                     .flat = !skip && has_no_spread(group) };
}

/* out[i * stride] of the group's samples: deviations from the mean, scaled */
static void deviations(float *out, int64_t stride, const Column *c,
                       int64_t first, int64_t G, const Scale *s)
{
    const double mean = moments(c, first, G).mean;

    for (int64_t i = first; i < first + G; i++)
        out[i * stride] = s->skip || s->flat || !is_valid(c, i)
                              ? 0.0f
                              : (float)((value(c, i) - mean) / s->std);
}

/* stats: [K] or NULL, as those below */
static void begin(RewardStats *stats, int k, const Moments *all, int64_t N)
{
    if (stats != NULL)
        stats[k] = (RewardStats) { .mean = all->mean,
                                   .std = unbiased_std(all),
                                   .missing = N - all->num };
}

static void count(RewardStats *stats, int k, const Scale *s)
{
    if (stats == NULL)
        return;
    stats[k].skipped_groups += s->skip;
    stats[k].zero_std_groups += s->flat;
}

/* Each reward by itself, then the weighted sum of its advantages. */
static void of_rewards(float *advantage, float *total, RewardStats *stats,
                       Column c, int64_t num_groups, const AdvantageOpts *o)
{
    const int64_t G = o->num_generations, N = num_groups * G;
    const int K = o->num_rewards;

    for (c.k = 0; c.k < K; c.k++) {
        const Moments all = moments(&c, 0, N);

        begin(stats, c.k, &all, N);
        for (int64_t g = 0; g < num_groups; g++) {
            const Moments m = moments(&c, g * G, G);
            const Scale s = scale_of(&m, batch_std(&all, o));

            count(stats, c.k, &s);
            deviations(advantage + c.k, K, &c, g * G, G, &s);
        }
    }
    for (int64_t i = 0; i < N; i++) {
        double sum = 0;

        for (int k = 0; k < K; k++)
            sum += o->weights[k] * advantage[i * K + k];
        total[i] = (float)sum;
    }
}

/* The sum of the rewards; each reward's advantage is its part of that. */
static void of_sum(float *advantage, float *total, RewardStats *stats, Column c,
                   int64_t num_groups, const AdvantageOpts *o)
{
    const int64_t G = o->num_generations, N = num_groups * G;
    const int K = o->num_rewards;
    Column sum = c;
    Moments all;

    for (c.k = 0; c.k < K; c.k++) {
        all = moments(&c, 0, N);
        begin(stats, c.k, &all, N);
    }
    sum.k = K;
    sum.weights = c.weights = o->weights;
    all = moments(&sum, 0, N);
    for (int64_t g = 0; g < num_groups; g++) {
        const Moments m = moments(&sum, g * G, G);
        const Scale s = scale_of(&m, batch_std(&all, o));

        deviations(total, 1, &sum, g * G, G, &s);
        for (c.k = 0; c.k < K; c.k++) {
            count(stats, c.k, &s);
            deviations(advantage + c.k, K, &c, g * G, G, &s);
        }
    }
}

static int check(const AdvantageOpts *o)
{
    if (o->num_generations < 2)
        return dg_fail(DG_EINVAL, "grpo.num_generations = %d: must be >= 2",
                       o->num_generations);
    if (o->num_rewards < 1)
        return dg_fail(DG_EINVAL, "rewards: at least one is needed");
    for (int k = 0; k < o->num_rewards; k++)
        if (!isfinite(o->weights[k]))
            return dg_fail(DG_EINVAL, "rewards[%d].weight = %g: must be finite",
                           k, o->weights[k]);
    return DG_OK;
}

int dg_advantage_compute(float *advantage, float *total, RewardStats *stats,
                         const float *reward, const uint8_t *missing,
                         int64_t num_groups, const AdvantageOpts *o)
{
    const int err = check(o);

    if (err)
        return err;

    const Column c = { reward, missing, o->num_rewards, 0, NULL };

    if (o->agg == DG_AGG_REWARD_SUM)
        of_sum(advantage, total, stats, c, num_groups, o);
    else
        of_rewards(advantage, total, stats, c, num_groups, o);
    return DG_OK;
}
