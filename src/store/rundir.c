#include "store/rundir.h"

#include "base/error.h"
#include "base/file_lock.h"
#include "base/log.h"
#include "store/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NUM_FOLDERS = 3, PROBE_LOOKS = 50, PAUSE_NS = 100000000 };

static const struct timespec pause_between = { 0, PAUSE_NS };

static int join(char path[DG_RUNDIR_PATH], const char *root, const char *name)
{
    const int n = snprintf(path, DG_RUNDIR_PATH, "%s/%s", root, name);

    /* room for "/iter_NNNNNN.h5.tmp" behind a folder's name */
    if (n < 0 || n > DG_RUNDIR_PATH - 48)
        return dg_fail(DG_EINVAL,
                       "run.dir = \"%.80s...\": at most %d bytes are allowed",
                       root, DG_RUNDIR_PATH - 64);
    return DG_OK;
}

int dg_rundir_names(RunDir *d, const char *root)
{
    size_t length = strlen(root);
    int err;

    d->lock = 0;
    if (length == 0)
        return dg_fail(DG_EINVAL, "run.dir = \"\": a folder must be named");
    while (length > 1 && root[length - 1] == '/')
        length--;
    if (length >= sizeof d->root)
        length = sizeof d->root - 1; /* join() refuses it */
    memcpy(d->root, root, length);
    d->root[length] = '\0';
    err = join(d->config, d->root, "config.cfg");
    if (!err)
        err = join(d->metrics, d->root, "metrics.jsonl");
    if (!err)
        err = join(d->log, d->root, "log.txt");
    if (!err)
        err = join(d->report, d->root, "report.html");
    if (!err)
        err = join(d->checkpoints, d->root, "checkpoints");
    if (!err)
        err = join(d->trajectories, d->root, "trajectories");
    return err;
}

/* Makes a folder and its parents; one that is there already is fine. */
static int make_folder(const char *path)
{
    char part[DG_RUNDIR_PATH];
    struct stat st;

    for (size_t i = 1; i <= strlen(path); i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0 || errno == EEXIST)
            continue;
        const int why = errno; /* stat() has one of its own */
        if (stat(part, &st) != 0 || !S_ISDIR(st.st_mode))
            return dg_fail(DG_EIO, "%s: cannot make the folder: %s", part,
                           strerror(why));
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return dg_fail(DG_EIO, "%s: is not a folder", path);
    return DG_OK;
}

enum { PROBE_PATH = DG_RUNDIR_PATH + 16 };

static const char *probe_in(char path[PROBE_PATH], const char *folder)
{
    snprintf(path, PROBE_PATH, "%s/probe.tmp", folder);
    return path;
}

/* It stays there until the other hosts have looked for it. */
static int make_probe(const char *folder)
{
    char path[PROBE_PATH];
    FILE *f = fopen(probe_in(path, folder), "w");

    if (f == NULL)
        return dg_fail(DG_EIO, "%s: no files can be written there: %s", folder,
                       strerror(errno));
    fclose(f);
    return DG_OK;
}

/* On another host than rank 0's, as ranks write into files that rank 0 has made.
 * A network's file system may show what is new a little later. */
static int find_probe(const char *folder)
{
    char path[PROBE_PATH];
    int fd, why = 0;

    probe_in(path, folder);
    for (int i = 0; i < PROBE_LOOKS; i++) {
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            close(fd);
            return DG_OK;
        }
        why = errno;
        if (why != ENOENT && why != ESTALE)
            break;
        nanosleep(&pause_between, NULL);
    }
    return dg_fail(DG_EIO,
                   "%s: a file that rank 0 has made there cannot be opened "
                   "here (%s): run.dir has to be on a file system that all "
                   "hosts share",
                   folder, strerror(why));
}

/* What a killed run was writing. Small files may be another's, as a report that
 * is just written: those have locks. */
static void remove_unfinished(const char *folder)
{
    char path[DG_RUNDIR_PATH + 264];
    const struct dirent *entry;
    DIR *d = opendir(folder);
    int fd;

    while (d != NULL && (entry = readdir(d)) != NULL) {
        const size_t length = strlen(entry->d_name);

        if (length < 5 || strcmp(entry->d_name + length - 4, ".tmp") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        fd = -1;
        if (dg_file_lock(&fd, path, 0) != DG_LOCK_OTHERS)
            unlink(path);
        if (fd >= 0)
            close(fd);
    }
    if (d != NULL)
        closedir(d);
}

static int busy(const RunDir *d)
{
    return dg_fail(DG_EBUSY,
                   "%s: another run writes there (a process has its log.txt "
                   "locked): a folder has one run at a time; end that one, or "
                   "choose another run.dir",
                   d->root);
}

/* Without a lock another run could write there, unnoticed by both. why: of the
 * file's own; where nothing at all can be written the folder is named. */
static int no_lock(const RunDir *d, int why)
{
    char path[PROBE_PATH];
    const int err = make_probe(d->root);

    if (err)
        return err;
    unlink(probe_in(path, d->root));
    return dg_fail(DG_EIO,
                   "%s: cannot be locked against other runs in the folder: %s",
                   d->log, strerror(why));
}

int dg_rundir_lock(RunDir *d, const RunWait *wait)
{
    double patience_s = wait != NULL ? wait->patience_s : 0;
    int fd = -1, told = 0;
    FileLock lock;

    /* of the file that is there now: who was refused takes his own away */
    while ((lock = dg_file_lock(&fd, d->log, O_CREAT)) == DG_LOCK_OTHERS) {
        if (!told && patience_s > 1)
            dg_warn("%s: another run writes there: waiting up to %.0f s for "
                    "its end",
                    d->root, patience_s);
        told = 1;
        if (patience_s <= 0 || (wait->leave != NULL && wait->leave()))
            return busy(d);
        nanosleep(&pause_between, NULL);
        patience_s -= 1e-9 * PAUSE_NS;
    }
    if (lock == DG_LOCK_NO_FILE)
        return no_lock(d, errno);
    const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* 0 is none */
    const int why = errno;
    close(fd);
    if (kept < 0)
        return no_lock(d, why);
    d->lock = kept;
    if (lock == DG_LOCK_UNKNOWN)
        dg_warn("%s: this file system has no locks: nothing keeps a second run "
                "from writing there too",
                d->root);
    return DG_OK;
}

void dg_rundir_close(RunDir *d)
{
    if (d->lock > 0)
        close(d->lock);
    d->lock = 0;
}

/* A run that is refused leaves no file. */
static void give_back(RunDir *d)
{
    struct stat st;

    if (d->lock > 0 && fstat(d->lock, &st) == 0 && st.st_size == 0)
        unlink(d->log);
    dg_rundir_close(d);
}

static int read_config(const RunDir *d, char **stored, size_t *bytes)
{
    return access(d->config, F_OK) == 0 ? dg_file_read(d->config, stored, bytes)
                                        : DG_OK;
}

/* Whether a folder is there or could be made, and files in it. */
static int look_at_folder(const char *path)
{
    char part[DG_RUNDIR_PATH];
    struct stat st;

    snprintf(part, sizeof part, "%s", path);
    while (stat(part, &st) != 0) {
        char *slash = strrchr(part, '/');

        if (errno != ENOENT)
            return dg_fail(DG_EIO, "%s: %s", path, strerror(errno));
        if (slash == NULL)
            strcpy(part, ".");
        else
            slash[slash == part] = '\0';
    }
    if (!S_ISDIR(st.st_mode))
        return dg_fail(DG_EIO, "%s: is not a folder", part);
    if (access(part, W_OK | X_OK) != 0)
        return dg_fail(DG_EIO, "%s: nothing can be written there: %s", part,
                       strerror(errno));
    return DG_OK;
}

static int open_on_rank_0(RunDir *d, const RunWait *wait, char **stored,
                          size_t *bytes)
{
    const char *const folders[] = { d->root, d->checkpoints, d->trajectories };
    char pictures[DG_RUNDIR_PATH + 16];
    int err = DG_OK;

    for (int i = 0; i < NUM_FOLDERS && !err; i++) {
        err = make_folder(folders[i]);
        if (!err && i == 0) /* before anything of another run is touched */
            err = dg_rundir_lock(d, wait);
        if (!err)
            remove_unfinished(folders[i]);
        if (!err)
            err = make_probe(folders[i]);
    }
    snprintf(pictures, sizeof pictures, "%s/pictures", d->root);
    if (!err) /* made with the first of them */
        remove_unfinished(pictures);
    return err ? err : read_config(d, stored, bytes);
}

/* Whether all hosts see the folder; err: whether rank 0 has it. */
static int find_on_hosts(const Comm *c, const RunDir *d, int err)
{
    const char *const folders[] = { d->root, d->checkpoints, d->trajectories };
    char path[PROBE_PATH];

    err = dg_agree(c, err);
    for (int i = 0; i < NUM_FOLDERS && !err; i++)
        if (c->rank > 0 && c->node_rank == 0)
            err = find_probe(folders[i]);
    err = dg_agree(c, err);
    for (int i = 0; i < NUM_FOLDERS && c->rank == 0; i++)
        unlink(probe_in(path, folders[i]));
    return err;
}

/* Text of rank 0's config.cfg to all; freed on an error. */
static int share_config(const Comm *c, int err, char *text, size_t bytes,
                        char **stored)
{
    int64_t there = text != NULL;

    err = dg_agree(c, err);
    if (!err)
        dg_comm_bcast(c, &there, sizeof there, 0);
    if (!err && there)
        err = dg_comm_bcast_alloc(c, &text, &bytes, 0);
    if (err) {
        free(text);
        return err;
    }
    *stored = text;
    return DG_OK;
}

int dg_rundir_open(const Comm *c, RunDir *d, const char *root,
                   const RunWait *wait, char **stored)
{
    char *text = NULL;
    size_t bytes = 0;
    int err = dg_agree(c, dg_rundir_names(d, root));

    if (err)
        return err;
    if (c->rank == 0)
        err = open_on_rank_0(d, wait, &text, &bytes);
    err = find_on_hosts(c, d, err);
    err = share_config(c, err, text, bytes, stored);
    if (err)
        give_back(d);
    return err;
}

int dg_rundir_look(const Comm *c, RunDir *d, const char *root, char **stored)
{
    char *text = NULL;
    size_t bytes = 0;
    int err = dg_agree(c, dg_rundir_names(d, root));

    if (err)
        return err;
    if (c->rank == 0)
        err = look_at_folder(d->root);
    if (c->rank == 0 && !err)
        err = read_config(d, &text, &bytes);
    return share_config(c, err, text, bytes, stored);
}

int dg_rundir_write_config(const Comm *c, const RunDir *d, const char *text)
{
    return dg_agree(
        c, c->rank == 0 ? dg_file_write(d->config, text, strlen(text)) : DG_OK);
}
