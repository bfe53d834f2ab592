#define _GNU_SOURCE /* fallocate */
#include "h5_internal.h"

#include "base/error.h"
#include "base/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * Rank 0 alone holds the HDF5 file open: it creates the datasets, contiguous
 * and with their place on disk fixed at once, and writes the attributes. The
 * place is told to all ranks, and they write their parts of the data there,
 * together, by MPI-IO. On disk this is what parallel HDF5 writes, but no
 * failure of one rank can leave the library in a state that hangs or crashes
 * the others.
 *
 * The library is held around each of its calls, never while other ranks are
 * waited for.
 */

/* Replicated data below this size are written by rank 0, not in shares. */
static const int64_t small_bytes = (int64_t)1 << 20;

/* of a piece that is fetched before it is written */
enum { FETCH_BYTES = 1 << 20 };

/* Room for metadata beyond the data: a guess on the safe side. */
static const int64_t metadata_bytes = (int64_t)256 << 10;

/* Agreement, on what HDF5's driver has met as well. */
static int agree(const H5File *f, int err)
{
    if (!err && f->sink.error)
        err = dg_fail(DG_EIO, "%s: cannot write: %s", f->path,
                      strerror(f->sink.error));
    return dg_agree(f->comm, err);
}

static void free_file(H5File *f)
{
    if (f == NULL)
        return;
    free(f->path);
    free(f->tmp);
    free(f);
}

static H5File *new_file(const Comm *c, const char *path)
{
    const size_t room = strlen(path) + sizeof ".tmp";
    H5File *f = calloc(1, sizeof *f);

    if (f == NULL)
        return NULL;
    f->id = H5I_INVALID_HID;
    f->comm = c;
    f->path = strdup(path);
    f->tmp = malloc(room);
    if (f->path == NULL || f->tmp == NULL) {
        free_file(f);
        return NULL;
    }
    snprintf(f->tmp, room, "%s.tmp", path);
    return f;
}

/* Room on disk at once, so that a full disk is found before any data are
   written. File systems that cannot reserve find it later. */
static int reserve(const H5File *f, int64_t bytes)
{
    const int fd = open(f->tmp, O_WRONLY | O_CLOEXEC);
    int err = DG_OK;

    if (fd < 0)
        return dg_fail(DG_EIO, "%s: cannot open: %s", f->tmp, strerror(errno));
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        err = dg_fail(DG_EIO, "%s: cannot reserve %lld bytes: %s", f->tmp,
                      (long long)bytes, strerror(errno));
    close(fd);
    return err;
}

static int create_hdf5(H5File *f, int64_t data_bytes)
{
    int err = DG_OK;

    dg_h5_hold();
    f->id = dg_h5_create_file(f->tmp, &f->sink);
    if (f->id < 0 && f->sink.error)
        err = dg_fail(DG_EIO, "%s: cannot create: %s", f->tmp,
                      strerror(f->sink.error));
    else if (f->id < 0)
        err = dg_h5_fail(DG_EIO, f, NULL, "cannot create");
    dg_h5_release();
    return err ? err : reserve(f, data_bytes + metadata_bytes);
}

/* Attributes ------------------------------------------------------------ */

/* Groups are made when first needed, and like all else note no time of their
 * own: the file's date is an attribute. */
static void ensure_group(const H5File *f, const char *object)
{
    hid_t links, how, group;

    if (object == NULL || dg_h5_has(f, object))
        return;
    links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    how = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(how, 0);
    group = H5Gcreate2(f->id, object, links, how, H5P_DEFAULT);
    if (group >= 0)
        H5Gclose(group);
    H5Pclose(how);
    H5Pclose(links);
}

static void ensure_group_of(const H5File *f, const char *set)
{
    const char *slash = strrchr(set, '/');
    char group[DG_H5_NAME];

    if (slash == NULL || slash - set >= (ptrdiff_t)sizeof group)
        return;
    snprintf(group, sizeof group, "%.*s", (int)(slash - set), set);
    ensure_group(f, group);
}

/* On rank 0; nothing is done on the others. The library is held. */
static int put(H5File *f, const char *object, const char *key, hid_t type,
               const void *value)
{
    hid_t scalar, a;
    int bad;

    if (f->comm->rank != 0)
        return DG_OK;
    ensure_group(f, object);
    scalar = H5Screate(H5S_SCALAR);
    a = H5Acreate_by_name(f->id, object ? object : "/", key, type, scalar,
                          H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bad = a < 0 || H5Awrite(a, type, value) < 0;
    if (a >= 0)
        bad |= H5Aclose(a) < 0;
    H5Sclose(scalar);
    if (bad)
        return dg_h5_fail(DG_EIO, f, key, "cannot write attribute");
    return DG_OK;
}

static int put_text(H5File *f, const char *object, const char *key,
                    const char *value)
{
    hid_t type;
    int err;

    dg_h5_hold();
    type = dg_h5_make_text_type(strlen(value));
    err = put(f, object, key, type, value);
    H5Tclose(type);
    dg_h5_release();
    return err;
}

int dg_h5_put_text(H5File *f, const char *object, const char *key,
                   const char *value)
{
    return agree(f, put_text(f, object, key, value));
}

int dg_h5_put_i64(H5File *f, const char *object, const char *key, int64_t value)
{
    int err;

    dg_h5_hold();
    err = put(f, object, key, H5T_STD_I64LE, &value);
    dg_h5_release();
    return agree(f, err);
}

int dg_h5_put_f64(H5File *f, const char *object, const char *key, double value)
{
    int err;

    dg_h5_hold();
    err = put(f, object, key, H5T_IEEE_F64LE, &value);
    dg_h5_release();
    return agree(f, err);
}

static int put_info(H5File *f, const FileInfo *info)
{
    char hosts[4096], library[128], libraries[256], date[32];
    const time_t now = time(NULL);
    struct tm utc;
    int err = DG_OK;

    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    dg_comm_hosts(f->comm, hosts, sizeof hosts);
    dg_comm_library(library, sizeof library);
    snprintf(libraries, sizeof libraries, "%s, %s", library, dg_h5_library());
    const char *const texts[][2] = {
        { "program", info->program },
        { "git_commit", info->git_commit },
        { "compiler", "gcc " __VERSION__ },
        { "libraries", libraries },
        { "hosts", hosts },
        { "date", date },
        { "command", info->command },
        { "config", info->config },
        { "arithmetic", info->arithmetic },
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !err; i++)
        err = put_text(f, NULL, texts[i][0], texts[i][1] ? texts[i][1] : "");
    if (!err && info->plugins != NULL && info->plugins[0] != '\0')
        err = put_text(f, NULL, "reward_plugins", info->plugins);
    err = dg_agree(f->comm, err);
    if (!err)
        err = dg_h5_put_i64(f, NULL, "ranks", f->comm->size);
    return err ? err : dg_h5_put_i64(f, NULL, "seed", info->seed);
}

int dg_h5_create(H5File **out, const Comm *c, const char *path,
                 const char *format, int version, const FileInfo *info,
                 int64_t data_bytes)
{
    H5File *f = new_file(c, path);
    int err = f ? DG_OK : dg_fail(DG_ENOMEM, "%s: HDF5 file", path);

    err = dg_agree(c, err);
    if (err) {
        free_file(f);
        return err;
    }
    dg_h5_quiet();
    err = agree(f, c->rank == 0 ? create_hdf5(f, data_bytes) : DG_OK);
    if (!err)
        err = dg_comm_file_open(&f->shared, c, f->tmp);
    if (!err)
        err = dg_h5_put_text(f, NULL, "format", format);
    if (!err)
        err = dg_h5_put_i64(f, NULL, "format_version", version);
    if (!err)
        err = put_info(f, info);
    if (err) {
        dg_h5_abandon(f);
        return err;
    }
    *out = f;
    return DG_OK;
}

/* Datasets -------------------------------------------------------------- */

/* The rows this rank writes: its own of a shared dataset; of a replicated
   one an equal share, so that all ranks write. */
typedef struct Rows {
    int64_t total, first, num;
    int64_t row;        /* elements of a row */
    size_t element;     /* bytes of one */
    const char *memory; /* the first of this rank's rows */
} Rows;

static int check_item(const H5File *f, const H5Item *d)
{
    const char *const needed[] = { d->units, d->long_name, d->axes };

    for (int i = 0; i < 3; i++)
        if (needed[i] == NULL || needed[i][0] == '\0')
            return dg_fail(DG_EINVAL,
                           "%s: dataset %s: units, long_name and axes must "
                           "be given",
                           f->path, d->name);
    if (d->num_dims < 0 || d->num_dims > DG_H5_MAX_DIMS ||
        (d->shared && d->num_dims < 1))
        return dg_fail(DG_EINVAL, "%s: dataset %s: %d dimensions", f->path,
                       d->name, d->num_dims);
    for (int i = 0; i < d->num_dims; i++)
        if (d->dims[i] < 0)
            return dg_fail(DG_EINVAL, "%s: dataset %s: dimension %d is %lld",
                           f->path, d->name, i, (long long)d->dims[i]);
    return DG_OK;
}

/* The shares must follow each other without gap from 0 to dims[0]. */
static int check_shares(const H5File *f, const H5Item *d)
{
    const Comm *c = f->comm;
    int64_t before = 0, total = 0;
    int64_t *all = malloc((size_t)c->size * sizeof *all);
    int err = agree(f, all ? DG_OK : dg_fail(DG_ENOMEM, "%s: shares", f->path));

    if (!err) {
        dg_comm_allgather(c, all, &d->num, sizeof *all);
        for (int r = 0; r < c->size; r++) {
            before += r < c->rank ? all[r] : 0;
            total += all[r];
        }
        if (d->num < 0 || before != d->first || total != d->dims[0])
            err = dg_fail(DG_EINVAL,
                          "%s: dataset %s: %lld rows from row %lld are not "
                          "this rank's part of %lld",
                          f->path, d->name, (long long)d->num,
                          (long long)d->first, (long long)d->dims[0]);
        err = agree(f, err);
    }
    free(all);
    return err;
}

static void find_rows(Rows *r, const H5File *f, const H5Item *d)
{
    *r = (Rows) { .total = d->num_dims > 0 ? d->dims[0] : 1, .row = 1 };
    for (int i = 1; i < d->num_dims; i++)
        r->row *= d->dims[i];
    r->element = dg_h5_type_bytes(d->type);
    r->memory = d->data;
    if (d->shared) {
        r->first = d->first;
        r->num = d->num;
        return;
    }
    if (r->total * r->row * (int64_t)r->element < small_bytes)
        r->num = f->comm->rank == 0 ? r->total : 0;
    else
        dg_share_range(r->total, f->comm->rank, f->comm->size, &r->first,
                       &r->num);
    if (r->memory != NULL)
        r->memory += (size_t)(r->first * r->row) * r->element;
}

static hid_t create_set(const H5File *f, const H5Item *d, hid_t type)
{
    hsize_t dims[DG_H5_MAX_DIMS];
    hid_t space, links, how, set;

    ensure_group_of(f, d->name);
    for (int i = 0; i < d->num_dims; i++)
        dims[i] = (hsize_t)d->dims[i];
    space = d->num_dims > 0 ? H5Screate_simple(d->num_dims, dims, NULL)
                            : H5Screate(H5S_SCALAR);
    links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    how = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(how, H5D_CONTIGUOUS);
    H5Pset_obj_track_times(how, 0);
    H5Pset_alloc_time(how, H5D_ALLOC_TIME_EARLY); /* its place is now known */
    H5Pset_fill_time(how, H5D_FILL_TIME_NEVER);   /* all of it is written */
    set = H5Dcreate2(f->id, d->name, type, space, links, how, H5P_DEFAULT);
    H5Pclose(how);
    H5Pclose(links);
    H5Sclose(space);
    return set;
}

/* On rank 0: the dataset, and where in the file its data belong. The library is
 * held. */
static int make_set(H5File *f, const H5Item *d, hid_t type, int empty,
                    int64_t *offset)
{
    const hid_t set = create_set(f, d, type);
    haddr_t at;
    int err;

    if (set < 0)
        return dg_h5_fail(DG_EIO, f, d->name, "cannot create dataset");
    at = H5Dget_offset(set);
    if (H5Dclose(set) < 0 || (at == HADDR_UNDEF && !empty))
        return dg_h5_fail(DG_EIO, f, d->name, "cannot place dataset");
    err = put_text(f, d->name, "units", d->units);
    if (!err)
        err = put_text(f, d->name, "long_name", d->long_name);
    if (!err)
        err = put_text(f, d->name, "axes", d->axes);
    if (!err && d->equation != NULL)
        err = put_text(f, d->name, "equation", d->equation);
    *offset = (int64_t)at;
    return err;
}

static int place_set(H5File *f, const H5Item *d, hid_t type, int empty,
                     int64_t *offset)
{
    int err;

    dg_h5_hold();
    err = make_set(f, d, type, empty, offset);
    dg_h5_release();
    return err;
}

/* What fetch brings, in pieces of a few rows, as often as the rank that has
 * most of them needs. */
static int write_fetched(H5File *f, const H5Item *d, const Rows *r,
                         int64_t offset)
{
    const int64_t row_bytes = r->row * (int64_t)r->element;
    const int64_t few = row_bytes < FETCH_BYTES ? FETCH_BYTES / row_bytes : 1;
    const int64_t most = d->at_once > 0 ? d->at_once : few;
    int64_t rounds = (r->num + most - 1) / most, at = 0;
    char *room = malloc((size_t)(most * row_bytes));
    int err = agree(
        f, room ? DG_OK
                : dg_fail(DG_ENOMEM, "%s: pieces of %s", f->path, d->name));

    dg_comm_max_i64(f->comm, &rounds, 1);
    for (int64_t i = 0; i < rounds && !err; i++) {
        const int64_t n = r->num - at < most ? r->num - at : most;

        if (n > 0)
            err = d->fetch(d->user, room, r->first + at, n);
        err = agree(f, err);
        if (!err)
            err = dg_comm_file_write(f->shared,
                                     offset + (r->first + at) * row_bytes, room,
                                     (size_t)(n * row_bytes));
        at += n;
    }
    free(room);
    return err;
}

static int write_set(H5File *f, const H5Item *d, hid_t type, const Rows *r)
{
    const int64_t row_bytes = r->row * (int64_t)r->element;
    const int empty = r->total * r->row == 0;
    int64_t offset = 0;
    int err = DG_OK;

    if (f->comm->rank == 0)
        err = place_set(f, d, type, empty, &offset);
    err = agree(f, err);
    if (err || empty)
        return err;
    dg_comm_bcast(f->comm, &offset, sizeof offset, 0);
    if (d->fetch != NULL)
        return write_fetched(f, d, r, offset);
    return dg_comm_file_write(f->shared, offset + r->first * row_bytes,
                              r->memory, (size_t)(r->num * row_bytes));
}

static hid_t take_type(const H5Item *d, size_t element)
{
    hid_t type;

    dg_h5_hold();
    type = d->type == DG_H5_TEXT ? dg_h5_make_text_type(element)
                                 : dg_h5_make_type(d->type);
    dg_h5_release();
    return type;
}

static void give_type(hid_t type)
{
    dg_h5_hold();
    H5Tclose(type);
    dg_h5_release();
}

/* Own texts side by side, in fields as long as the longest of all ranks. */
static char *lay_out(const Rows *r, const Comm *c, size_t *bytes)
{
    const char *const *texts = (const char *const *)r->memory;
    const int64_t num = r->num * r->row;
    int64_t most = 1;
    char *fields;

    for (int64_t i = 0; i < num; i++)
        if ((int64_t)strlen(texts[i]) > most)
            most = (int64_t)strlen(texts[i]);
    dg_comm_max_i64(c, &most, 1);
    *bytes = (size_t)most;
    fields = calloc((size_t)num * *bytes + 1, 1);
    for (int64_t i = 0; fields != NULL && i < num; i++)
        memcpy(fields + (size_t)i * *bytes, texts[i], strlen(texts[i]));
    return fields;
}

static int write_texts(H5File *f, const H5Item *d, const Rows *r)
{
    Rows own = *r;
    char *fields = lay_out(r, f->comm, &own.element);
    int err = agree(
        f, fields ? DG_OK
                  : dg_fail(DG_ENOMEM, "%s: texts of %s", f->path, d->name));

    if (!err) {
        const hid_t type = take_type(d, own.element);

        own.memory = fields;
        err = write_set(f, d, type, &own);
        give_type(type);
    }
    free(fields);
    return err;
}

int dg_h5_write(H5File *f, const H5Item *d)
{
    hid_t type;
    Rows r;
    int err = agree(f, check_item(f, d));

    if (!err && d->shared)
        err = check_shares(f, d);
    if (err)
        return err;
    find_rows(&r, f, d);
    if (d->type == DG_H5_TEXT)
        return write_texts(f, d, &r);
    type = take_type(d, r.element);
    err = write_set(f, d, type, &r);
    give_type(type);
    return err;
}

/* The end --------------------------------------------------------------- */

/* On rank 0. The driver cuts the file to its size, which gives back what was
   reserved beyond, syncs it, and keeps its errors for agree(). */
static int finish(H5File *f)
{
    int64_t one = 1;
    int err, bad;

    dg_h5_hold();
    err = put(f, NULL, "complete", H5T_STD_I64LE, &one);
    bad = dg_h5_close_file(f->id, &f->sink) < 0;
    f->id = H5I_INVALID_HID;
    if (!err && bad)
        err = dg_h5_fail(DG_EIO, f, NULL, "cannot close");
    dg_h5_release();
    return err;
}

static int put_in_place(const H5File *f)
{
    if (rename(f->tmp, f->path) != 0)
        return dg_fail(DG_EIO, "%s: cannot rename to %s: %s", f->tmp, f->path,
                       strerror(errno));
    return dg_out_sync_folder(f->path);
}

int dg_h5_commit(H5File *f)
{
    CommFile *shared = f->shared;
    int err = dg_comm_file_sync(shared);

    if (!err) {
        f->shared = NULL;
        err = dg_comm_file_close(shared);
    }
    if (!err)
        err = agree(f, f->comm->rank == 0 ? finish(f) : DG_OK);
    if (!err)
        err = agree(f, f->comm->rank == 0 ? put_in_place(f) : DG_OK);
    if (err) {
        dg_h5_abandon(f);
        return err;
    }
    free_file(f);
    return DG_OK;
}

void dg_h5_abandon(H5File *f)
{
    const Error kept = *dg_last_error();

    if (f == NULL)
        return;
    dg_comm_file_close(f->shared);
    if (f->comm->rank == 0) {
        dg_h5_hold();
        f->sink.error = f->sink.error ? f->sink.error : ECANCELED;
        if (f->id >= 0)
            dg_h5_close_file(f->id, &f->sink);
        H5Eclear2(H5E_DEFAULT);
        dg_h5_release();
        unlink(f->tmp);
    }
    dg_comm_barrier(f->comm); /* gone for all when this returns */
    free_file(f);
    dg_set_error(&kept);
}
