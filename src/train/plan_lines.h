#ifndef DG_SRC_TRAIN_PLAN_LINES_H
#define DG_SRC_TRAIN_PLAN_LINES_H
/* Lines of plans that several commands have. Not public. */
#include "reward/reward.h"
#include "train/learner.h"
#include "train/run_plan.h"
#include "train/team.h"

void dg_plan_put(PlanTable *t, const char *key, const char *text,
                 uint64_t value);
/** The same, but for 0, which stands for nothing. */
void dg_plan_put_some(PlanTable *t, const char *key, const char *text,
                      uint64_t value);
/** A last line, of all so far. */
void dg_plan_total(PlanTable *t);

/** Values of a policy's networks, and of rewards'; trained  of these, 0: none
 *  are. */
void dg_plan_parameters(PlanTable *t, const Policy *p, int64_t trained,
                        int64_t rewards);
/** Bytes of the optimizer's side, and of all workers. */
void dg_plan_learner(PlanTable *t, const LearnerPlace *place,
                     const OptimConfig *optim);
void dg_plan_team(PlanTable *t, const TeamOpts *team);
/** The first num rewards, which may be outlines. */
void dg_plan_rewards(RunPlan *out, const Config *c, const Reward *r,
                     int64_t num);

#endif
