#ifndef DG_TRAIN_WITNESS_H
#define DG_TRAIN_WITNESS_H
/*
 * Ranks look at each other. Promise 2 needs all of them to compute the same by
 * the same weights; a device that has begun to compute otherwise, or a copy of
 * the weights that has changed where it should not, shows in no error, and the
 * replayed ratio is 1 on such a rank as well. So every run.witness_every
 * iterations each rank hands one step of one of its samples to the next one,
 * which takes it again: to the same latent, bit for bit.
 */
#include "train/rollout.h"

/** Whether an iteration is one of them: more than one rank, alike. */
int dg_witness_wanted(const Session *s, int64_t iteration);

/**
 * Behind dg_rollout_sample() and before the update. Collective.
 * Another step and another sample each time.
 * Errors, agreed: DG_EPROMISE naming ranks, hosts, and what differs;
 * DG_EDEVICE.
 */
int dg_witness_run(Rollout *r, const Session *s, Team *team, const Policy *p);

/** Reserves, or counts, what it takes. Not collective. Errors: DG_ENOMEM. */
int dg_witness_reserve(Rollout *r, const Config *c, const Policy *p,
                       int num_ranks);

#endif
