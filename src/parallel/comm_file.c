#include "parallel/comm_file.h"

#include "base/error.h"
#include "comm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* MPI counts are int: more goes in pieces of this many bytes. */
enum { PIECE_BYTES = 1 << 28 };

struct CommFile {
    const Comm *comm;
    MPI_File file;
    char *path;
};

static int fail(const char *path, const char *what, int code)
{
    char reason[MPI_MAX_ERROR_STRING] = "";
    int length;

    MPI_Error_string(code, reason, &length);
    return dg_fail(DG_EIO, "%s: cannot %s: %s", path, what, reason);
}

int dg_comm_file_open(CommFile **out, const Comm *c, const char *path)
{
    CommFile *f = calloc(1, sizeof *f);
    char *name = strdup(path);
    int code, err = DG_OK;

    if (f == NULL || name == NULL)
        err = dg_fail(DG_ENOMEM, "%s: shared file", path);
    err = dg_agree(c, err);
    if (err)
        goto free_file;
    f->comm = c;
    f->path = name;
    dg_comm_enter(c, "the opening of a shared file", 1);
    code = MPI_File_open(c->impl->mpi, path, MPI_MODE_WRONLY, MPI_INFO_NULL,
                         &f->file);
    dg_comm_leave(c);
    if (code != MPI_SUCCESS)
        err = fail(path, "open", code);
    err = dg_agree(c, err);
    if (err)
        goto free_file;
    MPI_File_set_errhandler(f->file, MPI_ERRORS_RETURN);
    *out = f;
    return DG_OK;
free_file:
    free(name);
    free(f);
    return err;
}

int dg_comm_file_write(CommFile *f, int64_t offset, const void *data,
                       size_t bytes)
{
    const char *at = data;
    int err = DG_OK;

    while (bytes > 0 && !err) {
        const int n = bytes < PIECE_BYTES ? (int)bytes : PIECE_BYTES;
        MPI_Status status;
        int written = 0;
        /* Not the collective write: the blocks are long and contiguous, and
           a rank whose disk fails must not leave the others waiting. */
        const int code = MPI_File_write_at(f->file, (MPI_Offset)offset, at, n,
                                           MPI_BYTE, &status);

        if (code == MPI_SUCCESS)
            MPI_Get_count(&status, MPI_BYTE, &written);
        if (code != MPI_SUCCESS)
            err = fail(f->path, "write", code);
        else if (written != n) /* how Open MPI reports a full disk */
            err = dg_fail(DG_EIO,
                          "%s: cannot write: %d of %d bytes went: the disk "
                          "is full, or a quota or size limit is reached",
                          f->path, written, n);
        offset += n;
        at += n;
        bytes -= (size_t)n;
    }
    return dg_agree(f->comm, err);
}

/* What this rank has written, by itself. */
static int sync_own(const char *path)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    int err = DG_OK;

    if (fd < 0 || fsync(fd) != 0)
        err = dg_fail(DG_EIO, "%s: cannot sync: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return err;
}

int dg_comm_file_sync(CommFile *f)
{
    int code, err;

    /* who sleeps meets the others in MPI's sync once all are through: there
     * they would wait awake */
    if (f->comm->impl->sleeps) {
        err = dg_agree(f->comm, sync_own(f->path));
        if (err)
            return err;
    }
    dg_comm_enter(f->comm, "the sync of a shared file", 1);
    code = MPI_File_sync(f->file);
    dg_comm_leave(f->comm);
    return dg_agree(f->comm,
                    code == MPI_SUCCESS ? DG_OK : fail(f->path, "sync", code));
}

int dg_comm_file_close(CommFile *f)
{
    int code, err;

    if (f == NULL)
        return DG_OK;
    dg_comm_enter(f->comm, "the closing of a shared file", 1);
    code = MPI_File_close(&f->file);
    dg_comm_leave(f->comm);
    err = dg_agree(f->comm,
                   code == MPI_SUCCESS ? DG_OK : fail(f->path, "close", code));
    free(f->path);
    free(f);
    return err;
}
