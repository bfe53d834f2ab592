#include "store/trajectory.h"

#include "base/error.h"

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
        err = dg_h5_write(f, &items[i]);
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
