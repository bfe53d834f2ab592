#include "store/trajectory.h"

#include "base/error.h"
#include "base/sha256.h"
#include "store/checkpoint.h"

#include <stdio.h>

enum { PATH_BYTES = 1200 };

void dg_trajectory_path(char *path, size_t bytes, const char *dir,
                        int64_t iteration)
{
    snprintf(path, bytes, "%s/iter_%06lld.h5", dir, (long long)iteration);
}

static int64_t bytes_of(const H5Item *d)
{
    int64_t bytes =
        d->type == DG_H5_TEXT ? 256 : (int64_t)dg_h5_type_bytes(d->type);

    for (int i = 0; i < d->num_dims && i < DG_H5_MAX_DIMS; i++)
        bytes *= d->dims[i];
    return bytes + 6144; /* its header, and the rest of its last page */
}

static int write_notes(H5File *f, const TrajectoryNote *notes, int num_notes)
{
    int err = DG_OK;

    for (int i = 0; i < num_notes && !err; i++)
        err = notes[i].text != NULL
                  ? dg_h5_put_text(f, NULL, notes[i].key, notes[i].text)
                  : dg_h5_put_i64(f, NULL, notes[i].key, notes[i].value);
    return err;
}

/* Rows of a dataset as bytes, for their digest. */
typedef struct Bytes {
    const H5Item *item;
    int64_t element, first; /* bytes of one; the first that is here */
} Bytes;

static int get_bytes(void *user, void *to, int64_t first, int64_t num)
{
    const Bytes *b = user;

    return b->item->fetch(b->item->user, to, (b->first + first) / b->element,
                          num / b->element);
}

/* Whoever has the file at home cannot replay it there: digests tell whether it
 * came whole. Not of texts; what is fetched has rows of one number. */
static int write_digest(H5File *f, const Comm *c, const H5Item *d)
{
    char digest[DG_SHA256_HEX] = "";
    Bytes bytes = { d, (int64_t)dg_h5_type_bytes(d->type), 0 };
    int64_t row = bytes.element, rows = d->num_dims > 0 ? d->dims[0] : 1;
    CheckpointArray a = { .name = d->name,
                          .coded = 1,
                          .data = (void *)d->data,
                          .shared = d->shared,
                          .get = get_bytes,
                          .user = &bytes };
    int err;

    for (int i = 1; i < d->num_dims; i++)
        row *= d->dims[i];
    a.num = rows * row;
    a.first = d->first * row;
    a.held = d->num * row;
    bytes.first = d->shared ? a.first : 0;
    err = dg_checkpoint_digest_pieces(digest, c, &a);
    return err ? err : dg_h5_put_text(f, d->name, DG_CHECKPOINT_PIECES, digest);
}

static int write_item(H5File *f, const Comm *c, const H5Item *d)
{
    const int err = dg_h5_write(f, d);

    return err || d->type == DG_H5_TEXT ? err : write_digest(f, c, d);
}

int dg_trajectory_write(const Comm *c, const char *dir, int64_t iteration,
                        const H5Item *items, int num_items,
                        const TrajectoryNote *notes, int num_notes,
                        const FileInfo *info)
{
    char path[PATH_BYTES];
    int64_t bytes = 0;
    H5File *f;
    int err;

    for (int i = 0; i < num_items; i++)
        bytes += bytes_of(&items[i]);
    dg_trajectory_path(path, sizeof path, dir, iteration);
    err = dg_h5_create(&f, c, path, DG_TRAJECTORY_FORMAT, DG_TRAJECTORY_VERSION,
                       info, bytes);
    if (err)
        return err;
    err = dg_h5_put_i64(f, NULL, "iteration", iteration);
    if (!err)
        err = write_notes(f, notes, num_notes);
    for (int i = 0; i < num_items && !err; i++)
        err = write_item(f, c, &items[i]);
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
    return err;
}

int dg_trajectory_open(H5File **out, const char *path)
{
    return dg_h5_open(out, path, DG_TRAJECTORY_FORMAT, DG_TRAJECTORY_VERSION);
}
