#include "store/weights_file.h"

#include "base/error.h"
#include "base/sha256.h"
#include "weights/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char folder[] = "weights/";

static int64_t count(const WeightTensor *t)
{
    int64_t num = 1;

    for (int i = 0; i < t->num_dims; i++)
        num *= t->dims[i];
    return num;
}

/* Writing --------------------------------------------------------------- */

static int check_values(const char *path, H5Type type, const WeightTensor *t,
                        const float *values)
{
    const int64_t num = count(t);

    for (int64_t i = 0; i < num; i++) {
        const float x = values[i];

        if (!isfinite(x))
            return dg_fail(DG_ENUMERIC, "%s: %s[%lld] is %g", path, t->name,
                           (long long)i, (double)x);
        if (type == DG_H5_F16 &&
            !isfinite(dg_half_to_float(dg_half_from_float(x))))
            return dg_fail(DG_EINVAL,
                           "%s: %s[%lld] is %g: float16 ends at 65504", path,
                           t->name, (long long)i, (double)x);
    }
    return DG_OK;
}

static int check_tensor(const char *path, H5Type type, const WeightTensor *t)
{
    if (type != DG_H5_F16 && type != DG_H5_F32)
        return dg_fail(DG_EINVAL, "%s: weights are float16 or float32, not %s",
                       path, dg_h5_type_name(type));
    return t->data != NULL ? check_values(path, type, t, t->data) : DG_OK;
}

static int check_content(const char *path, H5Type type, const WeightsContent *w)
{
    int err = DG_OK;

    for (int i = 0; i < w->num_tensors && !err; i++) {
        err = check_tensor(path, type, &w->tensors[i]);
        for (int j = 0; j < i && !err; j++)
            if (strcmp(w->tensors[i].name, w->tensors[j].name) == 0)
                err = dg_fail(DG_EINVAL, "%s: two tensors named %s", path,
                              w->tensors[i].name);
    }
    return err;
}

/* Room for a tensor: as it is stored, and as it is brought. */
typedef struct Blocks {
    void *stored;
    float *brought;
} Blocks;

/* A tensor's values, checked. */
static int take_values(const float **out, const H5File *f, const Comm *c,
                       H5Type type, const WeightsContent *w,
                       const WeightTensor *t, const Blocks *b)
{
    int err;

    *out = t->data;
    if (w->fetch == NULL)
        return DG_OK;
    *out = b->brought;
    err = w->fetch(w->user, t, b->brought);
    return err ? err
               : dg_agree(c, check_values(dg_h5_path(f), type, t, b->brought));
}

static int write_tensor(H5File *f, const Comm *c, H5Type type,
                        const WeightsContent *w, const WeightTensor *t,
                        const Blocks *b)
{
    void *block = b->stored;
    const float *values;
    char name[DG_H5_NAME], digest[DG_SHA256_HEX];
    const size_t bytes = (size_t)count(t) * dg_h5_type_bytes(type);
    H5Item item = { .name = name,
                    .type = type,
                    .num_dims = t->num_dims,
                    .data = block,
                    .units = "1",
                    .long_name = t->name,
                    .axes =
                        t->num_dims ? "as in the safetensors file" : "none" };
    int err = take_values(&values, f, c, type, w, t, b);

    if (err)
        return err;
    snprintf(name, sizeof name, "%s%s", folder, t->name);
    memcpy(item.dims, t->dims, sizeof item.dims);
    if (type == DG_H5_F16)
        dg_half_narrow(block, values, count(t));
    else
        memcpy(block, values, bytes);
    err = dg_agree(c, dg_sha256_bytes(digest, block, bytes));
    if (!err)
        err = dg_h5_write(f, &item);
    return err ? err : dg_h5_put_text(f, name, "sha256", digest);
}

static int write_list(H5File *f, const WeightList *l)
{
    char name[DG_H5_NAME];
    const H5Item item = { .name = name,
                          .type = DG_H5_TEXT,
                          .num_dims = 1,
                          .dims = { l->num },
                          .data = l->texts,
                          .units = "1",
                          .long_name = l->name,
                          .axes = "entry" };

    snprintf(name, sizeof name, "lists/%s", l->name);
    return dg_h5_write(f, &item);
}

static int write_content(H5File *f, const Comm *c, H5Type type,
                         const WeightsContent *w, const Blocks *b)
{
    int err = DG_OK;

    for (int i = 0; i < w->num_notes && !err; i++)
        err =
            dg_h5_put_text(f, "provenance", w->notes[i].key, w->notes[i].value);
    for (int i = 0; i < w->num_tensors && !err; i++)
        err = write_tensor(f, c, type, w, &w->tensors[i], b);
    for (int i = 0; i < w->num_lists && !err; i++)
        err = write_list(f, &w->lists[i]);
    return err;
}

int dg_weights_write(const Comm *c, const char *path, H5Type type,
                     const WeightsContent *w, const FileInfo *info)
{
    int64_t most = 1, bytes = 0;
    Blocks b = { NULL, NULL };
    H5File *f;
    int err = check_content(path, type, w);

    for (int i = 0; i < w->num_tensors; i++) {
        const int64_t num = count(&w->tensors[i]);

        most = num > most ? num : most;
        bytes += num * (int64_t)dg_h5_type_bytes(type) + 6144;
    }
    if (!err) {
        b.stored = malloc((size_t)most * dg_h5_type_bytes(type));
        b.brought =
            w->fetch != NULL ? malloc((size_t)most * sizeof(float)) : NULL;
        if (b.stored == NULL || (w->fetch != NULL && b.brought == NULL))
            err =
                dg_fail(DG_ENOMEM, "%s: %lld elements", path, (long long)most);
    }
    err = dg_agree(c, err);
    if (!err)
        err = dg_h5_create(&f, c, path, DG_WEIGHTS_FORMAT, DG_WEIGHTS_VERSION,
                           info, bytes);
    if (err)
        goto free_blocks;
    err = write_content(f, c, type, w, &b);
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
free_blocks:
    free(b.stored);
    free(b.brought);
    return err;
}

/* Reading --------------------------------------------------------------- */

/* The tensors wanted against those in the file. */
typedef struct Match {
    const char *prefix;
    const WeightTensor *tensors;
    int num_tensors;
    int missing, unexpected;
    char text[640]; /* their names, as many as fit */
} Match;

static void note(Match *m, const char *kind, const char *name)
{
    const size_t used = strlen(m->text);

    if (used + strlen(kind) + strlen(name) + 8 < sizeof m->text)
        snprintf(m->text + used, sizeof m->text - used, "%s%s %s",
                 used ? ", " : "", kind, name);
    else if (used + 4 < sizeof m->text && m->text[used - 1] != '.')
        strcat(m->text, " ...");
}

static int match_set(H5File *f, const char *name, void *user)
{
    const size_t skip = sizeof folder - 1;
    Match *m = user;

    (void)f;
    if (strncmp(name, folder, skip) != 0 ||
        strncmp(name + skip, m->prefix, strlen(m->prefix)) != 0)
        return DG_OK;
    for (int i = 0; i < m->num_tensors; i++)
        if (strcmp(name + skip + strlen(m->prefix), m->tensors[i].name) == 0)
            return DG_OK;
    m->unexpected++;
    note(m, "unexpected", name + skip);
    return DG_OK;
}

static int check_names(H5File *f, Match *m)
{
    char name[DG_H5_NAME];
    int err;

    for (int i = 0; i < m->num_tensors; i++) {
        snprintf(name, sizeof name, "%s%s%s", folder, m->prefix,
                 m->tensors[i].name);
        if (!dg_h5_has(f, name)) {
            m->missing++;
            note(m, "missing", name + sizeof folder - 1);
        }
    }
    err = dg_h5_visit(f, match_set, m);
    if (!err && m->missing + m->unexpected > 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: weights of another network than the "
                      "configuration's: %d tensors missing, %d unexpected: %s",
                      dg_h5_path(f), m->missing, m->unexpected, m->text);
    return err;
}

static int check_digest(H5File *f, const char *name, const void *data,
                        size_t bytes)
{
    char digest[DG_SHA256_HEX];
    int err = dg_sha256_bytes(digest, data, bytes);

    return err ? err : dg_h5_match_digest(f, name, 0, "sha256", digest);
}

static int read_tensor(H5File *f, const char *prefix, const WeightTensor *t)
{
    const int64_t num = count(t);
    char name[DG_H5_NAME];
    uint16_t *half;
    H5Shape there;
    int err;

    snprintf(name, sizeof name, "%s%s%s", folder, prefix, t->name);
    err = dg_h5_shape(f, name, &there);
    if (err)
        return err;
    if (there.type != DG_H5_F16) { /* float32, or the reader says so */
        err = dg_h5_read(f, name, DG_H5_F32, t->num_dims, t->dims, t->data);
        return err ? err
                   : check_digest(f, name, t->data,
                                  (size_t)num * sizeof(float));
    }
    half = malloc((size_t)(num > 0 ? num : 1) * sizeof *half);
    if (half == NULL)
        return dg_fail(DG_ENOMEM, "%s: tensor %s", dg_h5_path(f), t->name);
    err = dg_h5_read(f, name, DG_H5_F16, t->num_dims, t->dims, half);
    if (!err)
        err = check_digest(f, name, half, (size_t)num * sizeof *half);
    if (!err)
        dg_half_widen(t->data, half, num);
    free(half);
    return err;
}

int dg_weights_read(const char *path, const char *prefix,
                    const WeightTensor *tensors, int num_tensors)
{
    Match m = { .prefix = prefix,
                .tensors = tensors,
                .num_tensors = num_tensors };
    H5File *f;
    int err = dg_h5_open(&f, path, DG_WEIGHTS_FORMAT, DG_WEIGHTS_VERSION);

    if (err)
        return err;
    err = check_names(f, &m);
    for (int i = 0; i < num_tensors && !err; i++)
        err = read_tensor(f, prefix, &tensors[i]);
    dg_h5_close(f);
    return err;
}

int dg_weights_read_list(const char *path, const char *name, char ***texts,
                         int64_t *num)
{
    char full[DG_H5_NAME];
    H5File *f;
    int err = dg_h5_open(&f, path, DG_WEIGHTS_FORMAT, DG_WEIGHTS_VERSION);

    if (err)
        return err;
    snprintf(full, sizeof full, "lists/%s", name);
    err = dg_h5_read_texts(f, full, texts, num);
    dg_h5_close(f);
    return err;
}

int dg_weights_read_note(const char *path, const char *key, char **value)
{
    H5File *f;
    int err = dg_h5_open(&f, path, DG_WEIGHTS_FORMAT, DG_WEIGHTS_VERSION);

    if (err)
        return err;
    err = dg_h5_get_text(f, "provenance", key, value);
    dg_h5_close(f);
    return err;
}
