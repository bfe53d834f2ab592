#include "store/inspect.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/piece_digest.h"
#include "base/value_range.h"
#include "store/checkpoint.h"
#include "store/conditions.h"
#include "store/h5.h"
#include "store/trajectory.h"
#include "store/weights_file.h"
#include "weights/half.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Text of a value is cut here; a configuration has its own block. */
enum { SHOWN_TEXTS = 3, SHOWN_CHARS = 60, LONG_TEXT = 200 };

/* of values that are looked at together: whole pieces of a digest */
enum { PIECE_BYTES = 4 * DG_PIECE_BYTES };

/* Values ---------------------------------------------------------------- */

static double value_of(const void *data, H5Type type, int64_t i)
{
    switch (type) {
    case DG_H5_F16:
        return (double)dg_half_to_float(((const uint16_t *)data)[i]);
    case DG_H5_BF16:
        return (double)dg_bfloat_to_float(((const uint16_t *)data)[i]);
    case DG_H5_F32:
        return (double)((const float *)data)[i];
    case DG_H5_F64:
        return ((const double *)data)[i];
    case DG_H5_U8:
        return ((const uint8_t *)data)[i];
    case DG_H5_I32:
        return ((const int32_t *)data)[i];
    case DG_H5_I64:
        return (double)((const int64_t *)data)[i];
    case DG_H5_U64:
        return (double)((const uint64_t *)data)[i];
    case DG_H5_TEXT:
        break;
    }
    return NAN;
}

typedef int LookFn(void *user, const void *data, H5Type type, int64_t num);

/* All values of a dataset, a few rows at a time: a checkpoint's arrays are
 * longer than the memory of a machine where one only looks. */
static int look(H5File *f, const char *name, const H5Shape *s, LookFn *fn,
                void *user)
{
    const int64_t rows = s->num_dims > 0 ? s->dims[0] : 1;
    const int64_t row = s->num > 0 ? s->num / rows : 1;
    const size_t row_bytes = (size_t)row * dg_h5_type_bytes(s->type);
    const int64_t most =
        row_bytes < PIECE_BYTES ? PIECE_BYTES / (int64_t)row_bytes : 1;
    void *room = s->num > 0
                     ? malloc((size_t)(most < rows ? most : rows) * row_bytes)
                     : NULL;
    int err = DG_OK;

    if (s->num > 0 && room == NULL)
        return dg_fail(DG_ENOMEM, "%s: dataset %s: %zu bytes", dg_h5_path(f),
                       name, row_bytes);
    for (int64_t at = 0; at < rows && s->num > 0 && !err; at += most) {
        const int64_t num = rows - at < most ? rows - at : most;

        err = dg_h5_read_rows(f, name, s->type, s->num_dims, s->dims, at,
                              s->num_dims > 0 ? num : -1, room);
        if (!err)
            err = fn(user, room, s->type, num * row);
    }
    free(room);
    return err;
}

typedef struct Seen {
    ValueRange range;
    double last;
} Seen;

static int add_values(void *user, const void *data, H5Type type, int64_t num)
{
    Seen *seen = user;

    for (int64_t i = 0; i < num; i++) {
        seen->last = value_of(data, type, i);
        dg_value_range_add(&seen->range, seen->last);
    }
    return DG_OK;
}

static int print_numbers(H5File *f, const char *name, const H5Shape *s,
                         FILE *out)
{
    Seen seen = { 0 };
    const int err = look(f, name, s, add_values, &seen);

    if (err)
        return err;
    if (s->num_dims == 0 && s->type != DG_H5_F16)
        fprintf(out, "    value %.17g\n", seen.last);
    else
        dg_value_range_print(&seen.range, out);
    return DG_OK;
}

static int print_texts(H5File *f, const char *name, const H5Shape *s, FILE *out)
{
    char **texts;
    int64_t num;
    int err;

    if (s->num_dims != 1)
        return DG_OK;
    err = dg_h5_read_texts(f, name, &texts, &num);
    if (err)
        return err;
    for (int64_t i = 0; i < num && i < SHOWN_TEXTS; i++) {
        fputs("    \"", out);
        dg_legible_put_line(out, texts[i], SHOWN_CHARS);
        fprintf(out, "%s\"\n", strlen(texts[i]) > SHOWN_CHARS ? "..." : "");
    }
    if (num > SHOWN_TEXTS)
        fprintf(out, "    and %" PRId64 " more\n", num - SHOWN_TEXTS);
    dg_h5_free_texts(texts);
    return DG_OK;
}

/* Description ----------------------------------------------------------- */

/* A text of the file, within a line. */
static void put(FILE *out, const char *text)
{
    dg_legible_put_line(out, text, SIZE_MAX);
}

static int print_key(const char *key, const char *value, void *out)
{
    if (strlen(value) > LONG_TEXT || strchr(value, '\n') != NULL)
        return DG_OK; /* blocks come at the end */
    fputs("  ", out);
    put(out, key);
    fprintf(out, "%*s ", strlen(key) < 16 ? 16 - (int)strlen(key) : 0, "");
    put(out, value);
    fputc('\n', out);
    return DG_OK;
}

static void print_lines(const char *key, const char *value, FILE *out)
{
    put(out, key);
    fputs(":\n", out);
    dg_legible_put(out, value, SIZE_MAX);
    if (value[strlen(value) - 1] != '\n')
        fputc('\n', out);
}

static int print_block(const char *key, const char *value, void *out)
{
    if (strlen(value) > LONG_TEXT || strchr(value, '\n') != NULL)
        print_lines(key, value, out);
    return DG_OK;
}

/* An attribute every dataset of ours has; nothing in one that lacks it. */
static void print_described(H5File *f, const char *name, const char *before,
                            const char *key, FILE *out)
{
    char *text = NULL;

    fputs(before, out);
    if (dg_h5_get_text(f, name, key, &text) == DG_OK)
        put(out, text);
    free(text);
}

static int print_set(H5File *f, const char *name, void *user)
{
    FILE *out = user;
    H5Shape s;
    int err = dg_h5_shape(f, name, &s);

    if (err)
        return err;
    put(out, name);
    fprintf(out, ": %s [", dg_h5_type_name(s.type));
    for (int i = 0; i < s.num_dims; i++)
        fprintf(out, "%s%" PRId64, i ? ", " : "", s.dims[i]);
    fputs("]\n", out);
    print_described(f, name, "    ", "long_name", out);
    print_described(f, name, "; units ", "units", out);
    print_described(f, name, "; axes ", "axes", out);
    fputc('\n', out);
    if (dg_h5_has_key(f, name, "equation")) {
        print_described(f, name, "    equation: ", "equation", out);
        fputc('\n', out);
    }
    return s.type == DG_H5_TEXT ? print_texts(f, name, &s, out)
                                : print_numbers(f, name, &s, out);
}

int dg_inspect_describe(const char *path, FILE *out)
{
    H5File *f;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    fprintf(out, "%s\n", path);
    err = dg_h5_visit_keys(f, NULL, print_key, out);
    if (!err && dg_h5_has(f, "provenance")) {
        fputs("provenance\n", out);
        err = dg_h5_visit_keys(f, "provenance", print_key, out);
    }
    if (!err)
        err = dg_h5_visit(f, print_set, out);
    if (!err)
        err = dg_h5_visit_keys(f, NULL, print_block, out);
    if (!err && dg_h5_has(f, "provenance"))
        err = dg_h5_visit_keys(f, "provenance", print_block, out);
    dg_h5_close(f);
    if (!err && fflush(out) != 0)
        err = dg_fail(DG_EIO, "%s: its description cannot be written", path);
    return err;
}

/* Digest ---------------------------------------------------------------- */

typedef struct Digest {
    Sha256 sum;
    const char *starts_with; /* the datasets that count */
    int named;               /* 1: all of that folder, with their names */
    /* what is stored of it: that of the pieces, or of all bytes; attributes of
     * the dataset, or of the root */
    const char *pieces, *whole;
    int of_root; /* then other datasets may have one of their own */
    int64_t num;
} Digest;

/* The digest of all that counts, and that of the dataset at hand, or of its
 * pieces. */
typedef struct Sums {
    Sha256 *all, one; /* all NULL: it does not count */
    char *room;       /* NULL: not in pieces; one that has begun, */
    size_t filled;    /* and how much of it is there */
} Sums;

/* Rows come by as they are, pieces end where they do. */
static int add_to_pieces(Sums *s, const char *data, size_t bytes)
{
    int err = DG_OK;

    while (bytes > 0 && !err) {
        size_t n = bytes / DG_PIECE_BYTES * DG_PIECE_BYTES;

        if (s->filled == 0 && n > 0) {
            err = dg_piece_add(&s->one, data, n);
        } else {
            n = DG_PIECE_BYTES - s->filled;
            n = n < bytes ? n : bytes;
            memcpy(s->room + s->filled, data, n);
            s->filled += n;
        }
        if (!err && s->filled == DG_PIECE_BYTES) {
            err = dg_piece_add(&s->one, s->room, s->filled);
            s->filled = 0;
        }
        data += n;
        bytes -= n;
    }
    return err;
}

static int add_bytes(void *user, const void *data, H5Type type, int64_t num)
{
    Sums *sums = user;
    const size_t bytes = (size_t)num * dg_h5_type_bytes(type);

    if (sums->all != NULL)
        dg_sha256_update(sums->all, data, bytes);
    if (sums->room != NULL)
        return add_to_pieces(sums, data, bytes);
    dg_sha256_update(&sums->one, data, bytes);
    return DG_OK;
}

/* Of a dataset, in pieces if there is room for one. */
static int sum_set(H5File *f, const char *name, Sums *sums,
                   char hex[DG_SHA256_HEX])
{
    H5Shape s;
    int err = dg_h5_shape(f, name, &s);

    if (!err)
        err = dg_sha256_init(&sums->one);
    if (err)
        return err;
    err = look(f, name, &s, add_bytes, sums);
    if (!err && sums->filled > 0)
        err = dg_piece_add(&sums->one, sums->room, sums->filled);
    if (err)
        dg_sha256_fini(&sums->one);
    else
        dg_sha256_final(&sums->one, hex);
    return err;
}

/* A dataset against the digest that is stored of it, in key. */
static int check_set(H5File *f, const char *name, Sha256 *all, int pieces,
                     int of_root, const char *key)
{
    Sums sums = { .all = all, .room = pieces ? malloc(DG_PIECE_BYTES) : NULL };
    char hex[DG_SHA256_HEX];
    int err = pieces && sums.room == NULL
                  ? dg_fail(DG_ENOMEM, "%s: dataset %s", dg_h5_path(f), name)
                  : sum_set(f, name, &sums, hex);

    free(sums.room);
    return err ? err : dg_h5_match_digest(f, name, of_root, key, hex);
}

static int digest_set(H5File *f, const char *name, void *user)
{
    Digest *d = user;
    const int counts =
        d->named ? strncmp(name, d->starts_with, strlen(d->starts_with)) == 0
                 : strcmp(name, d->starts_with) == 0;
    int pieces;

    if (!counts)
        return d->of_root && dg_h5_has_key(f, name, DG_CHECKPOINT_PIECES)
                   ? check_set(f, name, NULL, 1, 0, DG_CHECKPOINT_PIECES)
                   : DG_OK;
    pieces = dg_h5_has_key(f, d->of_root ? NULL : name, d->pieces);
    if (d->named)
        dg_sha256_update(&d->sum, name, strlen(name) + 1);
    d->num++;
    return check_set(f, name, &d->sum, pieces, d->of_root,
                     pieces ? d->pieces : d->whole);
}

static int choose(Digest *d, H5File *f)
{
    char *format = NULL;
    int err = dg_h5_get_text(f, NULL, "format", &format);

    if (err)
        return err;
    d->pieces = DG_CHECKPOINT_PIECES;
    d->whole = "sha256";
    if (strcmp(format, DG_CHECKPOINT_FORMAT) == 0) {
        d->starts_with = "arrays/weights";
    } else if (strcmp(format, DG_TRAJECTORY_FORMAT) == 0) {
        d->starts_with = "state/weights";
        d->of_root = 1;
        d->pieces = "weights_before_sha256_pieces";
        d->whole = "weights_before_sha256";
    } else if (strcmp(format, DG_WEIGHTS_FORMAT) == 0) {
        d->starts_with = "weights/";
        d->named = 1;
    } else {
        err = dg_fail(DG_EFORMAT, "%s: a \"%s\" file holds no weights",
                      dg_h5_path(f), format);
    }
    free(format);
    return err;
}

static int is_conditions(H5File *f)
{
    char *format = NULL;
    const int is = dg_h5_get_text(f, NULL, "format", &format) == DG_OK &&
                   strcmp(format, DG_CONDITIONS_FORMAT) == 0;

    free(format);
    return is;
}

int dg_inspect_digest(const char *path, char hex[DG_SHA256_HEX])
{
    Digest d = { 0 };
    H5File *f;
    int err = dg_h5_open(&f, path, NULL, 0);

    if (err)
        return err;
    if (is_conditions(f)) {
        dg_h5_close(f);
        return dg_conditions_digest(path, hex);
    }
    err = choose(&d, f);
    if (!err)
        err = dg_sha256_init(&d.sum);
    if (!err)
        err = dg_h5_visit(f, digest_set, &d);
    if (!err && d.num == 0)
        err = dg_fail(DG_EFORMAT, "%s: dataset %s is missing", path,
                      d.starts_with);
    if (err)
        dg_sha256_fini(&d.sum);
    else
        dg_sha256_final(&d.sum, hex);
    dg_h5_close(f);
    return err;
}
