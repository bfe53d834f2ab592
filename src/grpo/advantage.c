#include "grpo/advantage.h"

#include <math.h>
#include <stddef.h>

#include "base/error.h"

/* One reward's column of the [N, K] tables. */
typedef struct Column {
    const float *reward;
    const uint8_t *missing;
    int num_rewards, k;
} Column;

typedef struct Moments {
    int64_t num;
    double mean, sum_squares; /* sum of (r - mean)^2 */
} Moments;

static int64_t at(const Column *c, int64_t i)
{
    return i * c->num_rewards + c->k;
}

static int is_valid(const Column *c, int64_t i)
{
    return (c->missing == NULL || !c->missing[at(c, i)]) &&
           isfinite(c->reward[at(c, i)]);
}

static double value(const Column *c, int64_t i)
{
    return c->reward[at(c, i)];
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

/* scale_std: what the deviations are divided by; negative: the group's own */
static void one_group(float *advantage, RewardStats *stats, const Column *c,
                      int64_t first, const AdvantageOpts *o, double scale_std)
{
    const int64_t G = o->num_generations;
    const Moments m = moments(c, first, G);
    const int skip = m.num < 2, flat = !skip && has_no_spread(&m);
    const double scale = scale_std < 0 ? unbiased_std(&m) + 1e-8 : scale_std;

    stats->skipped_groups += skip;
    stats->zero_std_groups += flat;
    for (int64_t i = first; i < first + G; i++) {
        const int zero = skip || flat || !is_valid(c, i);

        advantage[at(c, i)] =
            zero ? 0.0f : (float)((value(c, i) - m.mean) / scale);
    }
}

static RewardStats one_reward(float *advantage, const Column *c,
                              int64_t num_groups, const AdvantageOpts *o)
{
    const int64_t G = o->num_generations, N = num_groups * G;
    const Moments all = moments(c, 0, N);
    RewardStats stats = { .mean = all.mean,
                          .std = unbiased_std(&all),
                          .missing = N - all.num };
    double scale = -1;

    if (o->std == DG_STD_GLOBAL)
        scale = 1e-4 +
                (all.num > 0 ? sqrt(all.sum_squares / (double)all.num) : 0.0);
    for (int64_t g = 0; g < num_groups; g++)
        one_group(advantage, &stats, c, g * G, o, scale);
    return stats;
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

    const int K = o->num_rewards;

    for (int k = 0; k < K; k++) {
        const Column c = { reward, missing, K, k };
        const RewardStats s = one_reward(advantage, &c, num_groups, o);

        if (stats != NULL)
            stats[k] = s;
    }
    for (int64_t i = 0; i < num_groups * o->num_generations; i++) {
        double sum = 0;

        for (int k = 0; k < K; k++)
            sum += o->weights[k] * advantage[i * K + k];
        total[i] = (float)sum;
    }
    return DG_OK;
}
