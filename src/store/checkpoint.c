#include "store/checkpoint.h"

#include "base/error.h"
#include "base/log.h"
#include "base/sha256.h"
#include "checkpoint_array.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 1200 };

void dg_checkpoint_path(char *path, size_t bytes, const char *dir,
                        int64_t iteration)
{
    snprintf(path, bytes, "%s/iter_%06lld.h5", dir, (long long)iteration);
}

/* Folder ---------------------------------------------------------------- */

/* The iteration of a name made by dg_checkpoint_path(), or -1. */
static int64_t iteration_of(const char *name)
{
    long long iteration;
    char again[64];

    if (sscanf(name, "iter_%lld.h5", &iteration) != 1 || iteration < 0)
        return -1;
    snprintf(again, sizeof again, "iter_%06lld.h5", iteration);
    return strcmp(name, again) == 0 ? (int64_t)iteration : -1;
}

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static int keep_one(int64_t **list, int *num, int64_t iteration)
{
    int64_t *more;

    if (iteration < 0)
        return DG_OK;
    more = realloc(*list, ((size_t)*num + 1) * sizeof *more);
    if (more == NULL)
        return dg_fail(DG_ENOMEM, "list of checkpoints");
    more[(*num)++] = iteration;
    *list = more;
    return DG_OK;
}

int dg_checkpoint_list(const char *dir, int64_t **list, int *num)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    int64_t *found = NULL;
    int count = 0, err = DG_OK;

    if (d == NULL && errno != ENOENT)
        return dg_fail(DG_EIO, "%s: cannot list: %s", dir, strerror(errno));
    while (d != NULL && !err && (entry = readdir(d)) != NULL)
        err = keep_one(&found, &count, iteration_of(entry->d_name));
    if (d != NULL)
        closedir(d);
    if (err) {
        free(found);
        return err;
    }
    if (count > 1)
        qsort(found, (size_t)count, sizeof *found, ascending);
    *list = found;
    *num = count;
    return DG_OK;
}

/* What cannot be removed is a nuisance, not a failed checkpoint. */
static void prune(const char *dir, int64_t current, int64_t keep)
{
    char path[PATH_BYTES];
    int64_t *list = NULL;
    int num = 0;

    if (keep <= 0 || dg_checkpoint_list(dir, &list, &num) != DG_OK)
        return;
    while (num > 0 && list[num - 1] > current)
        num--;
    for (int i = 0; i < num - keep; i++) {
        dg_checkpoint_path(path, sizeof path, dir, list[i]);
        if (unlink(path) != 0)
            dg_warn("%s: cannot remove: %s", path, strerror(errno));
    }
    free(list);
}

/* Writing --------------------------------------------------------------- */

static int check_finite(const Checkpoint *k)
{
    int err = DG_OK;

    for (int a = 0; a < k->num_arrays && !err; a++)
        err = dg_checkpoint_array_finite(&k->arrays[a], k->iteration);
    return err;
}

/* The index of parameters as columns of a table. */
typedef struct Index {
    const char **name;
    int64_t *offset, *num_dims, *shape; /* shape [num][DG_H5_MAX_DIMS] */
} Index;

static void free_index(Index *x)
{
    free(x->name);
    free(x->offset);
    free(x->num_dims);
    free(x->shape);
}

static int make_index(Index *x, const CheckpointParam *params, int num)
{
    const size_t n = (size_t)(num > 0 ? num : 1);

    x->name = calloc(n, sizeof *x->name);
    x->offset = calloc(n, sizeof *x->offset);
    x->num_dims = calloc(n, sizeof *x->num_dims);
    x->shape = calloc(n * DG_H5_MAX_DIMS, sizeof *x->shape);
    if (!x->name || !x->offset || !x->num_dims || !x->shape)
        return dg_fail(DG_ENOMEM, "index of %d parameters", num);
    for (int i = 0; i < num; i++) {
        x->name[i] = params[i].name;
        x->offset[i] = params[i].offset;
        x->num_dims[i] = params[i].num_dims;
        memcpy(x->shape + (size_t)i * DG_H5_MAX_DIMS, params[i].dims,
               sizeof params[i].dims);
    }
    return DG_OK;
}

static int write_index(H5File *f, const Comm *c, const CheckpointParam *params,
                       int num)
{
    Index x = { 0 };
    int err = dg_agree(c, make_index(&x, params, num));
    const H5Item items[] = {
        { .name = "parameters/name",
          .type = DG_H5_TEXT,
          .num_dims = 1,
          .dims = { num },
          .data = x.name,
          .units = "1",
          .long_name = "safetensors key",
          .axes = "parameter" },
        { .name = "parameters/offset",
          .type = DG_H5_I64,
          .num_dims = 1,
          .dims = { num },
          .data = x.offset,
          .units = "elements",
          .long_name = "first element in the flat arrays",
          .axes = "parameter" },
        { .name = "parameters/num_dims",
          .type = DG_H5_I64,
          .num_dims = 1,
          .dims = { num },
          .data = x.num_dims,
          .units = "1",
          .long_name = "number of dimensions",
          .axes = "parameter" },
        { .name = "parameters/shape",
          .type = DG_H5_I64,
          .num_dims = 2,
          .dims = { num, DG_H5_MAX_DIMS },
          .data = x.shape,
          .units = "elements",
          .long_name = "shape, 0 where not used",
          .axes = "parameter, dimension" },
    };

    for (int i = 0; i < 4 && !err; i++)
        err = dg_h5_write(f, &items[i]);
    free_index(&x);
    return err;
}

/* AdamW's step is one number; another one makes other weights, silently. */
static int write_counter(H5File *f, const Comm *c, const CheckpointCounter *n)
{
    char name[DG_H5_NAME];
    const H5Item item = { .name = name,
                          .type = DG_H5_I64,
                          .data = &n->value,
                          .units = "1",
                          .long_name = n->name,
                          .axes = "none" };

    char digest[DG_SHA256_HEX];
    int err = dg_agree(c, dg_sha256_bytes(digest, &n->value, sizeof n->value));

    snprintf(name, sizeof name, "counters/%s", n->name);
    if (!err)
        err = dg_h5_write(f, &item);
    return err ? err : dg_h5_put_text(f, name, "sha256", digest);
}

static int write_content(H5File *f, const Comm *c, const Checkpoint *k)
{
    int err = dg_h5_put_i64(f, NULL, "iteration", k->iteration);

    for (int i = 0; i < k->num_notes && !err; i++)
        if (!k->notes[i].is_version || k->notes[i].value[0] != '\0')
            err = dg_h5_put_text(f, NULL, k->notes[i].key, k->notes[i].value);
    for (int i = 0; i < k->num_arrays && !err; i++)
        err = dg_checkpoint_array_write(f, c, &k->arrays[i]);
    if (!err)
        err = write_index(f, c, k->params, k->num_params);
    for (int i = 0; i < k->num_counters && !err; i++)
        err = write_counter(f, c, &k->counters[i]);
    return err;
}

int dg_checkpoint_write(const Comm *c, const char *dir, const Checkpoint *k,
                        const FileInfo *info, int64_t keep)
{
    char path[PATH_BYTES];
    int64_t bytes = (int64_t)k->num_params * 1024;
    H5File *f;
    int err = dg_agree(c, check_finite(k));

    for (int i = 0; i < k->num_arrays; i++)
        bytes += k->arrays[i].num *
                     (int64_t)dg_checkpoint_array_size(&k->arrays[i]) +
                 4096;
    dg_checkpoint_path(path, sizeof path, dir, k->iteration);
    if (!err)
        err = dg_h5_create(&f, c, path, DG_CHECKPOINT_FORMAT,
                           DG_CHECKPOINT_VERSION, info, bytes);
    if (err)
        return err;
    err = write_content(f, c, k);
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
    if (!err && c->rank == 0)
        prune(dir, k->iteration, keep);
    return err;
}

/* Reading --------------------------------------------------------------- */

static int compare_index(H5File *f, const CheckpointParam *params, int num,
                         char **names, const Index *x)
{
    for (int i = 0; i < num; i++) {
        const CheckpointParam *p = &params[i];
        const int64_t *shape = x->shape + (size_t)i * DG_H5_MAX_DIMS;
        int same = strcmp(names[i], p->name) == 0 &&
                   x->offset[i] == p->offset && x->num_dims[i] == p->num_dims;

        for (int d = 0; d < p->num_dims && same; d++)
            same = shape[d] == p->dims[d];
        if (!same)
            return dg_fail(DG_EFORMAT,
                           "%s: dataset parameters/name: parameter %d is %s, "
                           "of this run's network it is %s, or its shape or "
                           "place differ",
                           dg_h5_path(f), i, names[i], p->name);
    }
    return DG_OK;
}

static int read_index(H5File *f, const CheckpointParam *params, int num)
{
    const int64_t shape[] = { num, DG_H5_MAX_DIMS };
    char **names = NULL;
    int64_t num_names = 0;
    Index x = { 0 };
    int err;

    if (num == 0)
        return DG_OK;
    err = make_index(&x, params, num);
    if (!err)
        err = dg_h5_read_texts(f, "parameters/name", &names, &num_names);
    if (!err && num_names != num)
        err = dg_fail(DG_EFORMAT,
                      "%s: dataset parameters/name has %lld parameters, "
                      "this run's network has %d",
                      dg_h5_path(f), (long long)num_names, num);
    if (!err)
        err = dg_h5_read(f, "parameters/offset", DG_H5_I64, 1, shape, x.offset);
    if (!err)
        err = dg_h5_read(f, "parameters/num_dims", DG_H5_I64, 1, shape,
                         x.num_dims);
    if (!err)
        err = dg_h5_read(f, "parameters/shape", DG_H5_I64, 2, shape, x.shape);
    if (!err)
        err = compare_index(f, params, num, names, &x);
    dg_h5_free_texts(names);
    free_index(&x);
    return err;
}

/* What was frozen, or scored, is another one now. */
static int refuse_other(const H5File *f, const CheckpointNote *n,
                        const char *stored)
{
    if (!n->is_version)
        return dg_fail(DG_EINVAL,
                       "%s: its run had other %s, of digest %.16s "
                       "(attribute %s); these have %.16s",
                       dg_h5_path(f), n->of, stored, n->key, n->value);
    return dg_fail(DG_EINVAL,
                   "%s: its run had another version of %s, \"%.200s\" "
                   "(attribute %s); this one says %s%.200s%s",
                   dg_h5_path(f), n->of, stored, n->key,
                   n->value[0] != '\0' ? "\"" : "",
                   n->value[0] != '\0' ? n->value : "none",
                   n->value[0] != '\0' ? "\"" : "");
}

static int check_notes(H5File *f, const Checkpoint *k)
{
    int err = DG_OK;

    for (int i = 0; i < k->num_notes && !err; i++) {
        const CheckpointNote *n = &k->notes[i];
        const int old = n->old_key != NULL && !dg_h5_has_key(f, NULL, n->key) &&
                        dg_h5_has_key(f, NULL, n->old_key);
        const char *key = old ? n->old_key : n->key;
        const char *value = old ? n->old_value : n->value;
        char *stored = NULL;

        if (n->of != NULL && !dg_h5_has_key(f, NULL, key))
            continue;
        err = dg_h5_get_text(f, NULL, key, &stored);
        if (!err && n->of != NULL && strcmp(stored, value) != 0)
            err = refuse_other(f, n, stored);
        else if (!err && n->must_match && strcmp(stored, value) != 0)
            err = dg_fail(DG_EFORMAT, "%s: %s is %.16s..., this run's %.16s...",
                          dg_h5_path(f), key, stored, value);
        free(stored);
    }
    return err;
}

/* wanted: what its name says; < 0: any. Ranks find a file by this number. */
static int check_iteration(const H5File *f, int64_t iteration, int64_t wanted)
{
    if (iteration >= 0 && (wanted < 0 || iteration == wanted))
        return DG_OK;
    return dg_fail(DG_EFORMAT, "%s: attribute iteration = %lld: must be %s%lld",
                   dg_h5_path(f), (long long)iteration,
                   wanted < 0 ? ">= " : "that of its name, ",
                   (long long)(wanted < 0 ? 0 : wanted));
}

/* Files of before have no digest of theirs. */
static int read_counter(H5File *f, const CheckpointCounter *n, int64_t *value)
{
    char name[DG_H5_NAME], digest[DG_SHA256_HEX];
    int err;

    snprintf(name, sizeof name, "counters/%s", n->name);
    *value = 0;
    if (n->optional && !dg_h5_has(f, name))
        return DG_OK;
    err = dg_h5_read(f, name, DG_H5_I64, 0, NULL, value);
    if (err || !dg_h5_has_key(f, name, "sha256"))
        return err;
    err = dg_sha256_bytes(digest, value, sizeof *value);
    return err ? err : dg_h5_match_digest(f, name, 0, "sha256", digest);
}

/* All but the arrays. values [num_counters + 1] out: the iteration, then the
 * counters */
static int read_head(const char *path, int64_t wanted, const Checkpoint *k,
                     int64_t *values)
{
    H5File *f;
    int err = dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, DG_CHECKPOINT_VERSION);

    if (err)
        return err;
    err = dg_h5_get_i64(f, NULL, "iteration", &values[0]);
    if (!err)
        err = check_iteration(f, values[0], wanted);
    if (!err)
        err = check_notes(f, k);
    if (!err)
        err = read_index(f, k->params, k->num_params);
    for (int i = 0; i < k->num_counters && !err; i++)
        err = read_counter(f, &k->counters[i], &values[i + 1]);
    dg_h5_close(f);
    return err;
}

/* Rank 0 reads what is small; arrays are all ranks' work. */
static int read_file(const Comm *c, const char *path, int64_t wanted,
                     const Checkpoint *k, int64_t *values)
{
    H5File *f = NULL;
    int err =
        dg_agree(c, c->rank == 0 ? read_head(path, wanted, k, values) : DG_OK);

    if (!err)
        err = dg_agree(c, dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT,
                                     DG_CHECKPOINT_VERSION));
    for (int i = 0; i < k->num_arrays && !err; i++)
        err = dg_checkpoint_array_read(f, c, &k->arrays[i]);
    dg_h5_close(f);
    if (!err)
        dg_comm_bcast(c, values, ((size_t)k->num_counters + 1) * sizeof *values,
                      0);
    return err;
}

/* One line of all that were tried: of the oldest, as its last error says. */
static int fail_all(int err, const char *dir, int num)
{
    const Error last = *dg_last_error();
    Error all;

    dg_fail(err,
            "%s: none of %d checkpoints can be used, of the oldest: %.800s",
            dir, num, last.text);
    all = *dg_last_error();
    all.rank = last.rank;
    memcpy(all.host, last.host, sizeof all.host);
    dg_set_error(&all);
    return err;
}

/* The newest that can be read; values[0] = -1 if there is none. */
static int read_newest(const Comm *c, const char *dir, const Checkpoint *k,
                       int64_t *values)
{
    char path[PATH_BYTES];
    int64_t *list = NULL;
    int num = 0;
    int err = dg_agree(c, c->rank == 0 ? dg_checkpoint_list(dir, &list, &num)
                                       : DG_OK);

    values[0] = -1;
    if (err)
        return err;
    dg_comm_bcast(c, &num, sizeof num, 0);
    for (int i = num - 1; i >= 0; i--) {
        int64_t iteration = c->rank == 0 ? list[i] : 0;

        dg_comm_bcast(c, &iteration, sizeof iteration, 0);
        dg_checkpoint_path(path, sizeof path, dir, iteration);
        err = read_file(c, path, iteration, k, values);
        if (!err || err == DG_ENOMEM)
            break;
        if (err == DG_EINVAL) { /* it is whole, and not this run's */
            free(list);
            return err;
        }
        dg_warn("checkpoint passed over: %s", dg_last_error()->text);
    }
    free(list);
    return err ? fail_all(err, dir, num) : DG_OK;
}

static int read_any(const Comm *c, const char *name, int newest, Checkpoint *k,
                    int *found)
{
    int64_t *values = calloc((size_t)k->num_counters + 1, sizeof *values);
    int err =
        dg_agree(c, values ? DG_OK : dg_fail(DG_ENOMEM, "%s: counters", name));

    if (!err)
        err = newest ? read_newest(c, name, k, values)
                     : read_file(c, name, -1, k, values);
    if (!err && (*found = values[0] >= 0)) {
        k->iteration = values[0];
        for (int i = 0; i < k->num_counters; i++)
            k->counters[i].value = values[i + 1];
    }
    free(values);
    return err;
}

int dg_checkpoint_read(const Comm *c, const char *path, Checkpoint *k)
{
    int found;

    return read_any(c, path, 0, k, &found);
}

int dg_checkpoint_resume(const Comm *c, const char *dir, Checkpoint *k,
                         const FileInfo *now, int *found)
{
    const int err = read_any(c, dir, 1, k, found);
    char path[PATH_BYTES];
    H5File *f;

    if (err || !*found || c->rank != 0)
        return err;
    dg_checkpoint_path(path, sizeof path, dir, k->iteration);
    if (dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, DG_CHECKPOINT_VERSION)) {
        dg_warn("%s", dg_last_error()->text); /* gone since it was read */
        return DG_OK;
    }
    dg_h5_tell_origin(f, now);
    dg_h5_close(f);
    return DG_OK;
}
