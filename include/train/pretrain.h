#ifndef DG_TRAIN_PRETRAIN_H
#define DG_TRAIN_PRETRAIN_H
/*
 * Flow matching on the shapes world: makes the base that RL starts from.
 *
 *   z = (1 - sigma) x + sigma noise,  loss = mean (u(z, sigma, c) - (noise -
 *   x))^2,  sigma = 1 / (1 + exp(-n)), n ~ N(logit_mean, logit_std^2)
 *
 * Network and text encoders are trained together. A work item is item_size
 * consecutive pictures of the step's batch; items are shared out over ranks
 * and threads, their gradients summed exactly.
 */
#include "train/session.h"

/**
 * Runs or continues the run folder; writes weights.h5 at the end (EMA, if
 * any, float16). Collective.
 * end  out: finished, or stopped by signal or time with a checkpoint
 */
int dg_pretrain(const Session *s, RunEnd *end);

#endif
