#ifndef DG_WEIGHTS_LOAD_H
#define DG_WEIGHTS_LOAD_H
/*
 * A network's weights into the flat buffers of all ranks: each node reads its
 * files once.
 */
#include "parallel/comm.h"
#include "weights/manifest.h"

typedef struct LoadOpts {
    const char *path;    /* as dg_snapshot_open() */
    const char *variant; /* NULL: none */
    const WeightWant *wants;
    int num_wants;
    const ManifestOpts *manifest; /* NULL: nothing more to ignore */
    int together; /* the ranks of a node have values together, which the first
                     of them fills: not written on others */
} LoadOpts;

/**
 * Fills values first .. first+num-1 of a flat buffer on every rank. The first
 * rank of a node opens, checks and reads; the others get the values from it.
 * values  [num] f32 out; values[0] is the buffer's value first; unspecified
 *         after an error
 * Collective; o, first and num are equal on all ranks (path may differ).
 * Errors, agreed: as dg_snapshot_open(), dg_manifest_plan(),
 * dg_manifest_fill().
 */
int dg_load_values(const Comm *c, const LoadOpts *o, int64_t first, int64_t num,
                   float *values);

#endif
