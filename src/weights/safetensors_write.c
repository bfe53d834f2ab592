#include "weights/safetensors.h"

#include "base/error.h"
#include "base/out_file.h"
#include "weights/half.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

/* values converted at a time */
enum { BLOCK = 1 << 18 };

static int64_t count(const WeightOut *t)
{
    int64_t num = 1;

    for (int i = 0; i < t->num_dims; i++)
        num *= t->dims[i];
    return num;
}

static int64_t bytes_of(const WeightOut *t)
{
    return count(t) * (dg_weight_type_bits(t->type) / 8);
}

/* Order ----------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const WeightOut *const *s = a, *const *t = b;

    return strcmp((*s)->name, (*t)->name);
}

/* The Python library's: wide types first, so that all values are aligned. */
static int by_type(const void *a, const void *b)
{
    static const int rank[] = {
        [DG_WEIGHT_F32] = 0, [DG_WEIGHT_BF16] = 1, [DG_WEIGHT_F16] = 2
    };
    const WeightOut *const *s = a, *const *t = b;
    const int first = rank[(*s)->type] - rank[(*t)->type];

    return first ? first : by_name(a, b);
}

/* Pointers to the tensors by name, to free; every tensor checked. */
static int sort_tensors(const WeightOut ***out, const char *path,
                        const WeightOut *tensors, int64_t num)
{
    const WeightOut **list = malloc((size_t)(num + 1) * sizeof *list);
    int err = DG_OK;

    if (list == NULL)
        return dg_fail(DG_ENOMEM, "%s: index of %" PRId64 " tensors", path,
                       num);
    for (int64_t i = 0; i < num && !err; i++) {
        const WeightOut *t = list[i] = &tensors[i];

        if (t->type != DG_WEIGHT_F32 && t->type != DG_WEIGHT_F16 &&
            t->type != DG_WEIGHT_BF16)
            err = dg_fail(DG_EINVAL,
                          "%s: tensor %s: written are F32, F16 and BF16 only",
                          path, t->name);
        else if (strcmp(t->name, "__metadata__") == 0)
            err = dg_fail(DG_EINVAL, "%s: no tensor may be named %s", path,
                          t->name);
    }
    if (!err && num > 1)
        qsort(list, (size_t)num, sizeof *list, by_name);
    for (int64_t i = 1; i < num && !err; i++)
        if (strcmp(list[i - 1]->name, list[i]->name) == 0)
            err = dg_fail(DG_EINVAL, "%s: two tensors named %s", path,
                          list[i]->name);
    if (err)
        free(list);
    else
        *out = list;
    return err;
}

/* Header ---------------------------------------------------------------- */

static int add_entry(cJSON *header, const WeightOut *t, int64_t at)
{
    cJSON *entry = cJSON_AddObjectToObject(header, t->name);
    cJSON *shape, *offsets;
    int ok;

    ok = cJSON_AddStringToObject(entry, "dtype",
                                 dg_weight_type_name(t->type)) != NULL;
    shape = cJSON_AddArrayToObject(entry, "shape");
    for (int i = 0; i < t->num_dims; i++)
        ok &=
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->dims[i]));
    offsets = cJSON_AddArrayToObject(entry, "data_offsets");
    ok &= cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)at));
    ok &= cJSON_AddItemToArray(offsets,
                               cJSON_CreateNumber((double)(at + bytes_of(t))));
    return ok;
}

static char *header_text(const WeightOut *const *list, int64_t num,
                         const char *note_key, const char *note)
{
    cJSON *header = cJSON_CreateObject(), *notes;
    int64_t at = 0;
    char *text = NULL;
    int ok = header != NULL;

    if (note_key != NULL) {
        notes = cJSON_AddObjectToObject(header, "__metadata__");
        ok &= cJSON_AddStringToObject(notes, note_key, note) != NULL;
    }
    for (int64_t i = 0; i < num && ok; i++) {
        ok &= add_entry(header, list[i], at);
        at += bytes_of(list[i]);
    }
    if (ok)
        text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    return text;
}

static int write_header(OutFile *f, const char *path,
                        const WeightOut *const *list, int64_t num,
                        const char *note_key, const char *note)
{
    static const char spaces[8] = "        ";
    char *text = header_text(list, num, note_key, note);
    uint64_t length, padded;
    int err;

    if (text == NULL)
        return dg_fail(DG_ENOMEM, "%s: its header", path);
    length = strlen(text);
    padded = (length + 7) / 8 * 8;
    err = dg_out_write(f, &padded, sizeof padded);
    if (!err)
        err = dg_out_write(f, text, length);
    if (!err)
        err = dg_out_write(f, spaces, padded - length);
    cJSON_free(text);
    return err;
}

/* Values ---------------------------------------------------------------- */

static int check_values(const char *path, const WeightOut *t, int64_t first,
                        int64_t num)
{
    for (int64_t i = first; i < first + num; i++) {
        const float x = t->data[i];

        if (!isfinite(x))
            return dg_fail(DG_ENUMERIC,
                           "%s: tensor %s, element %" PRId64
                           " is %g: weights must be finite",
                           path, t->name, i, (double)x);
        if (t->type == DG_WEIGHT_F16 && !(fabsf(x) < 65520.0F))
            return dg_fail(DG_EINVAL,
                           "%s: tensor %s, element %" PRId64
                           " is %g: F16 ends at 65504",
                           path, t->name, i, (double)x);
    }
    return DG_OK;
}

static int write_values(OutFile *f, const char *path, const WeightOut *t,
                        uint16_t *block)
{
    const int64_t total = count(t);
    int err = DG_OK;

    for (int64_t at = 0; at < total && !err; at += BLOCK) {
        const int64_t num = total - at < BLOCK ? total - at : BLOCK;

        err = check_values(path, t, at, num);
        if (err)
            break;
        if (t->type == DG_WEIGHT_F32) {
            err = dg_out_write(f, t->data + at, (size_t)num * sizeof(float));
            continue;
        }
        if (t->type == DG_WEIGHT_F16)
            dg_half_narrow(block, t->data + at, num);
        else
            dg_bfloat_narrow(block, t->data + at, num);
        err = dg_out_write(f, block, (size_t)num * sizeof *block);
    }
    return err;
}

/* list is put into the file's order */
static int write_list(const char *path, const WeightOut **list, int64_t num,
                      const char *note_key, const char *note)
{
    uint16_t *block = malloc(BLOCK * sizeof *block);
    OutFile *f;
    int err;

    if (block == NULL)
        return dg_fail(DG_ENOMEM, "%s: a block of values", path);
    if (num > 1)
        qsort(list, (size_t)num, sizeof *list, by_type);
    err = dg_out_open(&f, path);
    if (err)
        goto free_block;
    err = write_header(f, path, list, num, note_key, note);
    for (int64_t i = 0; i < num && !err; i++)
        err = write_values(f, path, list[i], block);
    if (err)
        dg_out_abandon(f);
    else
        err = dg_out_commit(f);
free_block:
    free(block);
    return err;
}

int dg_safetensors_write(const char *path, const WeightOut *tensors,
                         int64_t num, const char *note_key, const char *note)
{
    const WeightOut **list;
    int err = sort_tensors(&list, path, tensors, num);

    if (err)
        return err;
    err = write_list(path, list, num, note_key, note);
    free(list);
    return err;
}

/* Shards ---------------------------------------------------------------- */

typedef struct Save {
    const SafetensorsOpts *o;
    const WeightOut **list; /* by name */
    int64_t *first;         /* [num_shards + 1] in list */
    int64_t num, num_shards, total;
    char *path; /* of the file in work */
    size_t room;
} Save;

static const char *shard_name(Save *s, int64_t shard)
{
    const char *name = s->path + strlen(s->o->folder) + 1;

    if (s->num_shards == 1)
        snprintf(s->path, s->room, "%s/%s.safetensors", s->o->folder,
                 s->o->stem);
    else
        snprintf(s->path, s->room,
                 "%s/%s-%05" PRId64 "-of-%05" PRId64 ".safetensors",
                 s->o->folder, s->o->stem, shard + 1, s->num_shards);
    return name;
}

static void plan_shards(Save *s)
{
    const int64_t most = s->o->max_shard_bytes;
    int64_t held = 0;

    s->num_shards = 1;
    s->first[0] = 0;
    for (int64_t i = 0; i < s->num; i++) {
        const int64_t bytes = bytes_of(s->list[i]);

        if (most > 0 && held > 0 && held + bytes > most) {
            s->first[s->num_shards++] = i;
            held = 0;
        }
        held += bytes;
        s->total += bytes;
    }
    s->first[s->num_shards] = s->num;
}

/* As json.dumps(index, indent=2, sort_keys=True) and a newline. */
static char *index_text(Save *s)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    int ok = out != NULL;

    if (!ok)
        return NULL;
    fprintf(out,
            "{\n  \"metadata\": {\n    \"total_size\": %" PRId64
            "\n  },\n  \"weight_map\": {",
            s->total);
    for (int64_t k = 0; k < s->num_shards && ok; k++)
        for (int64_t i = s->first[k]; i < s->first[k + 1] && ok; i++) {
            cJSON *name = cJSON_CreateString(s->list[i]->name);
            char *quoted = name ? cJSON_PrintUnformatted(name) : NULL;

            ok = quoted != NULL;
            if (ok)
                fprintf(out, "%s\n    %s: \"%s\"", i ? "," : "", quoted,
                        shard_name(s, k));
            cJSON_free(quoted);
            cJSON_Delete(name);
        }
    fputs("\n  }\n}\n", out);
    if (fclose(out) != 0 || !ok) {
        free(text);
        text = NULL;
    }
    return text;
}

static void index_path(Save *s)
{
    snprintf(s->path, s->room, "%s/%s.safetensors.index.json", s->o->folder,
             s->o->stem);
}

static int write_index(Save *s)
{
    char *text = index_text(s);
    OutFile *f;
    int err;

    index_path(s);
    if (text == NULL)
        return dg_fail(DG_ENOMEM, "%s: its text", s->path);
    err = dg_out_open(&f, s->path);
    if (!err) {
        err = dg_out_write(f, text, strlen(text));
        if (err)
            dg_out_abandon(f);
        else
            err = dg_out_commit(f);
    }
    free(text);
    return err;
}

/* The other form's entry file would be found first, or as well. */
static int remove_other(Save *s)
{
    if (s->num_shards == 1)
        index_path(s);
    else
        snprintf(s->path, s->room, "%s/%s.safetensors", s->o->folder,
                 s->o->stem);
    if (unlink(s->path) != 0 && errno != ENOENT)
        return dg_fail(DG_EIO, "%s: cannot remove: %s", s->path,
                       strerror(errno));
    return DG_OK;
}

static int save_all(Save *s)
{
    const WeightOut **copy = malloc((size_t)(s->num + 1) * sizeof *copy);
    int err = DG_OK;

    if (copy == NULL)
        return dg_fail(DG_ENOMEM, "%s: index of %" PRId64 " tensors",
                       s->o->folder, s->num);
    memcpy(copy, s->list, (size_t)s->num * sizeof *copy);
    for (int64_t k = 0; k < s->num_shards && !err; k++) {
        shard_name(s, k);
        err = write_list(s->path, copy + s->first[k],
                         s->first[k + 1] - s->first[k], s->o->note_key,
                         s->o->note);
    }
    if (!err && s->num_shards > 1)
        err = write_index(s);
    if (!err)
        err = remove_other(s);
    free(copy);
    return err;
}

int dg_safetensors_save(const SafetensorsOpts *o, const WeightOut *tensors,
                        int64_t num)
{
    Save s = { .o = o, .num = num };
    int err = sort_tensors(&s.list, o->folder, tensors, num);

    if (err)
        return err;
    s.room = strlen(o->folder) + strlen(o->stem) + 64;
    s.path = malloc(s.room);
    s.first = malloc((size_t)(num + 2) * sizeof *s.first);
    if (s.path == NULL || s.first == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: names of shards", o->folder);
    } else {
        plan_shards(&s);
        err = save_all(&s);
    }
    free(s.first);
    free(s.path);
    free(s.list);
    return err;
}
