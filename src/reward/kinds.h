#ifndef DG_SRC_REWARD_KINDS_H
#define DG_SRC_REWARD_KINDS_H
/* All kinds of rewards; reward.c lists them. */
#include "reward/reward.h"

extern const RewardKind dg_reward_shapes;
extern const RewardKind dg_reward_shapes_strict;
extern const RewardKind dg_reward_brightness;
extern const RewardKind dg_reward_hpsv2;
extern const RewardKind dg_reward_clip;
extern const RewardKind dg_reward_pickscore;
extern const RewardKind dg_reward_imagereward;

#endif
