#include "h5_internal.h"

#include "base/error.h"
#include "base/in_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHAPE_TEXT = 160 };

/*
 * HDF5 locks what it reads. Without locks of the file system (ENOLCK), or while
 * somebody has the file open for writing in h5py, it would refuse a whole
 * checkpoint. What is read here was renamed into its place whole, and its data
 * have digests: no lock is needed.
 */
static void want_no_locks(hid_t how)
{
#if H5_VERSION_GE(1, 12, 1) || \
    (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    H5Pset_file_locking(how, 0, 1);
#else
    (void)how; /* HDF5_USE_FILE_LOCKING=FALSE in the environment does it */
#endif
}

static int open_hdf5(H5File *f)
{
    int64_t bytes;
    hid_t how;
    int fd;
    const int err = dg_in_open(&fd, &bytes, f->path);

    if (err)
        return err;
    close(fd);
    if (H5Fis_hdf5(f->path) <= 0)
        return dg_fail(DG_EFORMAT, "%s: is not an HDF5 file", f->path);
    how = H5Pcreate(H5P_FILE_ACCESS);
    want_no_locks(how);
    f->id = H5Fopen(f->path, H5F_ACC_RDONLY, how);
    H5Pclose(how);
    if (f->id < 0)
        return dg_h5_fail(DG_EFORMAT, f, NULL,
                          "cannot be read, cut short or damaged");
    return DG_OK;
}

static int check_kind(H5File *f, const char *format, int version)
{
    char *name = NULL;
    int64_t number = 0, complete = 0;
    int err = dg_h5_get_text(f, NULL, "format", &name);

    if (err)
        return err;
    if (strncmp(name, "dancegrpo ", 10) != 0 ||
        (format != NULL && strcmp(name, format) != 0))
        err =
            dg_fail(DG_EFORMAT, "%s: is a \"%s\" file; a \"%s\" file is wanted",
                    f->path, name, format ? format : "dancegrpo ...");
    if (!err)
        err = dg_h5_get_i64(f, NULL, "format_version", &number);
    if (!err && version != 0 && (number < 1 || number > version))
        err = dg_fail(DG_EFORMAT,
                      "%s: has version %lld of \"%s\", this program reads "
                      "version%s %d",
                      f->path, (long long)number, name,
                      version > 1 ? "s up to" : "", version);
    if (!err && dg_h5_has_key(f, NULL, "complete"))
        err = dg_h5_get_i64(f, NULL, "complete", &complete);
    if (!err && complete != 1)
        err = dg_fail(DG_EFORMAT,
                      "%s: is incomplete: it was not written to its end",
                      f->path);
    free(name);
    return err;
}

int dg_h5_open(H5File **out, const char *path, const char *format, int version)
{
    H5File *f = calloc(1, sizeof *f);
    int err;

    if (f == NULL || (f->path = strdup(path)) == NULL) {
        free(f);
        return dg_fail(DG_ENOMEM, "%s: HDF5 file", path);
    }
    f->id = H5I_INVALID_HID;
    dg_h5_quiet();
    dg_h5_enter(f->path);
    err = open_hdf5(f);
    if (!err)
        err = check_kind(f, format, version);
    dg_h5_leave(err);
    if (err) {
        dg_h5_close(f);
        return err;
    }
    *out = f;
    return DG_OK;
}

void dg_h5_close(H5File *f)
{
    if (f == NULL)
        return;
    dg_h5_enter(f->path);
    if (f->id >= 0)
        H5Fclose(f->id);
    H5Eclear2(H5E_DEFAULT);
    dg_h5_leave(DG_OK);
    free(f->path);
    free(f);
}

const char *dg_h5_path(const H5File *f)
{
    return f->path;
}

/* Shapes ---------------------------------------------------------------- */

/* Links by name may lead to other files, and in circles: no file of ours has
   any. Negative: damage; it must not be taken for nothing. */
static int is_own(const H5File *f, const char *name)
{
    const htri_t there = H5Lexists(f->id, name, H5P_DEFAULT);
    H5L_info_t info;

    if (there <= 0)
        return there;
    if (H5Lget_info(f->id, name, &info, H5P_DEFAULT) < 0)
        return -1;
    return info.type == H5L_TYPE_HARD;
}

/* H5Lexists wants every group on the way to exist. */
static int find_link(const H5File *f, const char *name)
{
    char part[DG_H5_NAME];
    const char *slash = name;
    int own = 1;

    if (strlen(name) >= sizeof part)
        return 0;
    while (own > 0 && (slash = strchr(slash, '/')) != NULL) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - name), name);
        if (part[0] != '\0')
            own = is_own(f, part);
        slash++;
    }
    return own > 0 ? is_own(f, name) : own;
}

int dg_h5_has(const H5File *f, const char *name)
{
    int there;

    dg_h5_enter(f->path);
    there = find_link(f, name) > 0;
    H5Eclear2(H5E_DEFAULT);
    return dg_h5_leave(there);
}

static int type_from(hid_t t, H5Type *type)
{
    if (H5Tget_class(t) == H5T_STRING && H5Tis_variable_str(t) == 0) {
        *type = DG_H5_TEXT;
        return 0;
    }
    for (int i = 0; i < DG_H5_TEXT; i++) {
        const hid_t ours = dg_h5_make_type((H5Type)i);
        const int same = H5Tequal(t, ours) > 0;

        H5Tclose(ours);
        if (same) {
            *type = (H5Type)i;
            return 0;
        }
    }
    return -1;
}

int64_t dg_h5_file_bytes(const H5File *f)
{
    hsize_t bytes = 0;

    if (H5Fget_filesize(f->id, &bytes) < 0 || bytes > INT64_MAX)
        return 0;
    return (int64_t)bytes;
}

/* Where a file says that it holds more than it can, the memory for it must
   not be asked for; products of sizes may wrap besides. */
static int extent_of(const H5File *f, hid_t space, size_t element, H5Shape *s)
{
    hsize_t dims[H5S_MAX_RANK];

    s->num_dims = H5Sget_simple_extent_ndims(space);
    if (s->num_dims < 0 || s->num_dims > DG_H5_MAX_DIMS || element == 0 ||
        H5Sget_simple_extent_type(space) == H5S_NULL ||
        H5Sget_simple_extent_dims(space, dims, NULL) < 0)
        return -1;
    for (int i = 0; i < s->num_dims; i++) {
        if (dims[i] > INT64_MAX ||
            (dims[i] > 0 && s->num > INT64_MAX / (int64_t)dims[i]))
            return -1;
        s->dims[i] = (int64_t)dims[i];
        s->num *= s->dims[i];
    }
    return s->num > dg_h5_file_bytes(f) / (int64_t)element ? -1 : 0;
}

/* All of ours lie in the file, in one piece and as they are. */
static int is_plain(hid_t set)
{
    const hid_t how = H5Dget_create_plist(set);
    const H5D_layout_t layout = H5Pget_layout(how);
    const int plain = (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) &&
                      H5Pget_external_count(how) == 0;

    H5Pclose(how);
    return plain;
}

static int shape_of(const H5File *f, hid_t set, H5Shape *s)
{
    const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    int bad;

    *s = (H5Shape) { .num = 1 };
    bad = !is_plain(set) || type_from(type, &s->type) != 0 ||
          extent_of(f, space, H5Tget_size(type), s) != 0;
    H5Sclose(space);
    H5Tclose(type);
    return bad;
}

static int open_guarded(H5File *f, const char *name, hid_t *set, H5Shape *s)
{
    const int there = find_link(f, name);

    if (there < 0)
        return dg_h5_fail(DG_EFORMAT, f, name, "cannot be looked for");
    if (!there)
        return dg_fail(DG_EFORMAT, "%s: dataset %s is missing", f->path, name);
    *set = H5Dopen2(f->id, name, H5P_DEFAULT);
    if (*set < 0)
        return dg_h5_fail(DG_EFORMAT, f, name, "cannot be opened");
    if (shape_of(f, *set, s)) {
        H5Dclose(*set);
        H5Eclear2(H5E_DEFAULT);
        return dg_fail(DG_EFORMAT,
                       "%s: dataset %s has a type, shape or layout that this "
                       "program never writes",
                       f->path, name);
    }
    return DG_OK;
}

static int open_set(H5File *f, const char *name, hid_t *set, H5Shape *s)
{
    dg_h5_enter(f->path);
    return dg_h5_leave(open_guarded(f, name, set, s));
}

int dg_h5_shape(H5File *f, const char *name, H5Shape *shape)
{
    hid_t set;
    H5Shape s;
    const int err = open_set(f, name, &set, &s);

    if (err)
        return err;
    H5Dclose(set);
    *shape = s;
    return DG_OK;
}

static void print_shape(char text[SHAPE_TEXT], H5Type type, int num_dims,
                        const int64_t *dims)
{
    int at = snprintf(text, SHAPE_TEXT, "%s [", dg_h5_type_name(type));

    for (int i = 0; i < num_dims; i++)
        at += dims[i] < 0
                  ? snprintf(text + at, SHAPE_TEXT - (size_t)at, "%sany",
                             i ? ", " : "")
                  : snprintf(text + at, SHAPE_TEXT - (size_t)at, "%s%lld",
                             i ? ", " : "", (long long)dims[i]);
    snprintf(text + at, SHAPE_TEXT - (size_t)at, "]");
}

static int check_shape(const H5File *f, const char *name, const H5Shape *s,
                       H5Type type, int num_dims, const int64_t *dims)
{
    char there[SHAPE_TEXT], wanted[SHAPE_TEXT];
    int same = s->type == type && s->num_dims == num_dims;

    for (int i = 0; i < num_dims && same; i++)
        same = dims[i] < 0 || s->dims[i] == dims[i];
    if (same)
        return DG_OK;
    print_shape(there, s->type, s->num_dims, s->dims);
    print_shape(wanted, type, num_dims, dims);
    return dg_fail(DG_EFORMAT, "%s: dataset %s is %s; %s is wanted", f->path,
                   name, there, wanted);
}

/* Values ---------------------------------------------------------------- */

static int read_rows(H5File *f, const char *name, hid_t set, hid_t type,
                     const H5Shape *s, int64_t first, int64_t num, void *data)
{
    const hid_t space = H5Dget_space(set);
    hsize_t start[DG_H5_MAX_DIMS] = { (hsize_t)first }, count[DG_H5_MAX_DIMS];
    hsize_t elements = 1;
    hid_t memory;
    herr_t status;

    for (int i = 0; i < s->num_dims; i++) {
        count[i] = (hsize_t)(i == 0 ? num : s->dims[i]);
        elements *= count[i];
    }
    memory = H5Screate_simple(1, &elements, NULL);
    if (s->num_dims > 0)
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    dg_h5_enter(f->path);
    status =
        elements > 0 ? H5Dread(set, type, memory, space, H5P_DEFAULT, data) : 0;
    dg_h5_leave(status);
    H5Sclose(memory);
    H5Sclose(space);
    if (status < 0)
        return dg_h5_fail(DG_EFORMAT, f, name, "cannot be read");
    return DG_OK;
}

int dg_h5_read_rows(H5File *f, const char *name, H5Type type, int num_dims,
                    const int64_t *dims, int64_t first, int64_t num, void *data)
{
    const int all = num < 0;
    hid_t set, memory;
    H5Shape s;
    int err = open_set(f, name, &set, &s);

    if (err)
        return err;
    err = check_shape(f, name, &s, type, num_dims, dims);
    if (!err && type == DG_H5_TEXT)
        err = dg_fail(DG_EINVAL, "%s: dataset %s: texts are not numbers",
                      f->path, name);
    if (!err && all)
        num = num_dims > 0 ? s.dims[0] : 1;
    if (!err && !all && (num_dims < 1 || first < 0 || first + num > s.dims[0]))
        err = dg_fail(DG_EINVAL, "%s: dataset %s has no rows %lld to %lld",
                      f->path, name, (long long)first,
                      (long long)(first + num - 1));
    if (!err) {
        memory = dg_h5_make_type(type);
        err = read_rows(f, name, set, memory, &s, first, num, data);
        H5Tclose(memory);
    }
    H5Dclose(set);
    return err;
}

int dg_h5_read(H5File *f, const char *name, H5Type type, int num_dims,
               const int64_t *dims, void *data)
{
    return dg_h5_read_rows(f, name, type, num_dims, dims, 0, -1, data);
}

/* One block: the pointers, then the texts with their zero bytes. */
static char **split_texts(const char *fields, int64_t num, size_t bytes)
{
    char **texts =
        malloc(((size_t)num + 1) * sizeof *texts + (size_t)num * (bytes + 1));
    char *at;

    if (texts == NULL)
        return NULL;
    at = (char *)(texts + num + 1);
    for (int64_t i = 0; i < num; i++) {
        const size_t n = strnlen(fields + (size_t)i * bytes, bytes);

        memcpy(at, fields + (size_t)i * bytes, n);
        at[n] = '\0';
        texts[i] = at;
        at += n + 1;
    }
    texts[num] = NULL;
    return texts;
}

int dg_h5_read_texts(H5File *f, const char *name, char ***texts, int64_t *num)
{
    const int64_t any = -1;
    hid_t set, in_file, memory;
    H5Shape s;
    char *fields, **split = NULL;
    size_t bytes;
    int err = open_set(f, name, &set, &s);

    if (err)
        return err;
    err = check_shape(f, name, &s, DG_H5_TEXT, 1, &any);
    if (err)
        goto close_set;
    in_file = H5Dget_type(set);
    bytes = H5Tget_size(in_file);
    H5Tclose(in_file);
    fields = calloc((size_t)s.num * bytes + 1, 1);
    if (fields == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: texts of %s", f->path, name);
        goto close_set;
    }
    memory = dg_h5_make_text_type(bytes);
    err = read_rows(f, name, set, memory, &s, 0, s.num, fields);
    H5Tclose(memory);
    if (!err && (split = split_texts(fields, s.num, bytes)) == NULL)
        err = dg_fail(DG_ENOMEM, "%s: texts of %s", f->path, name);
    free(fields);
    if (!err) {
        *texts = split;
        *num = s.num;
    }
close_set:
    H5Dclose(set);
    return err;
}

void dg_h5_free_texts(char **texts)
{
    free(texts);
}

/* Attributes ------------------------------------------------------------ */

int dg_h5_has_key(const H5File *f, const char *object, const char *key)
{
    htri_t there;

    dg_h5_enter(f->path);
    there = H5Aexists_by_name(f->id, object ? object : "/", key, H5P_DEFAULT);
    H5Eclear2(H5E_DEFAULT);
    return dg_h5_leave(there > 0);
}

/* One value, which fits into the file. */
static int is_single(const H5File *f, hid_t attribute, hid_t type)
{
    const hid_t space = H5Aget_space(attribute);
    const int single = H5Sget_simple_extent_npoints(space) == 1 &&
                       (int64_t)H5Tget_size(type) <= dg_h5_file_bytes(f);

    H5Sclose(space);
    return single;
}

static int open_key_guarded(H5File *f, const char *object, const char *key,
                            H5T_class_t class, hid_t *attribute)
{
    hid_t type;
    int good, there;

    there = object != NULL ? find_link(f, object) : 1;
    if (there > 0)
        there =
            H5Aexists_by_name(f->id, object ? object : "/", key, H5P_DEFAULT);
    if (there < 0)
        return dg_h5_fail(DG_EFORMAT, f, key, "cannot look for attribute");
    if (!there)
        return dg_fail(DG_EFORMAT, "%s: %s%sattribute %s is missing", f->path,
                       object ? object : "", object ? ": " : "", key);
    *attribute = H5Aopen_by_name(f->id, object ? object : "/", key, H5P_DEFAULT,
                                 H5P_DEFAULT);
    if (*attribute < 0)
        return dg_h5_fail(DG_EFORMAT, f, key, "cannot open attribute");
    type = H5Aget_type(*attribute);
    good = H5Tget_class(type) == class && H5Tis_variable_str(type) <= 0 &&
           is_single(f, *attribute, type);
    H5Tclose(type);
    if (good)
        return DG_OK;
    H5Aclose(*attribute);
    return dg_fail(DG_EFORMAT, "%s: attribute %s is of another type or size",
                   f->path, key);
}

static int open_key(H5File *f, const char *object, const char *key,
                    H5T_class_t class, hid_t *attribute)
{
    dg_h5_enter(f->path);
    return dg_h5_leave(open_key_guarded(f, object, key, class, attribute));
}

static herr_t read_key(const H5File *f, hid_t attribute, hid_t type, void *to)
{
    dg_h5_enter(f->path);
    return dg_h5_leave(H5Aread(attribute, type, to));
}

int dg_h5_get_text(H5File *f, const char *object, const char *key, char **value)
{
    hid_t a, type;
    size_t bytes;
    char *text;
    int err = open_key(f, object, key, H5T_STRING, &a);

    if (err)
        return err;
    type = H5Aget_type(a);
    bytes = H5Tget_size(type);
    text = calloc(bytes + 1, 1);
    if (text == NULL)
        err = dg_fail(DG_ENOMEM, "%s: attribute %s", f->path, key);
    else if (read_key(f, a, type, text) < 0)
        err = dg_h5_fail(DG_EFORMAT, f, key, "cannot read attribute");
    H5Tclose(type);
    H5Aclose(a);
    if (err)
        free(text);
    else
        *value = text;
    return err;
}

static int get_number(H5File *f, const char *object, const char *key,
                      H5T_class_t class, hid_t memory, void *value)
{
    hid_t a;
    int64_t bits = 0; /* 8 bytes of either kind */
    int err = open_key(f, object, key, class, &a);

    if (err)
        return err;
    if (read_key(f, a, memory, &bits) < 0)
        err = dg_h5_fail(DG_EFORMAT, f, key, "cannot read attribute");
    else
        memcpy(value, &bits, sizeof bits);
    H5Aclose(a);
    return err;
}

int dg_h5_get_i64(H5File *f, const char *object, const char *key,
                  int64_t *value)
{
    return get_number(f, object, key, H5T_INTEGER, H5T_NATIVE_INT64, value);
}

int dg_h5_get_f64(H5File *f, const char *object, const char *key, double *value)
{
    return get_number(f, object, key, H5T_FLOAT, H5T_NATIVE_DOUBLE, value);
}
