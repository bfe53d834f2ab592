#include "parallel/comm_file.h"

#include "base/error.h"
#include "comm_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* MPI counts are int: more goes in pieces of this many bytes. */
enum { PIECE_BYTES = 1 << 28 };

/*
 * Each rank opens the file for itself and all agree on what came of it. Opened
 * by all of them together, a rank that cannot (a full disk, a host on which the
 * file is not) leaves the others waiting inside of MPI: Open MPI's ranks of
 * several hosts make a second file beside it for a shared pointer, which nobody
 * wants here, and meet there. What a network's file system needs where several
 * hosts write, such as locks, MPI sees to either way.
 */
struct CommFile {
    const Comm *comm;
    MPI_File file;
    char *path;
};

static int fail(const char *path, const char *what, int code, const char *hint)
{
    char reason[MPI_MAX_ERROR_STRING] = "";
    int length;

    MPI_Error_string(code, reason, &length);
    return dg_fail(DG_EIO, "%s: cannot %s: %s%s", path, what, reason, hint);
}

/* Open MPI has a semaphore for each open file, by the last part of its name alone:
 * while another user's run on this node writes a file of that name, and after
 * it was killed, no file can be opened. */
static int fail_open(const char *path, int code)
{
    const char *slash = strrchr(path, '/');
    char other[256], hint[512] = "";

    snprintf(other, sizeof other, "/dev/shm/sem.OMPIO_%s",
             slash != NULL ? slash + 1 : path);
    if (access(other, F_OK) == 0 && access(other, R_OK | W_OK) != 0)
        snprintf(hint, sizeof hint,
                 ": %s is another user's, of a run or left by it; "
                 "OMPI_MCA_sharedfp=individual in the environment does without",
                 other);
    return fail(path, "open", code, hint);
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
    f->file = MPI_FILE_NULL;
    code = MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_WRONLY, MPI_INFO_NULL,
                         &f->file);
    if (code != MPI_SUCCESS)
        err = fail_open(path, code);
    err = dg_agree(c, err);
    if (err)
        goto close_file;
    *out = f;
    return DG_OK;
close_file:
    if (code == MPI_SUCCESS)
        MPI_File_close(&f->file);
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
        const int code = MPI_File_write_at(f->file, (MPI_Offset)offset, at, n,
                                           MPI_BYTE, &status);

        if (code == MPI_SUCCESS)
            MPI_Get_count(&status, MPI_BYTE, &written);
        if (code != MPI_SUCCESS)
            err = fail(f->path, "write", code, "");
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

int dg_comm_file_sync(CommFile *f)
{
    const int code = MPI_File_sync(f->file);

    return dg_agree(
        f->comm, code == MPI_SUCCESS ? DG_OK : fail(f->path, "sync", code, ""));
}

int dg_comm_file_close(CommFile *f)
{
    int code, err;

    if (f == NULL)
        return DG_OK;
    code = MPI_File_close(&f->file);
    err = dg_agree(f->comm, code == MPI_SUCCESS
                                ? DG_OK
                                : fail(f->path, "close", code, ""));
    free(f->path);
    free(f);
    return err;
}
