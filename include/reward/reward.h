#ifndef DG_REWARD_REWARD_H
#define DG_REWARD_REWARD_H
/*
 * Rewards: pictures and prompts in, one number per picture out. A score that
 * cannot be had is missing, never 0. Rewards know nothing of GRPO or ranks.
 */
#include "config/config.h"
#include "store/prompts.h"

#include <stdint.h>

typedef struct RewardScore {
    float value;     /* the reward; meaningless when missing */
    float strict;    /* strict 0/1 metric; NAN if the reward has none */
    int32_t missing; /* 1: failed or not finite */
} RewardScore;

typedef struct Reward Reward;

/** What one kind of reward provides. */
typedef struct RewardKind {
    const char *name;
    int has_strict; /* it has a strict 0/1 metric besides */
    size_t scratch_bytes;
    /* Scores one picture [size, size, 3] in [0, 1]; scratch is this
     * thread's own. Errors: a picture it cannot score. */
    int (*score)(const float *rgb, int64_t size, const Prompt *prompt,
                 RewardScore *out, void *scratch);
} RewardKind;

struct Reward {
    const RewardKind *kind;
    double weight;
    double threshold; /* NAN: none; else 1 above it and 0 below */
};

/**
 * The rewards of a configuration, in its order.
 * out [c->num_rewards] filled. Errors: DG_EINVAL naming rewards.name and the
 * names there are.
 */
int dg_rewards_init(Reward *out, const Config *c);

/** Room that one thread needs for any of them, bytes. */
size_t dg_rewards_scratch(const Reward *r, int64_t num);

/**
 * Scores one picture. Never fails: a reward that does, or gives NaN or Inf,
 * is reported missing, with the reason in dg_last_error(). A threshold is
 * applied here.
 */
void dg_reward_score(const Reward *r, const float *rgb, int64_t size,
                     const Prompt *prompt, RewardScore *out, void *scratch);

#endif
