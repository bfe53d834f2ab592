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
    uint64_t
        *digest; /* out, on all ranks: base/value_digest.h of what is read, by
                         its places in the buffer; or NULL */
} LoadOpts;

/**
 * Fills values first .. first+num-1 of a flat buffer on every rank. The ranks of a
 * node open the files, and each checks and reads a part, as many values as any
 * other; the rest it gets from them. Where one rank cannot open the files or sees
 * other ones than the first of its node, which a line of the log says, the first
 * rank of every node reads all. The nodes compare a digest of what they have read:
 * ranks that compute with different weights would train on a mixture. num = 0: the
 * files' lists of tensors are checked, by that rank.
 * values  [num] f32 out; values[0] is the buffer's value first; unspecified
 *         after an error
 * Collective; o, first and num are equal on all ranks (path may differ).
 * Errors, agreed, of the first rank of a node: as dg_snapshot_open(),
 * dg_manifest_plan(), dg_source_verify(), dg_manifest_fill(); DG_EINVAL naming the
 * hosts whose files are not those of rank 0's.
 */
int dg_load_values(const Comm *c, const LoadOpts *o, int64_t first, int64_t num,
                   float *values);

/**
 * The same comparison of values that are there, however they came, of which each
 * rank of a node looks at a part.
 * what    names them in messages
 * *digest out, as LoadOpts.digest
 * Collective. Errors, agreed: DG_EINVAL, DG_ENOMEM.
 */
int dg_load_compare(const Comm *c, const char *what, int64_t num,
                    const float *values, uint64_t *digest);

#endif
