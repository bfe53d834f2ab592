#ifndef DG_STORE_CHECKPOINT_H
#define DG_STORE_CHECKPOINT_H
/*
 * Checkpoints: all that a run needs to go on, bit for bit, on any number of
 * ranks. DIR/iter_000100.h5; layout in doc/formats.md.
 *
 *   arrays/NAME           float32 or uint8 [num], attribute sha256_pieces
 *   parameters/{name,offset,num_dims,shape}   index into the flat arrays
 *   counters/NAME         int64 scalars
 *
 * A checkpoint of adapters holds them alone; its root attributes base_path
 * and base_sha256_pieces say what lies below them.
 */
#include <stdint.h>

#include "parallel/comm.h"
#include "store/h5.h"

enum { DG_CHECKPOINT_VERSION = 2 };
#define DG_CHECKPOINT_FORMAT "dancegrpo checkpoint"

/** An array's digest of its pieces' (base/piece_digest.h); in files of version 1
 *  it is sha256, of all of its bytes. */
#define DG_CHECKPOINT_PIECES "sha256_pieces"

/** A flat array: the same on all ranks, or, shared, in contiguous ranges in
 *  rank order, of which this rank holds its own. In the file it is the same
 *  array. Where it is not the host's memory, data is NULL, and get and put copy
 *  a piece of it from and to the host; elements count from the first that is
 *  held here, and never is more than a piece of it on the host. */
typedef struct CheckpointArray {
    const char *name;      /* "weights", "adam_m", "adam_v", "ema" */
    const char *long_name; /* "master weights" */
    int coded;             /* 1: of uint8; 0: of float32 */
    void *data;            /* [num], or [held]; written from, read into */
    int64_t num;
    int shared;
    int64_t first, held; /* elements first .. first + held - 1 are here */
    int (*get)(void *user, void *to, int64_t first, int64_t num);
    int (*put)(void *user, const void *from, int64_t first, int64_t num);
    void *user;
} CheckpointArray;

/** A parameter's place in the flat arrays. */
typedef struct CheckpointParam {
    const char *name;
    int64_t offset; /* elements */
    int num_dims;
    int64_t dims[DG_H5_MAX_DIMS];
} CheckpointParam;

typedef struct CheckpointCounter {
    const char *name; /* "optimizer_step" */
    int64_t value;    /* written from, read into */
    int optional;     /* 1: a file of before may lack it: 0 then */
} CheckpointCounter;

/** A text attribute of the root. */
typedef struct CheckpointNote {
    const char *key, *value;
    int must_match; /* 1: a file that says otherwise is refused */
    const char *old_key,
        *old_value; /* what a file without key has to say; NULL:
                                        it has to have it */
    /* Of what it is the digest, or the version, for the message: a file that
     * says otherwise is refused, and no older one is looked for; one of before
     * may be without key. NULL: it is neither */
    const char *of;
    int is_version; /* value is one, "" where none is stated now */
} CheckpointNote;

typedef struct Checkpoint {
    int64_t iteration; /* iterations done */
    CheckpointArray *arrays;
    int num_arrays;
    const CheckpointParam *params;
    int num_params;
    CheckpointCounter *counters;
    int num_counters;
    const CheckpointNote *notes;
    int num_notes;
} Checkpoint;

/**
 * Writes dir/iter_NNNNNN.h5 and, when that is done, removes the oldest so
 * that keep remain (0: all) up to this iteration; later ones, which a resume
 * has passed over, do not count. Collective; content is equal on all ranks.
 * Errors: DG_EIO (disk full and the like), older checkpoints untouched;
 * DG_ENUMERIC when an array holds NaN or Inf.
 */
int dg_checkpoint_write(const Comm *c, const char *dir, const Checkpoint *k,
                        const FileInfo *info, int64_t keep);

/**
 * Reads one file into the buffers and counters of k, whose names, sizes and
 * shapes must be those of the file; checks every checksum. What k does not
 * ask for is passed over (num_params 0: the index too). Collective: each rank
 * reads and checks pieces of the arrays, of shared ones of its own range.
 * k->iteration, counters set on success only; arrays may be partly overwritten
 * on failure.
 * Errors: DG_EIO, DG_EFORMAT naming file and dataset.
 */
int dg_checkpoint_read(const Comm *c, const char *path, Checkpoint *k);

/**
 * Continues from the newest valid checkpoint in dir. Invalid ones are passed
 * over with a WARN that names the reason. Collective.
 * now    what continues: told where it is another build or machine than what
 *        wrote the checkpoint, see dg_h5_tell_origin()
 * found  out: 1 and k filled; 0 when there is no checkpoint at all
 * Errors: DG_EFORMAT when there are checkpoints but none is valid.
 */
int dg_checkpoint_resume(const Comm *c, const char *dir, Checkpoint *k,
                         const FileInfo *now, int *found);

/** Digest of an array's pieces, of which each rank takes some; on rank 0.
 *  Collective; agrees on errors: DG_ENOMEM; those of get(). */
int dg_checkpoint_digest_pieces(char *digest, const Comm *c,
                                const CheckpointArray *a);

/** SHA-256 of all of an array's bytes, on rank 0, which alone reads them: slow.
 *  Collective. Errors: DG_ENOMEM. */
int dg_checkpoint_digest(char *digest, const Comm *c, const CheckpointArray *a);

/** 1 where a dataset of a file has the digest of its pieces. */
int dg_checkpoint_has_pieces(const H5File *f, const char *name);

/** data is all of an array of the file, by the digest that is stored with it.
 *  By this rank alone. Errors: DG_EFORMAT naming file and dataset; DG_ENOMEM. */
int dg_checkpoint_match(H5File *f, const char *name, const void *data,
                        size_t bytes);

/** Iterations of the checkpoints in dir, ascending; *list to free. By this
 *  rank alone. A missing dir has none. Errors: DG_EIO, DG_ENOMEM. */
int dg_checkpoint_list(const char *dir, int64_t **list, int *num);

/** File name of an iteration's checkpoint. */
void dg_checkpoint_path(char *path, size_t bytes, const char *dir,
                        int64_t iteration);

#endif
