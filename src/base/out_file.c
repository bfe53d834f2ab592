#include "base/out_file.h"

#include "base/error.h"
#include "base/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Others who write the same small file soon end. */
enum { PATIENCE_S = 10 };

struct OutFile {
    char *path, *tmp;
    int fd;
};

static int fail(const char *path, const char *what)
{
    return dg_fail(DG_EIO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static void forget(OutFile *f)
{
    if (f == NULL)
        return;
    free(f->path);
    free(f->tmp);
    free(f);
}

/* What a killed process left is taken, what a living one writes is not. */
static int open_tmp(OutFile *f)
{
    int err;

    switch (dg_file_lock_wait(&f->fd, f->tmp, O_CREAT, PATIENCE_S)) {
    case DG_LOCK_OTHERS:
        return dg_fail(DG_EIO, "%s: another process is writing it (%s)",
                       f->path, f->tmp);
    case DG_LOCK_NO_FILE:
        return fail(f->path, "create");
    case DG_LOCK_MINE:
    case DG_LOCK_UNKNOWN:
        break;
    }
    if (ftruncate(f->fd, 0) == 0)
        return DG_OK;
    err = fail(f->path, "create");
    unlink(f->tmp); /* it is locked, so nobody else writes it */
    close(f->fd);
    return err;
}

/* The new file would take its name, and root's even that of /dev/null. */
static int check_name(const char *path)
{
    struct stat s;

    if (stat(path, &s) != 0 || S_ISREG(s.st_mode))
        return DG_OK;
    return dg_fail(DG_EIO, "%s: cannot create: a %s has that name", path,
                   S_ISDIR(s.st_mode) ? "folder" : "device, pipe or socket");
}

int dg_out_open(OutFile **out, const char *path)
{
    const size_t room = strlen(path) + sizeof ".tmp";
    OutFile *f;
    int err = check_name(path);

    if (err)
        return err;
    f = calloc(1, sizeof *f);
    if (f != NULL) {
        f->path = strdup(path);
        f->tmp = malloc(room);
    }
    if (f == NULL || f->path == NULL || f->tmp == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: its name", path);
        goto forget_file;
    }
    snprintf(f->tmp, room, "%s.tmp", path);
    err = open_tmp(f);
    if (err)
        goto forget_file;
    *out = f;
    return DG_OK;
forget_file:
    forget(f);
    return err;
}

int dg_out_try(const char *path)
{
    OutFile *f;
    const int err = dg_out_open(&f, path);

    if (!err)
        dg_out_abandon(f);
    return err;
}

int dg_out_write(OutFile *f, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        const ssize_t n = write(f->fd, at, bytes);

        if (n < 0 && errno != EINTR)
            return fail(f->path, "write");
        at += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return DG_OK;
}

int dg_out_commit(OutFile *f)
{
    const int lock = fcntl(f->fd, F_DUPFD_CLOEXEC, 3); /* until it is named */
    int err = DG_OK;

    if (fsync(f->fd) != 0)
        err = fail(f->path, "write");
    if (close(f->fd) != 0 && err == DG_OK)
        err = fail(f->path, "write");
    if (err == DG_OK && rename(f->tmp, f->path) != 0)
        err = fail(f->path, "rename into");
    if (err == DG_OK)
        err = dg_out_sync_folder(f->path);
    else
        unlink(f->tmp);
    if (lock >= 0)
        close(lock);
    forget(f);
    return err;
}

void dg_out_abandon(OutFile *f)
{
    if (f == NULL)
        return;
    unlink(f->tmp);
    close(f->fd);
    forget(f);
}

int dg_out_sync_folder(const char *path_in_folder)
{
    const char *slash = strrchr(path_in_folder, '/');
    const size_t length = slash ? (size_t)(slash - path_in_folder) : 0;
    char *folder =
        slash ? strndup(path_in_folder, length ? length : 1) : strdup(".");
    int err = DG_OK, fd;

    if (folder == NULL)
        return dg_fail(DG_ENOMEM, "%s: its folder's name", path_in_folder);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot sync a folder and say EINVAL. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        err = fail(folder, "sync");
    if (fd >= 0)
        close(fd);
    free(folder);
    return err;
}
