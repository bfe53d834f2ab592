#ifndef DG_TRAIN_PRETRAIN_H
#define DG_TRAIN_PRETRAIN_H
/*
 * Pretraining on the shapes world: makes the base that RL starts from. What
 * is learned follows from the policy's prediction:
 *
 *   velocity (flow matching): z = (1 - sigma) x + sigma noise, target noise -
 *     x, sigma = 1 / (1 + exp(-n)), n ~ N(logit_mean, logit_std^2)
 *   epsilon (DDPM): z = sqrt(a) x + sqrt(1 - a) noise, target noise, a =
 *     alpha_bar at t, t uniform in 0..999; the loss times a^-loss_power
 *
 * The loss is the mean square error. Parts of the pictures are shown as data
 * from the web are: under another picture's prompt (prompt_swap), washed out
 * (faded), out of focus (blurred); so the base gets faults for RL to mend. A
 * part prompt_drop is shown with an empty prompt, for classifier-free guidance.
 *
 * Guidance distillation (distill_cfg = w, not 1): the target is what policy.weights,
 * frozen, predicts of the same z with the guidance scale w, u + w (c - u) of
 * its predictions without (u) and with (c) the prompt, as FLUX.1-dev learned
 * of its elder (Meng et al., "On Distillation of Guided Diffusion Models",
 * 2023; here for one w). Of an empty prompt that is u.
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

/** Checks all that a run needs, and its memory, without a run folder.
 *  Collective. */
int dg_pretrain_check(const Session *s);

#endif
