#define _GNU_SOURCE /* nftw */
#include "base/out_folder.h"

#include "base/error.h"
#include "base/file_lock.h"
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

enum { BLOCK = 1 << 20, MAX_DEPTH = 32, TRIES = 100 };

/* In the folder while it is written: who can lock it has found remains. */
static const char lock_name[] = ".dancegrpo-lock";
static const char tmp_end[] = ".tmp-XXXXXX";

struct OutFolder {
    char *path, *tmp;
    int lock; /* -1: this file system has none */
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

/* Before what it is in is removed: NFS keeps what is open. */
static void close_lock(OutFolder *f)
{
    if (f->lock >= 0)
        close(f->lock);
    f->lock = -1;
}

static void forget(OutFolder *f)
{
    if (f == NULL)
        return;
    close_lock(f);
    free(f->path);
    free(f->tmp);
    free(f);
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

static void remove_tree(const char *path)
{
    nftw(path, remove_one, MAX_DEPTH, FTW_DEPTH | FTW_PHYS);
}

/* 1: it has the form of a temporary folder's name. */
static int is_tmp_of(const char *entry, const char *name)
{
    const size_t n = strlen(name), m = sizeof tmp_end - 1;

    return strlen(entry) == n + m && strncmp(entry, name, n) == 0 &&
           strncmp(entry + n, tmp_end, m - 6) == 0;
}

/* Of a process that lives it is not. One without a lock in it has just been made,
 * or is of an older version: it goes if it is empty. */
static void remove_if_left(const char *path)
{
    char *lock;
    int fd = -1;

    if (asprintf(&lock, "%s/%s", path, lock_name) < 0)
        return;
    switch (dg_file_lock(&fd, lock, O_NOFOLLOW)) {
    case DG_LOCK_MINE:
        remove_tree(path);
        break;
    case DG_LOCK_NO_FILE:
        rmdir(path);
        break;
    case DG_LOCK_OTHERS:
    case DG_LOCK_UNKNOWN:
        break;
    }
    if (fd >= 0) {
        close(fd);
        rmdir(path); /* NFS keeps what is open under another name, in there */
    }
    free(lock);
}

/* What killed processes left beside the folder that is to be. */
static void remove_remains(const char *path)
{
    const char *slash = strrchr(path, '/');
    const int length = slash != NULL ? (int)(slash - path) + 1 : 0;
    const struct dirent *entry;
    char *folder, *one;
    DIR *d = NULL;

    if (asprintf(&folder, "%.*s.", length, path) < 0)
        return;
    d = opendir(folder);
    while (d != NULL && (entry = readdir(d)) != NULL)
        if (is_tmp_of(entry->d_name, path + length) &&
            asprintf(&one, "%.*s%s", length, path, entry->d_name) >= 0) {
            remove_if_left(one);
            free(one);
        }
    if (d != NULL)
        closedir(d);
    free(folder);
}

/* mkdtemp() keeps others out; the folder is to be like any other. */
static int make_tmp(OutFolder *f)
{
    const mode_t mask = umask(0);

    umask(mask);
    sprintf(f->tmp, "%s%s", f->path, tmp_end);
    if (mkdtemp(f->tmp) == NULL || chmod(f->tmp, 0777 & ~mask) != 0)
        return fail(f->tmp, "create");
    return DG_OK;
}

/* Until it has its lock, another process may take it for remains. */
static int make_locked(OutFolder *f)
{
    char *path;
    int err = DG_OK, have = 0;

    for (int i = 0; i < TRIES && !have && !err; i++) {
        err = make_tmp(f);
        if (err)
            break;
        if (asprintf(&path, "%s/%s", f->tmp, lock_name) < 0)
            return dg_fail(DG_ENOMEM, "%s: its name", f->path);
        const FileLock lock = dg_file_lock(&f->lock, path, O_CREAT);

        have = lock == DG_LOCK_MINE || lock == DG_LOCK_UNKNOWN;
        if (!have && lock == DG_LOCK_NO_FILE && errno != ENOENT)
            err = fail(path, "create");
        if (!have && err)
            rmdir(f->tmp);
        free(path);
    }
    if (!err && !have)
        err = dg_fail(DG_EIO, "%s: taken away as often as it is made", f->tmp);
    return err;
}

int dg_out_folder_open(OutFolder **out, const char *path)
{
    const size_t room = strlen(path) + sizeof tmp_end;
    size_t n = strlen(path);
    OutFolder *f = calloc(1, sizeof *f);
    int err;

    while (n > 1 && path[n - 1] == '/')
        n--;
    if (f != NULL) {
        f->lock = -1;
        f->path = strndup(path, n);
        f->tmp = malloc(room);
    }
    if (f == NULL || f->path == NULL || f->tmp == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: its name", path);
        goto forget_folder;
    }
    err = dg_out_folder_check(f->path);
    if (!err) {
        remove_remains(f->path);
        err = make_locked(f);
    }
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

void dg_out_folder_abandon(OutFolder *f)
{
    if (f != NULL) {
        close_lock(f);
        remove_tree(f->tmp);
    }
    forget(f);
}

/* In the finished folder: it is hidden there should the process end before. */
static void remove_lock(OutFolder *f)
{
    char *path;

    close_lock(f);
    if (asprintf(&path, "%s/%s", f->path, lock_name) < 0)
        return;
    unlink(path);
    free(path);
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
    remove_lock(f);
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
