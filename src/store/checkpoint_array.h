#ifndef DG_SRC_STORE_CHECKPOINT_ARRAY_H
#define DG_SRC_STORE_CHECKPOINT_ARRAY_H
/* One flat array of a checkpoint, in and out, piece after piece where it is
 * not the host's. Not public. */
#include "base/piece_digest.h"
#include "store/checkpoint.h"

/** Bytes of an element. */
size_t dg_checkpoint_array_size(const CheckpointArray *a);

/** Of what this rank holds. Errors: DG_ENUMERIC naming array and element;
 *  those of the array's get(). */
int dg_checkpoint_array_finite(const CheckpointArray *a, int64_t iteration);

/** The dataset and its digest. Collective; agrees on errors. */
int dg_checkpoint_array_write(H5File *f, const Comm *c,
                              const CheckpointArray *a);

/** The whole array of the file against its digest, and what each rank holds of
 *  it to its place. Collective; agrees on errors: DG_EFORMAT; those of put(). */
int dg_checkpoint_array_read(H5File *f, const Comm *c,
                             const CheckpointArray *a);

/* Pieces of an array's digest. */
typedef struct CheckpointPieces {
    int64_t size;       /* elements of one */
    int64_t all;        /* of the whole array */
    int64_t first, num; /* of one rank */
} CheckpointPieces;

/** Those of a rank: an equal share, or of a shared array, which must be this
 *  rank's own, those that begin in its range. */
void dg_checkpoint_pieces(CheckpointPieces *p, const CheckpointArray *a,
                          int rank, int size);
/** Room for the sums of all pieces, to free. Errors: NULL, DG_ENOMEM. */
PieceSum *dg_checkpoint_new_sums(const CheckpointPieces *p);
/** The digest on rank 0; sums [all], of which each rank has its own in their
 *  places. Collective; agrees on errors: DG_ENOMEM. */
int dg_checkpoint_join(char hex[DG_SHA256_HEX], const Comm *c,
                       const CheckpointPieces *p, PieceSum *sums);
#endif
