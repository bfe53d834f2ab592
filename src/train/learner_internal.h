#ifndef DG_SRC_TRAIN_LEARNER_INTERNAL_H
#define DG_SRC_TRAIN_LEARNER_INTERNAL_H
/* What learner.c and learner_checkpoint.c share. Not public. */
#include "train/learner.h"

/** The kernel memory of the state; NULL: the host's. */
const Backend *dg_learner_on(const Learner *l);

/** The networks' weights follow those of this rank's range, then those of all
 *  ranks. Collective where ranges are split. Errors: DG_EDEVICE. */
int dg_learner_spread(const Learner *l);

#endif
