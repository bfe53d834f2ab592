#ifndef DG_STORE_TRAJECTORY_H
#define DG_STORE_TRAJECTORY_H
/*
 * Trajectory files: everything an iteration computed from, and what came out,
 * so that `replay` can compute it again. DIR/iter_000100.h5. The datasets are
 * the trainer's: it passes a list of H5Item, those of work items as shared
 * over the ranks. Each of numbers gets its digest in pieces. Names, shapes and
 * meaning: doc/formats.md.
 */
#include <stdint.h>

#include "parallel/comm.h"
#include "store/h5.h"

enum { DG_TRAJECTORY_VERSION = 2 };
#define DG_TRAJECTORY_FORMAT "dancegrpo trajectory"

/** A root attribute: a text, or a number where text is NULL. */
typedef struct TrajectoryNote {
    const char *key;
    const char *text;
    int64_t value;
} TrajectoryNote;

/**
 * Writes dir/iter_NNNNNN.h5; `iteration` is added to the notes. Collective.
 * Errors: as dg_h5_create() and dg_h5_write().
 */
int dg_trajectory_write(const Comm *c, const char *dir, int64_t iteration,
                        const H5Item *items, int num_items,
                        const TrajectoryNote *notes, int num_notes,
                        const FileInfo *info);

/** Opens one for reading with dg_h5_read() and so on, by this rank alone. */
int dg_trajectory_open(H5File **out, const char *path);

/** File name of an iteration's trajectory. */
void dg_trajectory_path(char *path, size_t bytes, const char *dir,
                        int64_t iteration);

#endif
