#include "store/rundir.h"

#include "base/clock.h"
#include "base/error.h"
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

enum { NUM_FOLDERS = 3, PROBE_LOOKS = 50, LOCK_LOOKS = 30 };

static const struct timespec pause_between = { 0, 100000000 };

/* The lock of the run that this process is, for as long as it lives. */
static int held = -1;

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
        if (stat(part, &st) != 0 || !S_ISDIR(st.st_mode))
            return dg_fail(DG_EIO, "%s: cannot make the folder: %s", part,
                           strerror(errno));
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

/* Who holds the lock, as note_holder() has left it; "" where that is unknown. */
static void read_holder(int fd, char *text, size_t size)
{
    const ssize_t got = pread(fd, text, size - 1, 0);

    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static void note_holder(int fd)
{
    char host[256] = "", date[DG_DATE_BYTES], text[400];

    (void)gethostname(host, sizeof host - 1);
    dg_clock_date(date);
    const int n = snprintf(text, sizeof text, "process %ld on %s since %s\n",
                           (long)getpid(), host, date);

    /* for people alone: a full disk is told where it matters */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return;
}

/*
 * A folder has one run at a time: a second, as of a job that was submitted twice
 * or put back while its ranks are still dying, would remove what the first is
 * writing and write the same names. The system gives the lock back when the
 * process ends, however it ends; the dying are waited for a little. A file
 * system without locks, or a file that is not ours to write, hinders nobody.
 */
static int hold_folder(const RunDir *d)
{
    const struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char path[PROBE_PATH], holder[400];
    int fd, busy = 0;

    snprintf(path, sizeof path, "%s/run.lock", d->root);
    if (held >= 0)
        close(held);
    held = -1;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    for (int i = 0; fd >= 0 && i < LOCK_LOOKS; i++) {
        if (i > 0)
            nanosleep(&pause_between, NULL);
        busy = fcntl(fd, F_SETLK, &all) != 0 &&
               (errno == EACCES || errno == EAGAIN);
        if (!busy)
            break;
    }
    if (busy) {
        read_holder(fd, holder, sizeof holder);
        close(fd);
        return dg_fail(DG_EIO,
                       "%s: another run is writing there%s%s: a run.dir has "
                       "one run at a time",
                       d->root, holder[0] != '\0' ? ", " : "", holder);
    }
    if (fd >= 0)
        note_holder(fd);
    held = fd;
    return DG_OK;
}

/* Of a folder in which no run begins. */
static void let_go(const RunDir *d)
{
    char path[PROBE_PATH];

    if (held < 0)
        return;
    snprintf(path, sizeof path, "%s/run.lock", d->root);
    unlink(path);
    close(held);
    held = -1;
}

/* What a killed run was writing has no other user: the folder has one run. */
static void remove_unfinished(const char *folder)
{
    char path[DG_RUNDIR_PATH + 264];
    const struct dirent *entry;
    DIR *d = opendir(folder);

    while (d != NULL && (entry = readdir(d)) != NULL) {
        const size_t length = strlen(entry->d_name);

        if (length < 5 || strcmp(entry->d_name + length - 4, ".tmp") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
}

static int open_on_rank_0(const RunDir *d, char **stored, size_t *bytes)
{
    const char *const folders[] = { d->root, d->checkpoints, d->trajectories };
    char pictures[DG_RUNDIR_PATH + 16];
    int err = DG_OK;

    for (int i = 0; i < NUM_FOLDERS && !err; i++) {
        err = make_folder(folders[i]);
        if (!err && i == 0)
            err = hold_folder(d);
        if (!err)
            remove_unfinished(folders[i]);
        if (!err)
            err = make_probe(folders[i]);
    }
    snprintf(pictures, sizeof pictures, "%s/pictures", d->root);
    if (!err) /* made with the first of them */
        remove_unfinished(pictures);
    if (!err && access(d->config, F_OK) == 0)
        err = dg_file_read(d->config, stored, bytes);
    return err;
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

int dg_rundir_open(const Comm *c, RunDir *d, const char *root, char **stored)
{
    char *text = NULL;
    size_t bytes = 0;
    int64_t there = 0;
    int err = dg_agree(c, dg_rundir_names(d, root));

    if (err)
        return err;
    if (c->rank == 0)
        err = open_on_rank_0(d, &text, &bytes);
    err = find_on_hosts(c, d, err);
    if (err && c->rank == 0)
        let_go(d);
    if (err)
        goto free_text;
    there = text != NULL;
    dg_comm_bcast(c, &there, sizeof there, 0);
    if (there)
        err = dg_comm_bcast_alloc(c, &text, &bytes, 0);
    if (err)
        goto free_text;
    *stored = text;
    return DG_OK;
free_text:
    free(text);
    return err;
}

int dg_rundir_write_config(const Comm *c, const RunDir *d, const char *text)
{
    return dg_agree(
        c, c->rank == 0 ? dg_file_write(d->config, text, strlen(text)) : DG_OK);
}
