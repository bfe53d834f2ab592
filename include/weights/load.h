#ifndef DG_WEIGHTS_LOAD_H
#define DG_WEIGHTS_LOAD_H
/*
 * A network's weights into the flat buffers of all ranks: each node reads its
 * files once, every rank of it a part.
 */
#include "parallel/comm.h"
#include "weights/manifest.h"

typedef struct LoadOpts {
    const char *path;    /* as dg_snapshot_open() */
    const char *variant; /* NULL: none */
    const WeightWant *wants;
    int num_wants;
    const ManifestOpts *manifest; /* NULL: nothing more to ignore */
    int together; /* values are memory that the ranks of a node have together:
                     nobody needs what others have read */
} LoadOpts;

/**
 * Fills values first .. first+num-1 of a flat buffer on every rank. The ranks of a
 * node open the files, and each checks and reads a part, as many values as any
 * other; the rest it gets from them. Where one rank cannot open the files or sees
 * other ones than the first of its node, which a line of the log says, the first
 * rank of every node reads all. num = 0: the files' lists of tensors are checked,
 * by that rank.
 * values  [num] f32 out; values[0] is the buffer's value first; unspecified
 *         after an error
 * Collective; o, first and num are equal on all ranks (path may differ).
 * Errors, agreed, of the first rank of a node: as dg_snapshot_open(),
 * dg_manifest_plan(), dg_source_verify(), dg_manifest_fill().
 */
int dg_load_values(const Comm *c, const LoadOpts *o, int64_t first, int64_t num,
                   float *values);

#endif
