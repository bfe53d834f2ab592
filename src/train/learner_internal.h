#ifndef DG_SRC_TRAIN_LEARNER_INTERNAL_H
#define DG_SRC_TRAIN_LEARNER_INTERNAL_H
/* What learner.c and learner_checkpoint.c share. Not public. */
#include "train/learner.h"

/** The kernel memory of the state; NULL: the host's. */
const Backend *dg_learner_on(const Learner *l);

/** The same of the EMA alone. */
const Backend *dg_learner_ema_on(const Learner *l);

/** What AdamW moves, of this rank's range, where the state is. */
float *dg_learner_own(const Learner *l);

/** Elements of the range from 'at' on that are the host's for a while of what
 *  is apart: a piece, or what is left. */
int64_t dg_learner_piece(const LearnerPlace *p, int64_t at);

/** The networks' weights follow those of this rank's range, then those of all
 *  ranks. Collective where ranges are split. Errors: DG_EDEVICE. */
int dg_learner_spread(Learner *l);

#endif
