/* A file where runs write theirs, and how much they will write. */
#include "base/clock.h"
#include "base/error.h"
#include "base/file_lock.h"
#include "doctor_internal.h"
#include "train/run_plan.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The nearest folder above path that is there, path itself if it is. */
static void nearest(char *out, size_t bytes, const char *path)
{
    struct stat st;

    snprintf(out, bytes, "%s", *path != '\0' ? path : ".");
    while (stat(out, &st) != 0 || !S_ISDIR(st.st_mode)) {
        char *slash = strrchr(out, '/');

        if (slash == NULL)
            snprintf(out, bytes, ".");
        else
            slash[slash == out] = '\0';
        if (slash == NULL || slash == out)
            return;
    }
}

/* A rank's elements of the file: 4 MB, of many ranks less. */
static int64_t rows_of(const Comm *c)
{
    enum { MOST = 1 << 20, ALL = 1 << 26, LEAST = 1 << 12 };
    const int64_t share = ALL / c->size;

    return share > MOST ? MOST : share > LEAST ? share : LEAST;
}

static float value_at(int64_t i)
{
    return (float)(i * 7919 % 65537);
}

static int write_file(const Session *s, const char *path, float *v)
{
    const Comm *c = s->comm;
    const int64_t rows = rows_of(c);
    const H5Item item = { .name = "values",
                          .type = DG_H5_F32,
                          .num_dims = 1,
                          .dims = { rows * c->size },
                          .shared = 1,
                          .first = rows * c->rank,
                          .num = rows,
                          .data = v,
                          .units = "1",
                          .long_name = "numbers of a trial",
                          .axes = "element" };
    H5File *f;
    int err;

    for (int64_t i = 0; i < rows; i++)
        v[i] = value_at(item.first + i);
    err = dg_h5_create(&f, c, path, "dancegrpo trial", 1, &s->info,
                       item.dims[0] * (int64_t)sizeof *v);
    if (err)
        return err;
    err = dg_h5_write(f, &item);
    if (err) {
        dg_h5_abandon(f);
        return err;
    }
    return dg_h5_commit(f);
}

/* What a rank far off wrote, of another node if there is one. */
static int read_file(const Comm *c, const char *path, float *v)
{
    const int64_t dims[1] = { -1 };
    const int64_t rows = rows_of(c);
    const int64_t first = rows * ((c->rank + (c->size + 1) / 2) % c->size);
    char host[DG_DOCTOR_HOST];
    H5File *f;
    int err = dg_h5_open(&f, path, "dancegrpo trial", 1);

    dg_doctor_host(host);
    if (err)
        return dg_fail(DG_EPROMISE,
                       "%s, written by all ranks: rank %d on %s does not see "
                       "it; the folder has to be on a file system that all "
                       "nodes share",
                       path, c->rank, host);
    err = dg_h5_read_rows(f, "values", DG_H5_F32, 1, dims, first, rows, v);
    for (int64_t i = 0; i < rows && !err; i++)
        if (v[i] != value_at(first + i))
            err = dg_fail(DG_EPROMISE,
                          "%s: rank %d on %s reads %g at element %lld, where "
                          "%g was written",
                          path, c->rank, host, v[i], (long long)(first + i),
                          value_at(first + i));
    dg_h5_close(f);
    return err;
}

/* Written, read and gone again. */
static int try_file(DoctorFiles *out, const Session *s, const char *path,
                    float *v)
{
    const Comm *c = s->comm;
    double began = dg_clock_now();
    int err = write_file(s, path, v);

    out->write_s = dg_clock_now() - began;
    if (!err) {
        began = dg_clock_now();
        err = dg_agree(c, read_file(c, path, v));
        out->read_s = dg_clock_now() - began;
    }
    dg_comm_max_f64(c, &out->read_s, 1);
    if (c->rank == 0 && unlink(path) != 0 && !err)
        err = dg_fail(DG_EIO, "%s: cannot be removed", path);
    return dg_agree(c, err);
}

/* Beside the file of a trial a lock says that it goes on: a doctor is often ended
 * in the middle of it, where ranks wait for each other for ever. */
static void remove_remains(const char *folder)
{
    static const char end[] = ".h5.lock";
    char path[DG_CONFIG_STRING + 300];
    const struct dirent *entry;
    DIR *d = opendir(folder);

    while (d != NULL && (entry = readdir(d)) != NULL) {
        const size_t n = strlen(entry->d_name), m = sizeof end - 1;
        int fd = -1;

        if (strncmp(entry->d_name, "doctor-", 7) != 0 || n < 7 + m ||
            strcmp(entry->d_name + n - m, end) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        const FileLock lock = dg_file_lock(&fd, path, 0);
        if (lock == DG_LOCK_MINE) {
            unlink(path);
            strcpy(strrchr(path, '.'), ".tmp");
            unlink(path);
            *strrchr(path, '.') = '\0';
            unlink(path);
        }
        if (fd >= 0)
            close(fd);
    }
    if (d != NULL)
        closedir(d);
}

/* On rank 0 alone, in the folder that it found. */
static int try_locked(DoctorFiles *out, const Session *s, const char *path,
                      float *v)
{
    char name[DG_CONFIG_STRING + 200];
    int fd = -1, err;

    snprintf(name, sizeof name, "%s.lock", path);
    if (s->comm->rank == 0) {
        remove_remains(out->folder);
        (void)dg_file_lock(&fd, name, O_CREAT); /* the trial tells what fails */
    }
    err = try_file(out, s, path, v);
    if (fd >= 0) {
        unlink(name);
        close(fd);
    }
    return err;
}

int dg_doctor_files(DoctorFiles *out, const Session *s, const char *folder)
{
    const Comm *c = s->comm;
    const size_t bytes = sizeof(float) * (size_t)rows_of(c);
    char path[DG_CONFIG_STRING + 128], who[DG_DOCTOR_HOST + 24];
    char host[DG_DOCTOR_HOST];
    float *v = malloc(bytes);
    struct statvfs fs;
    int err =
        dg_agree(c, v != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: a file"));

    memset(out, 0, sizeof *out);
    if (err) {
        free(v);
        return err;
    }
    if (c->rank == 0)
        nearest(out->folder, sizeof out->folder, folder);
    dg_comm_bcast(c, out->folder, sizeof out->folder, 0);
    dg_doctor_host(host);
    snprintf(who, sizeof who, "%s-%lld", host, (long long)getpid());
    dg_comm_bcast(c, who, sizeof who, 0);
    snprintf(path, sizeof path, "%s/doctor-%s.h5", out->folder, who);
    out->bytes = (double)bytes * c->size;
    if (statvfs(out->folder, &fs) == 0)
        out->unused = (double)fs.f_bavail * (double)fs.f_frsize;
    err = try_locked(out, s, path, v);
    free(v);
    return err;
}

/* --- what a run writes ----------------------------------------------------------- */

/* 0 where the plan has no such line */
static double line(const PlanTable *t, const char *key)
{
    for (int i = 0; i < t->num; i++)
        if (strcmp(t->line[i].key, key) == 0)
            return (double)t->line[i].value;
    return 0;
}

/* Files of so many iterations each, and one at the end. */
static int64_t files_of(int64_t iterations, int64_t every)
{
    return every > 0 ? (iterations + every - 1) / every : 1;
}

int dg_doctor_needs(DoctorNeeds *out, const Session *s)
{
    const Config *c = s->config;
    const int64_t all = files_of(c->run.iterations, c->checkpoint.every);
    RunPlan p, all_ranks;
    int err = dg_run_plan(&p, s, 1);

    if (!err)
        err = dg_run_plan(&all_ranks, s, s->comm->size);
    if (err)
        return err;
    *out = (DoctorNeeds) {
        .checkpoint = line(&p.memory, "moments") + line(&p.memory, "ema") +
                      4 * (c->lora.rank > 0 ? line(&p.parameters, "adapters")
                                            : line(&p.parameters, "network") +
                                                  line(&p.parameters, "text")),
        /* one more while the oldest is still there */
        .checkpoints = c->checkpoint.keep > 0 && c->checkpoint.keep < all
                           ? c->checkpoint.keep + 1
                           : all,
        .sums = line(&all_ranks.traffic, "sums"),
        .weights = line(&all_ranks.traffic, "weights"),
    };
    if (c->trajectory.every == 0)
        return DG_OK;
    out->trajectory = line(&p.memory, "trajectories") + line(&p.memory, "kept");
    if (c->grpo.kl_beta > 0 && c->lora.rank == 0)
        out->trajectory += 4 * line(&p.parameters, "trained");
    out->trajectories = c->run.iterations / c->trajectory.every;
    return DG_OK;
}
