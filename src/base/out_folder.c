#define _GNU_SOURCE /* nftw */
#include "base/out_folder.h"

#include "base/error.h"
#include "base/out_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, MAX_DEPTH = 32 };

struct OutFolder {
    char *path, *tmp;
};

static int fail(const char *path, const char *what)
{
    return dg_fail(DG_EIO, "%s: cannot %s: %s", path, what, strerror(errno));
}

int dg_out_folder_check(const char *path)
{
    struct stat there;

    if (lstat(path, &there) == 0)
        return dg_fail(DG_EINVAL,
                       "%s: is there already: must be the name of a new folder",
                       path);
    return errno == ENOENT ? DG_OK : fail(path, "look at");
}

static void forget(OutFolder *f)
{
    if (f == NULL)
        return;
    free(f->path);
    free(f->tmp);
    free(f);
}

/* mkdtemp() keeps others out; the folder is to be like any other. */
static int make_tmp(OutFolder *f)
{
    const mode_t mask = umask(0);

    umask(mask);
    if (mkdtemp(f->tmp) == NULL || chmod(f->tmp, 0777 & ~mask) != 0)
        return fail(f->tmp, "create");
    return DG_OK;
}

int dg_out_folder_open(OutFolder **out, const char *path)
{
    const size_t room = strlen(path) + sizeof ".tmp-XXXXXX";
    size_t n = strlen(path);
    OutFolder *f = calloc(1, sizeof *f);
    int err;

    while (n > 1 && path[n - 1] == '/')
        n--;
    if (f != NULL) {
        f->path = strndup(path, n);
        f->tmp = malloc(room);
    }
    if (f == NULL || f->path == NULL || f->tmp == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: its name", path);
        goto forget_folder;
    }
    snprintf(f->tmp, room, "%s.tmp-XXXXXX", f->path);
    err = dg_out_folder_check(f->path);
    if (!err)
        err = make_tmp(f);
    if (err)
        goto forget_folder;
    *out = f;
    return DG_OK;
forget_folder:
    forget(f);
    return err;
}

const char *dg_out_folder_path(const OutFolder *f)
{
    return f->tmp;
}

static int remove_one(const char *path, const struct stat *s, int type,
                      struct FTW *at)
{
    (void)s;
    (void)type;
    (void)at;
    remove(path);
    return 0;
}

void dg_out_folder_abandon(OutFolder *f)
{
    if (f != NULL)
        nftw(f->tmp, remove_one, MAX_DEPTH, FTW_DEPTH | FTW_PHYS);
    forget(f);
}

/* The names in a folder last. */
static int sync_inside(const char *folder)
{
    char *inside;
    int err;

    if (asprintf(&inside, "%s/.", folder) < 0)
        return dg_fail(DG_ENOMEM, "%s: its name", folder);
    err = dg_out_sync_folder(inside);
    free(inside);
    return err;
}

int dg_out_folder_commit(OutFolder *f)
{
    int err = sync_inside(f->tmp);

    if (!err) /* rename() would replace an empty folder */
        err = dg_out_folder_check(f->path);
    if (!err && rename(f->tmp, f->path) != 0)
        err = fail(f->path, "rename into");
    if (err) {
        dg_out_folder_abandon(f);
        return err;
    }
    err = dg_out_sync_folder(f->path);
    forget(f);
    return err;
}

/* Copies ---------------------------------------------------------------- */

static int copy_bytes(OutFile *to, int from, const char *path, char *block)
{
    for (;;) {
        const ssize_t n = read(from, block, BLOCK);
        int err;

        if (n == 0)
            return DG_OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(path, "read");
        err = dg_out_write(to, block, (size_t)n);
        if (err)
            return err;
    }
}

int dg_out_copy_file(const char *from, const char *to)
{
    const int in = open(from, O_RDONLY | O_CLOEXEC);
    char *block = malloc(BLOCK);
    OutFile *out = NULL;
    int err = DG_OK;

    if (in < 0)
        err = fail(from, "open");
    else if (block == NULL)
        err = dg_fail(DG_ENOMEM, "%s: a block of it", from);
    if (!err)
        err = dg_out_open(&out, to);
    if (!err) {
        err = copy_bytes(out, in, from, block);
        if (err)
            dg_out_abandon(out);
        else
            err = dg_out_commit(out);
    }
    if (in >= 0)
        close(in);
    free(block);
    return err;
}

static int copy_level(const char *from, const char *to, int depth);

static int copy_entry(const char *from, const char *to, const char *name,
                      int depth)
{
    char *source = NULL, *target = NULL;
    struct stat what;
    int err = DG_OK;

    if (asprintf(&source, "%s/%s", from, name) < 0)
        source = NULL;
    if (asprintf(&target, "%s/%s", to, name) < 0)
        target = NULL;
    if (source == NULL || target == NULL)
        err = dg_fail(DG_ENOMEM, "%s/%s: its name", from, name);
    else if (stat(source, &what) != 0)
        err = fail(source, "look at");
    else if (S_ISDIR(what.st_mode))
        err = copy_level(source, target, depth + 1);
    else if (S_ISREG(what.st_mode))
        err = dg_out_copy_file(source, target);
    else
        err = dg_fail(DG_EIO, "%s: neither a file nor a folder", source);
    free(source);
    free(target);
    return err;
}

static int copy_level(const char *from, const char *to, int depth)
{
    const struct dirent *entry;
    DIR *d;
    int err = DG_OK;

    if (depth > MAX_DEPTH)
        return dg_fail(DG_EIO, "%s: more than %d folders deep", from,
                       MAX_DEPTH);
    d = opendir(from);
    if (d == NULL)
        return fail(from, "list");
    if (mkdir(to, 0777) != 0)
        err = fail(to, "create");
    while (!err && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.')
            err = copy_entry(from, to, entry->d_name, depth);
    closedir(d);
    return err ? err : sync_inside(to);
}

int dg_out_copy_folder(const char *from, const char *to)
{
    return copy_level(from, to, 0);
}
