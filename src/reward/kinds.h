#ifndef DG_SRC_REWARD_KINDS_H
#define DG_SRC_REWARD_KINDS_H
/* All kinds of rewards; kinds.c lists them. */
#include "reward/reward.h"

extern const RewardKind dg_reward_shapes;
extern const RewardKind dg_reward_shapes_strict;
extern const RewardKind dg_reward_brightness;
extern const RewardKind dg_reward_colourfulness;
extern const RewardKind dg_reward_jpeg_size;
extern const RewardKind dg_reward_aesthetic;
extern const RewardKind dg_reward_hpsv2;
extern const RewardKind dg_reward_clip;
extern const RewardKind dg_reward_pickscore;
extern const RewardKind dg_reward_imagereward;

/* A user's own, under names of the user's: rewards[].plugin and .command. */
extern const RewardKind dg_reward_of_plugin;
extern const RewardKind dg_reward_command;

/**
 * The kind of rewards[k]. Errors: DG_EINVAL naming rewards[k].name and the
 * names there are, a key that the kind does not have, or one that it must have.
 */
int dg_reward_kind_of(const RewardKind **kind, const RewardConfig *c,
                      int64_t k);

/** Of programs of this rank, of any reward: RewardNet.hear_ended, the first error.
 *  Not collective. */
int dg_rewards_hear_ended(const RewardSeat *seat);

#endif
