#ifndef DG_GRPO_ADVANTAGE_H
#define DG_GRPO_ADVANTAGE_H
/*
 * Group-relative advantages, one set per reward, then their weighted sum.
 *
 *   A_i^k = (r_i^k - mean_k) / (std_k + 1e-8),   A_i = sum_k w_k A_i^k
 * over the valid members of one prompt's group, std unbiased (n - 1).
 * Variant DG_AGG_REWARD_SUM: rewards are summed first, s_i = sum_k w_k r_i^k,
 *
 *   A_i = (s_i - mean_s) / (std_s + 1e-8),  A_i^k = (r_i^k - mean_k) / (.. same)
 * so that again A_i = sum_k w_k A_i^k, up to rounding. A sample that lacks a
 * score of weight other than 0 has no s_i. Weights then count against each other
 * only: a common factor > 0 changes nothing (but for the 1e-8).
 * Variant DG_STD_GLOBAL: the group's mean, but the population
 * standard deviation of the whole batch + 1e-4.
 * Sources: DanceGRPO eq. (10) and Algorithm 1; Flow-GRPO (global, and the sum of
 * rewards, its multi_score()); MixGRPO's reward_aggr.
 *
 * All statistics are double. In float, equal rewards leave a rounding spread
 * that divides itself to advantages near 1; here a spread below
 * 1e-6 max(1, |mean|) counts as none and gives A = 0 exactly.
 * A group's values depend on its own members alone (except the global std).
 */
#include <stdint.h>

#include "config/choices.h"

typedef struct AdvantageOpts {
    int num_generations; /* G >= 2 */
    int num_rewards;     /* K >= 1 */
    AdvantageStd std;
    AdvantageAgg agg;      /* DG_AGG_REWARD_SUM or not */
    const double *weights; /* [K] w_k of the sum; borrowed during the call */
} AdvantageOpts;

/* What a reward did in this batch. mean and std are of the valid scores; std
 * unbiased; 0 where undefined. */
typedef struct RewardStats {
    double mean, std;
    int64_t missing;         /* scores missing or not finite */
    int64_t zero_std_groups; /* groups without spread: A = 0 */
    int64_t skipped_groups;  /* groups with fewer than 2 valid: A = 0. With
                                DG_AGG_REWARD_SUM both are the sum's, the same
                                for each reward */
} RewardStats;

/**
 * Advantages of num_groups groups of G consecutive samples, N samples in all.
 * advantage  [N, K] f32 out, not clamped
 * total      [N]    f32 out, weighted sum over K, not clamped
 * stats      [K]    out; may be NULL
 * reward     [N, K] f32
 * missing    [N, K] nonzero: no score; NULL: none. A score that is NaN or
 *            infinite is missing too. Its sample gets A^k = 0 and leaves the
 *            statistics of reward k; its other rewards still count, but in
 *            DG_AGG_REWARD_SUM's advantages, where all its A^k are 0.
 * Not collective; allocates nothing. Errors: DG_EINVAL naming
 * grpo.num_generations or rewards; outputs then untouched.
 */
int dg_advantage_compute(float *advantage, float *total, RewardStats *stats,
                         const float *reward, const uint8_t *missing,
                         int64_t num_groups, const AdvantageOpts *o);

#endif
