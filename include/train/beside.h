#ifndef DG_TRAIN_BESIDE_H
#define DG_TRAIN_BESIDE_H
/*
 * A thread beside the workers, with a stream and a worker of its own on the
 * same device: what it is given it does while the workers go on. Work that
 * needs other ranks needs a Comm of its own (dg_comm_beside()).
 */
#include "train/team.h"

typedef struct Beside Beside;

/** Errors: DG_ENOMEM; DG_EDEVICE. o: of one worker; of num_threads 0 in none:
 *  fn is then given NULL. */
int dg_beside_create(Beside **out, const TeamOpts *o);
void dg_beside_destroy(Beside *b);

/** Items 0, 1, .. of fn are to be done one after the other as they are given;
 *  none is yet. */
void dg_beside_start(Beside *b, TeamFn fn, void *user);
/** num more items are there: what kernels queued so far on the caller's stream
 *  have made of them too. */
void dg_beside_give(Beside *b, int64_t num);
/** Waits until all that was given is done. After a failure no new item is
 *  started. Returns DG_OK or the failed item's code, its text in the calling
 *  thread's dg_last_error(). */
int dg_beside_finish(Beside *b);
/** The same, until no more than 'left' items are not done. */
int dg_beside_settle(Beside *b, int64_t left);

/** As dg_team_take_flops() and dg_team_peak(), between finish and start. */
uint64_t dg_beside_take_flops(Beside *b);
size_t dg_beside_peak(const Beside *b);

#endif
