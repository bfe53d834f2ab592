#define _GNU_SOURCE /* asprintf */
#include "weights/describe.h"

#include "base/error.h"
#include "base/legible.h"
#include "base/plural.h"
#include "base/value_range.h"
#include "weights/model_config.h"
#include "weights/snapshot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Values looked at: up to half a gigabyte of float32 in all. */
#define MOST_VALUES ((int64_t)1 << 27)
enum { BLOCK = 1 << 16 };

static int is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int dg_describe_knows(const char *path)
{
    static const char *const ends[] = { ".safetensors", ".bin", ".pt", ".pth",
                                        ".json" };
    const size_t n = strlen(path);

    if (is_folder(path))
        return 1;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t m = strlen(ends[i]);

        if (n > m && strcmp(path + n - m, ends[i]) == 0)
            return 1;
    }
    return 0;
}

/* A text of a file, or its name. */
static void print_text(FILE *out, const char *text)
{
    dg_legible_put_line(out, text, SIZE_MAX);
}

/* Values ---------------------------------------------------------------- */

static int print_values(const WeightSource *s, int64_t i, float *block,
                        FILE *out)
{
    const WeightInfo *info = dg_source_info(s, i);
    ValueRange range = { 0 };

    for (int64_t at = 0; at < info->count; at += BLOCK) {
        const int64_t num = info->count - at < BLOCK ? info->count - at : BLOCK;
        const int err = dg_source_read_any(s, i, at, num, block);

        if (err)
            return err;
        for (int64_t k = 0; k < num; k++)
            dg_value_range_add(&range, (double)block[k]);
    }
    dg_value_range_print(&range, out);
    return DG_OK;
}

static int print_tensor(const WeightSource *s, int64_t i, float *block,
                        FILE *out)
{
    const WeightInfo *info = dg_source_info(s, i);

    print_text(out, info->name);
    fprintf(out, ": %s [", dg_weight_type_name(info->type));
    for (int d = 0; d < info->num_dims; d++)
        fprintf(out, "%s%" PRId64, d ? ", " : "", info->dims[d]);
    fprintf(out, "], %" PRId64 " byte%s\n", info->bytes,
            dg_plural(info->bytes));
    if (block == NULL || info->type > DG_WEIGHT_I64 || info->count == 0)
        return DG_OK;
    return print_values(s, i, block, out);
}

/* Sums ------------------------------------------------------------------ */

typedef struct Sums {
    int64_t values, bytes;
    int64_t of_type[DG_WEIGHT_NUM_TYPES]; /* tensors */
} Sums;

/* Expanded tensors may claim any size: sums stop at the largest number. */
static int64_t add(int64_t a, int64_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

static Sums sum_up(const WeightSource *s)
{
    Sums sums = { 0 };

    for (int64_t i = 0; i < dg_source_num(s); i++) {
        const WeightInfo *info = dg_source_info(s, i);

        sums.values = add(sums.values, info->count);
        sums.bytes = add(sums.bytes, info->bytes);
        sums.of_type[info->type]++;
    }
    return sums;
}

static void print_sums(const WeightSource *s, FILE *out)
{
    const Sums sums = sum_up(s);
    const char *comma = "";

    fprintf(out,
            "%" PRId64 " tensor%s, %" PRId64 " value%s, %" PRId64 " byte%s",
            dg_source_num(s), dg_plural(dg_source_num(s)), sums.values,
            dg_plural(sums.values), sums.bytes, dg_plural(sums.bytes));
    for (int t = 0; t < DG_WEIGHT_NUM_TYPES; t++)
        if (sums.of_type[t] > 0) {
            fprintf(out, "%s%s", *comma ? comma : " (",
                    dg_weight_type_name((WeightType)t));
            comma = ", ";
        }
    fputs(*comma ? ")\n" : "\n", out);
}

static void print_files(const WeightSource *s, FILE *out)
{
    const char *key, *text;

    for (int f = 0; f < dg_source_num_files(s); f++) {
        const WeightFile *file = dg_source_file(s, f);

        print_text(out, dg_weight_file_path(file));
        fprintf(out, ": %s\n", dg_weight_file_format(file));
        for (int i = 0; dg_weight_file_note_at(file, i, &key, &text) == DG_OK;
             i++) {
            fputs("  ", out);
            print_text(out, key);
            fputs(" = ", out);
            print_text(out, text);
            fputc('\n', out);
        }
    }
}

static int print_tensors(const WeightSource *s, int look, FILE *out)
{
    float *block = NULL;
    int err = DG_OK;

    if (look) {
        block = malloc(BLOCK * sizeof *block);
        if (block == NULL)
            return dg_fail(DG_ENOMEM, "%s: a block of values",
                           dg_source_label(s));
    }
    print_files(s, out);
    for (int64_t i = 0; i < dg_source_num(s) && !err; i++)
        err = print_tensor(s, i, block, out);
    free(block);
    return err;
}

static int print_source(const WeightSource *s, FILE *out)
{
    const int look = sum_up(s).values <= MOST_VALUES;
    const int err = print_tensors(s, look, out);

    print_sums(s, out);
    if (!look)
        fputs("(values were not looked at: too many)\n", out);
    return err || !look ? err : dg_source_verify(s);
}

/* Folders --------------------------------------------------------------- */

/* The class that config.json names, "" if there is none; to free. */
static char *class_of(const char *folder)
{
    const char *name = "";
    ModelConfig *c = NULL;
    char *path = NULL, *copy;

    if (asprintf(&path, "%s/config.json", folder) < 0)
        return NULL;
    if (dg_model_config_open(&c, path) == DG_OK &&
        dg_model_config_text(c, "_class_name", &name) != DG_OK)
        (void)dg_model_config_text_at(c, "architectures", 0, &name);
    copy = strdup(name);
    dg_model_config_close(c);
    free(path);
    dg_clear_error();
    return copy;
}

/* The tensors of a network of several, without their values; nothing of one
 * that cannot be read. */
static int list_component(const char *folder, const char *name,
                          const char *variant, FILE *out)
{
    WeightSource *s = NULL;
    char *path = NULL;
    int err = DG_OK;

    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return dg_fail(DG_ENOMEM, "%s: name of a component", folder);
    if (dg_snapshot_open(&s, path, variant) == DG_OK)
        err = print_tensors(s, 0, out);
    else
        dg_clear_error();
    dg_source_close(s);
    free(path);
    return err;
}

/* One line; weights that cannot be read are said to be so in it, and counted.
 */
static int print_component(const char *folder, const char *name,
                           const char *variant, FILE *out, int *unread)
{
    WeightSource *s = NULL;
    char *path = NULL, *class;
    int err;

    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return dg_fail(DG_ENOMEM, "%s: name of a component", folder);
    class = class_of(path);
    print_text(out, name);
    fprintf(out, "%*s ", strlen(name) < 16 ? 16 - (int)strlen(name) : 0, "");
    if (class != NULL && class[0] != '\0') {
        print_text(out, class);
        fputs(": ", out);
    }
    err = dg_snapshot_open(&s, path, variant);
    if (!err)
        print_sums(s, out);
    else
        fprintf(out, "%s\n", dg_last_error()->text);
    *unread += err != DG_OK;
    dg_source_close(s);
    free(class);
    free(path);
    if (err == DG_ENOMEM)
        return err;
    dg_clear_error();
    return DG_OK;
}

/* *num components, printed if there are any. */
static int print_components(const char *folder, const char *variant, FILE *out,
                            int *num)
{
    char **names;
    int unread = 0, err = dg_snapshot_components(folder, &names, num);

    if (err)
        return err;
    for (int i = 0; i < *num && !err; i++)
        err = list_component(folder, names[i], variant, out);
    if (*num > 0)
        fprintf(out, "%s: %d network%s\n", folder, *num, dg_plural(*num));
    for (int i = 0; i < *num; i++) {
        if (!err)
            err = print_component(folder, names[i], variant, out, &unread);
        free(names[i]);
    }
    free(names);
    if (!err && unread > 0)
        err = dg_fail(DG_EFORMAT, "%s: %d of %d networks cannot be read",
                      folder, unread, *num);
    return err;
}

int dg_describe_weights(const char *path, const char *variant, FILE *out)
{
    WeightSource *s = NULL;
    int num = 0, err = DG_OK;

    if (is_folder(path))
        err = print_components(path, variant, out, &num);
    if (err)
        return err;
    if (num == 0) {
        err = dg_snapshot_open(&s, path, variant);
        if (!err)
            err = print_source(s, out);
        dg_source_close(s);
    }
    if (!err && (ferror(out) || fflush(out) != 0))
        err = dg_fail(DG_EIO, "%s: its description cannot be written", path);
    return err;
}

int dg_describe_digest(const char *path, const char *variant, char *hex)
{
    WeightSource *s;
    int err = dg_snapshot_open(&s, path, variant);

    if (err)
        return err;
    err = dg_source_verify(s);
    if (!err)
        err = dg_source_digest(s, hex);
    dg_source_close(s);
    return err;
}
