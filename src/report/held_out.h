#ifndef DG_REPORT_HELD_OUT_H
#define DG_REPORT_HELD_OUT_H
/*
 * What evaluations on held-out prompts during training (evaluate.every) say of
 * it: does what rises in training rise there too?
 */
#include "health.h"
#include "trend.h"

/**
 * Whether a reward is hacked, by the points of the run: level and answer of
 * *out. Returns 0 where there are fewer than two.
 * reward  the trend of the reward of training
 * rises   1 if that is one, beyond noise
 * A reward that rises and has no strict score beside it is LEVEL_UNKNOWN.
 */
int dg_held_out_find(Finding *out, const Run *run, const Trend *reward,
                     int rises);

#endif
