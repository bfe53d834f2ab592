#include "weights/safetensors.h"

#include "base/error.h"
#include "mapped.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

/* Where a tensor's values lie, relative to the first data byte. */
typedef struct Range {
    int64_t begin, end;
    const char *name;
} Range;

/* Doubles hold integers exactly up to here; no file is longer. */
#define MOST 0x1p53

/* 0 or 1: a whole number in [0, 2^53), put in *out. */
static int whole(const cJSON *v, int64_t *out)
{
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble < MOST))
        return 0;
    *out = (int64_t)v->valuedouble;
    return (double)*out == v->valuedouble;
}

static int bad(const WeightFile *f, const char *name, const char *what)
{
    return dg_fail(DG_EFORMAT, "%s: tensor %.200s: %s", f->path, name, what);
}

static int read_shape(const WeightFile *f, WeightInfo *info, const cJSON *v)
{
    const cJSON *d;

    if (!cJSON_IsArray(v))
        return bad(f, info->name, "shape is not a list");
    cJSON_ArrayForEach(d, v)
    {
        if (info->num_dims == DG_WEIGHT_MAX_DIMS)
            return dg_fail(DG_EFORMAT, "%s: tensor %.200s: more than %d dims",
                           f->path, info->name, DG_WEIGHT_MAX_DIMS);
        if (!whole(d, &info->dims[info->num_dims++]))
            return bad(f, info->name, "shape has what is no size");
    }
    return DG_OK;
}

static int read_type(const WeightFile *f, WeightInfo *info, const cJSON *v)
{
    if (!cJSON_IsString(v))
        return bad(f, info->name, "dtype is not a text");
    info->type = dg_weight_type_find(v->valuestring);
    if (info->type == DG_WEIGHT_NUM_TYPES)
        return dg_fail(DG_EFORMAT, "%s: tensor %.200s: unknown dtype %.40s",
                       f->path, info->name, v->valuestring);
    return DG_OK;
}

static int read_range(const WeightFile *f, const WeightInfo *info,
                      const cJSON *v, int64_t num_data, Range *r)
{
    const cJSON *begin = cJSON_GetArrayItem(v, 0);
    const cJSON *end = cJSON_GetArrayItem(v, 1);

    if (!cJSON_IsArray(v) || cJSON_GetArraySize(v) != 2 ||
        !whole(begin, &r->begin) || !whole(end, &r->end))
        return bad(f, info->name, "data_offsets are not two whole numbers");
    if (r->begin > r->end || r->end > num_data)
        return dg_fail(DG_EFORMAT,
                       "%s: tensor %.200s: data_offsets %" PRId64 " to %" PRId64
                       " of %" PRId64 " bytes of data",
                       f->path, info->name, r->begin, r->end, num_data);
    return DG_OK;
}

static int read_tensor(WeightFile *f, const cJSON *entry,
                       const unsigned char *data, int64_t num_data, Range *r)
{
    MappedTensor t = { .info = { .name = entry->string } };
    const cJSON *v, *dtype = NULL, *shape = NULL, *offsets = NULL;
    int err, others = 0;

    cJSON_ArrayForEach(v, entry)
    {
        const cJSON **field = NULL;

        if (v->string != NULL && strcmp(v->string, "dtype") == 0)
            field = &dtype;
        else if (v->string != NULL && strcmp(v->string, "shape") == 0)
            field = &shape;
        else if (v->string != NULL && strcmp(v->string, "data_offsets") == 0)
            field = &offsets;
        others += field == NULL || *field != NULL;
        if (field != NULL)
            *field = v;
    }
    if (!cJSON_IsObject(entry) || others || !dtype || !shape || !offsets)
        return bad(f, entry->string,
                   "must have dtype, shape and data_offsets, each once");
    err = read_type(f, &t.info, dtype);
    if (!err)
        err = read_shape(f, &t.info, shape);
    if (!err)
        err = dg_mapped_measure(f, &t.info);
    if (!err)
        err = read_range(f, &t.info, offsets, num_data, r);
    if (err)
        return err;
    if (r->end - r->begin != t.info.bytes)
        return dg_fail(DG_EFORMAT,
                       "%s: tensor %.200s: data_offsets hold %" PRId64
                       " bytes, dtype and shape need %" PRId64,
                       f->path, t.info.name, r->end - r->begin, t.info.bytes);
    t.data = data + r->begin;
    return dg_mapped_add(f, &t);
}

static int read_notes(WeightFile *f, const cJSON *notes)
{
    const cJSON *v;
    int err = DG_OK;

    if (!cJSON_IsObject(notes))
        return dg_fail(DG_EFORMAT, "%s: __metadata__ is not an object",
                       f->path);
    cJSON_ArrayForEach(v, notes)
    {
        if (!cJSON_IsString(v))
            return dg_fail(DG_EFORMAT, "%s: __metadata__: %.200s is not a text",
                           f->path, v->string);
        err = dg_mapped_add_note(f, v->string, v->valuestring);
        if (err)
            break;
    }
    return err;
}

static int by_begin(const void *a, const void *b)
{
    const Range *r = a, *s = b;
    const int first = (r->begin > s->begin) - (r->begin < s->begin);

    return first ? first : (r->end > s->end) - (r->end < s->end);
}

/* Values fill the data: nothing twice, nothing hidden between. */
static int check_tiling(const WeightFile *f, Range *r, int64_t num,
                        int64_t num_data)
{
    int64_t at = 0;

    if (num > 1)
        qsort(r, (size_t)num, sizeof *r, by_begin);
    for (int64_t i = 0; i < num; i++) {
        if (r[i].begin != at)
            return dg_fail(DG_EFORMAT,
                           "%s: tensor %.200s begins at byte %" PRId64
                           " of the data, %s at %" PRId64,
                           f->path, r[i].name, r[i].begin,
                           r[i].begin < at ? "inside another that ends"
                                           : "after a gap that begins",
                           at);
        at = r[i].end;
    }
    if (at != num_data)
        return dg_fail(DG_EFORMAT,
                       "%s: tensors end at byte %" PRId64
                       " of the data, the file at %" PRId64,
                       f->path, at, num_data);
    return DG_OK;
}

static int read_entries(WeightFile *f, const cJSON *header,
                        const unsigned char *data, int64_t num_data)
{
    const int64_t most = cJSON_GetArraySize(header);
    Range *ranges = calloc((size_t)most + 1, sizeof *ranges);
    const cJSON *entry;
    int notes = 0, err = DG_OK;

    if (ranges == NULL)
        return dg_fail(DG_ENOMEM, "%s: index of %" PRId64 " tensors", f->path,
                       most);
    cJSON_ArrayForEach(entry, header)
    {
        if (entry->string != NULL &&
            strcmp(entry->string, "__metadata__") == 0) {
            err = notes++ ? bad(f, "__metadata__", "is there twice")
                          : read_notes(f, entry);
        } else {
            Range *r = &ranges[f->num];

            r->name = entry->string;
            err = read_tensor(f, entry, data, num_data, r);
        }
        if (err)
            break;
    }
    if (!err)
        err = check_tiling(f, ranges, f->num, num_data);
    free(ranges);
    return err ? err : dg_mapped_sort(f);
}

/* The header and its length; to free. */
static int take_header(unsigned char **text, int64_t *length,
                       const FileBytes *f)
{
    uint64_t n;
    int err;

    if (f->num < sizeof n)
        return dg_fail(DG_EFORMAT,
                       "%s: %" PRIu64 " bytes: a safetensors file has at least "
                       "%zu",
                       f->path, f->num, sizeof n);
    err = dg_bytes_copy(&n, f, 0, sizeof n);
    if (err)
        return err;
    if (n > DG_SAFETENSORS_MAX_HEADER || n > f->num - sizeof n)
        return dg_fail(DG_EFORMAT,
                       "%s: not a whole safetensors file: its header would "
                       "have %" PRIu64
                       " bytes, allowed are %d, and the file has %" PRIu64,
                       f->path, n, DG_SAFETENSORS_MAX_HEADER, f->num);
    *length = (int64_t)n;
    return dg_bytes_take(text, f, sizeof n, n);
}

/* The header's JSON; only spaces may follow it. */
static cJSON *header_json(const char *text, size_t length)
{
    const char *end = NULL;
    cJSON *json = NULL;

    if (length > 0 && text[0] == '{')
        json = cJSON_ParseWithLengthOpts(text, length, &end, 0);
    while (json != NULL && end < text + length && *end == ' ')
        end++;
    if (json != NULL && end != text + length) {
        cJSON_Delete(json);
        json = NULL;
    }
    return json;
}

int dg_safetensors_parse(WeightFile **out, const char *path, const void *bytes,
                         size_t num_bytes)
{
    const FileBytes b = { path, bytes, num_bytes };
    unsigned char *text = NULL;
    int64_t n = 0;
    WeightFile *f = NULL;
    cJSON *header;
    int err = take_header(&text, &n, &b);

    if (!err)
        err = dg_mapped_create(&f, path, "safetensors", bytes, num_bytes);
    if (err)
        goto free_text;
    header = header_json((const char *)text, (size_t)n);
    if (header == NULL)
        err =
            dg_fail(DG_EFORMAT,
                    "%s: not a safetensors file: its header is not JSON", path);
    else
        err = read_entries(f, header, b.p + 8 + n, (int64_t)num_bytes - 8 - n);
    cJSON_Delete(header);
    if (err)
        dg_weight_file_close(f);
    else
        *out = f;
free_text:
    free(text);
    return err;
}
