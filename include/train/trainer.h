#ifndef DG_TRAIN_TRAINER_H
#define DG_TRAIN_TRAINER_H
/*
 * DanceGRPO's Algorithm 1 over MPI ranks: sample groups, score, compare
 * within groups, update by the clipped objective.
 */
#include "train/session.h"

/**
 * Runs or continues a training run in run.dir. Collective.
 * end  out: finished, or stopped by signal or time with a checkpoint; by a
 *      signal also before anything is computed
 * Errors: bad input; DG_EPROMISE; DG_EIO. Checkpoints stay valid.
 */
int dg_train(const Session *s, RunEnd *end);

/** Everything of dg_train() that can be checked without computing: inputs
 *  are read, memory is reserved, then all is given back. Collective. */
int dg_train_check(const Session *s);

/**
 * Computes an iteration again from its trajectory file: log-probs,
 * advantages and gradients, compared bit for bit. Collective.
 * Errors: DG_EPROMISE naming the first thing that differs, DG_EIO,
 * DG_EFORMAT.
 */
int dg_replay(const Session *s, const char *path);

#endif
