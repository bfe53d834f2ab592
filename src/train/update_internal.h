#ifndef DG_TRAIN_UPDATE_INTERNAL_H
#define DG_TRAIN_UPDATE_INTERNAL_H
/* Between update*.c. */
#include "train/update.h"

/** What the network answered in the rollout at these steps of an item, to within
 *  rounding: it follows from where they led, by the noise there was. [num, D],
 *  in kernel memory, at the beginning of the worker's. */
float *dg_update_rollout_u(Worker *w, const UpdateJob *job, int64_t item,
                           const SdeStep *const *steps, int64_t num);

/** Results of all ranks to all. Collective. */
void dg_update_share(const UpdateJob *job);

/** Errors: DG_EPROMISE where a ratio before the first update is not 1. */
int dg_update_check_ratio(const UpdateJob *job, int index);

/** Warns, once a run, where the sum of an update's gradient, of which this is the
 *  norm, loses a part that shows. */
void dg_update_tell_small(const UpdateJob *job, const ExactSum *sum, int index,
                          double norm);

#endif
