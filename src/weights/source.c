#include "weights/source.h"

#include "base/error.h"
#include "base/sha256.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct Entry {
    const WeightInfo *info;
    int file;
    int64_t index; /* in the file */
} Entry;

struct WeightSource {
    char *label;
    WeightFile **files;
    int num_files;
    Entry *entries;
    int64_t num;
};

static int by_name(const void *a, const void *b)
{
    const Entry *s = a, *t = b;

    return strcmp(s->info->name, t->info->name);
}

static int open_files(WeightSource *s, const char *const *paths, int num)
{
    int err = DG_OK;

    s->files = calloc((size_t)num + 1, sizeof(WeightFile *));
    if (s->files == NULL)
        return dg_fail(DG_ENOMEM, "%s: %d files", s->label, num);
    for (int i = 0; i < num && !err; i++) {
        err = dg_weight_file_open(&s->files[i], paths[i]);
        s->num_files += !err;
    }
    return err;
}

static int list_tensors(WeightSource *s)
{
    int64_t num = 0;

    for (int f = 0; f < s->num_files; f++)
        num += dg_weight_file_num(s->files[f]);
    s->entries = malloc((size_t)(num + 1) * sizeof *s->entries);
    if (s->entries == NULL)
        return dg_fail(DG_ENOMEM, "%s: index of %" PRId64 " tensors", s->label,
                       num);
    for (int f = 0; f < s->num_files; f++)
        for (int64_t i = 0; i < dg_weight_file_num(s->files[f]); i++)
            s->entries[s->num++] =
                (Entry) { dg_weight_file_info(s->files[f], i), f, i };
    if (num > 1)
        qsort(s->entries, (size_t)num, sizeof *s->entries, by_name);
    for (int64_t i = 1; i < num; i++)
        if (by_name(&s->entries[i - 1], &s->entries[i]) == 0)
            return dg_fail(
                DG_EFORMAT, "%s: tensor %s is both in %s and in %s", s->label,
                s->entries[i].info->name,
                dg_weight_file_path(s->files[s->entries[i - 1].file]),
                dg_weight_file_path(s->files[s->entries[i].file]));
    return DG_OK;
}

int dg_source_open(WeightSource **out, const char *label,
                   const char *const *paths, int num_paths)
{
    WeightSource *s = calloc(1, sizeof *s);
    int err = DG_OK;

    if (s != NULL)
        s->label = strdup(label);
    if (s == NULL || s->label == NULL)
        err = dg_fail(DG_ENOMEM, "%s: its index", label);
    if (!err)
        err = open_files(s, paths, num_paths);
    if (!err)
        err = list_tensors(s);
    if (err)
        dg_source_close(s);
    else
        *out = s;
    return err;
}

void dg_source_close(WeightSource *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->num_files; i++)
        dg_weight_file_close(s->files[i]);
    free(s->files);
    free(s->entries);
    free(s->label);
    free(s);
}

const char *dg_source_label(const WeightSource *s)
{
    return s->label;
}

int dg_source_num_files(const WeightSource *s)
{
    return s->num_files;
}

const WeightFile *dg_source_file(const WeightSource *s, int i)
{
    return s->files[i];
}

int dg_source_verify(const WeightSource *s)
{
    return dg_source_verify_part(s, 0, 1);
}

int dg_source_verify_part(const WeightSource *s, int part, int parts)
{
    int64_t all = 1, at = 0, from, end; /* 1: an empty member may be the last */
    int err = DG_OK;

    for (int i = 0; i < s->num_files; i++)
        all += dg_weight_file_summed(s->files[i]);
    from = all * part / parts;
    end = all * (part + 1) / parts;
    for (int i = 0; i < s->num_files && !err; i++) {
        err = dg_weight_file_verify_part(s->files[i], from - at, end - at);
        at += dg_weight_file_summed(s->files[i]);
    }
    return err;
}

uint64_t dg_source_stamp(const WeightSource *s)
{
    uint64_t stamp = (uint64_t)s->num_files;

    for (int i = 0; i < s->num_files; i++)
        stamp = stamp * 0x100000001b3u ^ dg_weight_file_stamp(s->files[i]);
    return stamp;
}

int64_t dg_source_num(const WeightSource *s)
{
    return s->num;
}

const WeightInfo *dg_source_info(const WeightSource *s, int64_t i)
{
    return s->entries[i].info;
}

int64_t dg_source_find(const WeightSource *s, const char *name)
{
    const WeightInfo info = { .name = name };
    const Entry key = { .info = &info };
    const Entry *e = NULL;

    if (s->num > 0)
        e = bsearch(&key, s->entries, (size_t)s->num, sizeof *s->entries,
                    by_name);
    return e != NULL ? e - s->entries : -1;
}

int dg_source_read(const WeightSource *s, int64_t i, int64_t first, int64_t num,
                   float *dst)
{
    const Entry *e = &s->entries[i];

    return dg_weight_file_read(s->files[e->file], e->index, first, num, dst);
}

int dg_source_read_any(const WeightSource *s, int64_t i, int64_t first,
                       int64_t num, float *dst)
{
    const Entry *e = &s->entries[i];

    return dg_weight_file_read_any(s->files[e->file], e->index, first, num,
                                   dst);
}

int dg_source_read_raw(const WeightSource *s, int64_t i, void *dst)
{
    const Entry *e = &s->entries[i];

    return dg_weight_file_read_raw(s->files[e->file], e->index, dst);
}

int dg_source_digest(const WeightSource *s, char *hex)
{
    Sha256 sum;
    int err = dg_sha256_init(&sum);

    for (int64_t i = 0; i < s->num && !err; i++) {
        const WeightInfo *info = dg_source_info(s, i);
        void *raw = malloc((size_t)info->bytes + 1);

        if (raw == NULL)
            err = dg_fail(DG_ENOMEM, "%s: tensor %s: %" PRId64 " bytes",
                          s->label, info->name, info->bytes);
        else
            err = dg_source_read_raw(s, i, raw);
        if (!err) {
            dg_sha256_update(&sum, info->name, strlen(info->name) + 1);
            dg_sha256_update(&sum, raw, (size_t)info->bytes);
        }
        free(raw);
    }
    if (err)
        dg_sha256_fini(&sum);
    else
        dg_sha256_final(&sum, hex);
    return err;
}
