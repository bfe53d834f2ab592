#ifndef DG_SRC_STORE_CHECKPOINT_ARRAY_H
#define DG_SRC_STORE_CHECKPOINT_ARRAY_H
/* One flat array of a checkpoint, in and out, piece after piece where it is
 * not the host's. Not public. */
#include "store/checkpoint.h"

/** Bytes of an element. */
size_t dg_checkpoint_array_size(const CheckpointArray *a);

/** Of what this rank holds. Errors: DG_ENUMERIC naming array and element;
 *  those of the array's get(). */
int dg_checkpoint_array_finite(const CheckpointArray *a, int64_t iteration);

/** The dataset and its digest. Collective; agrees on errors. */
int dg_checkpoint_array_write(H5File *f, const Comm *c,
                              const CheckpointArray *a);

/** By this rank alone: the whole array against its digest, and what this rank
 *  holds of it to its place. Errors: DG_EFORMAT; those of put(). */
int dg_checkpoint_array_read(H5File *f, const CheckpointArray *a);

/** What this rank holds, unchecked. */
int dg_checkpoint_array_read_held(H5File *f, const CheckpointArray *a);

/** Rank 0's values to all, of an array that is not shared. Collective; errors
 *  are this rank's own. */
int dg_checkpoint_array_hand_out(const Comm *c, const CheckpointArray *a);

#endif
