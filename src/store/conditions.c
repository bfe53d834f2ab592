#include "store/conditions.h"

#include "base/error.h"
#include "weights/half.h"

#include <stdlib.h>
#include <string.h>

/* Writing --------------------------------------------------------------- */

static int write_digests(H5File *f, const Comm *c, const char *name,
                         const char *long_name, const HexDigest *digest,
                         int64_t num)
{
    const char **texts = malloc(((size_t)num + 1) * sizeof *texts);
    const H5Item item = { .name = name,
                          .type = DG_H5_TEXT,
                          .num_dims = 1,
                          .dims = { num },
                          .data = texts,
                          .units = "1",
                          .long_name = long_name,
                          .axes = "prompt" };
    int err = DG_OK;

    if (texts == NULL)
        err = dg_fail(DG_ENOMEM, "%s: %lld digests", dg_h5_path(f),
                      (long long)num);
    for (int64_t i = 0; i < num && texts != NULL; i++)
        texts[i] = digest[i];
    err = dg_agree(c, err);
    if (!err)
        err = dg_h5_write(f, &item);
    free(texts);
    return err;
}

static int write_content(H5File *f, const Comm *c, const ConditionsContent *k)
{
    const H5Item prompts = { .name = "prompt",
                             .type = DG_H5_TEXT,
                             .num_dims = 1,
                             .dims = { k->num },
                             .data = k->prompt,
                             .units = "1",
                             .long_name = "prompts",
                             .axes = "prompt" };
    const H5Item rows = { .name = "condition",
                          .type = k->type,
                          .num_dims = 2,
                          .dims = { k->num, k->width },
                          .shared = 1,
                          .first = k->first,
                          .num = k->num_local,
                          .data = k->rows,
                          .fetch = k->fetch,
                          .user = k->user,
                          .at_once = k->at_once,
                          .units = "1",
                          .long_name = "encoded prompts",
                          .axes = "prompt, element" };
    int err = dg_h5_put_text(f, NULL, "encoder_sha256", k->encoder);

    if (!err)
        err = dg_h5_write(f, &rows);
    if (!err && k->fetched != NULL)
        k->fetched(k->user);
    if (!err)
        err = dg_h5_write(f, &prompts);
    if (!err)
        err = write_digests(f, c, "prompt_sha256",
                            "SHA-256 of the prompts' texts", k->key, k->num);
    if (!err)
        err = write_digests(f, c, "tokens_sha256", "SHA-256 of their token ids",
                            k->tokens, k->num);
    if (!err)
        err = write_digests(f, c, "condition_sha256",
                            "SHA-256 of the conditions' bytes", k->condition,
                            k->num);
    return err;
}

int dg_conditions_write(const Comm *c, const char *path,
                        const ConditionsContent *k, const FileInfo *info)
{
    const int64_t row = k->width * (int64_t)dg_h5_type_bytes(k->type) + 512;
    H5File *f;
    int err = dg_h5_create(&f, c, path, DG_CONDITIONS_FORMAT,
                           DG_CONDITIONS_VERSION, info, k->num * row);

    if (err)
        return err;
    err = write_content(f, c, k);
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
    return err;
}

/* Reading --------------------------------------------------------------- */

struct Conditions {
    H5File *file;
    int64_t num, width;
    H5Type type;
    uint16_t *room; /* [width], of bfloat16 */
    char *encoder;
    char **key, **tokens, **condition;
};

static int read_digests(Conditions *c, const char *name, char ***out)
{
    int64_t num = 0;
    int err = dg_h5_read_texts(c->file, name, out, &num);

    if (!err && num != c->num)
        err = dg_fail(DG_EFORMAT, "%s: dataset %s: %lld texts for %lld prompts",
                      dg_h5_path(c->file), name, (long long)num,
                      (long long)c->num);
    for (int64_t i = 0; i < num && !err; i++)
        if (strlen((*out)[i]) != DG_SHA256_HEX - 1)
            err = dg_fail(DG_EFORMAT,
                          "%s: dataset %s: text %lld is no SHA-256 digest",
                          dg_h5_path(c->file), name, (long long)i);
    return err;
}

static int read_shape(Conditions *c)
{
    H5Shape shape;
    const int err = dg_h5_shape(c->file, "condition", &shape);

    if (err)
        return err;
    if ((shape.type != DG_H5_F32 && shape.type != DG_H5_BF16) ||
        shape.num_dims != 2)
        return dg_fail(DG_EFORMAT,
                       "%s: dataset condition: not float32 or bfloat16 of two "
                       "dimensions",
                       dg_h5_path(c->file));
    c->type = shape.type;
    c->num = shape.dims[0];
    c->width = shape.dims[1];
    if (c->type == DG_H5_BF16)
        c->room = malloc(sizeof *c->room * ((size_t)c->width + 1));
    return c->type != DG_H5_BF16 || c->room != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "%s: a condition", dg_h5_path(c->file));
}

int dg_conditions_open(Conditions **out, const char *path)
{
    Conditions *c = calloc(1, sizeof *c);
    int err;

    if (c == NULL)
        return dg_fail(DG_ENOMEM, "%s", path);
    err =
        dg_h5_open(&c->file, path, DG_CONDITIONS_FORMAT, DG_CONDITIONS_VERSION);
    if (!err)
        err = read_shape(c);
    if (!err)
        err = dg_h5_get_text(c->file, NULL, "encoder_sha256", &c->encoder);
    if (!err)
        err = read_digests(c, "prompt_sha256", &c->key);
    if (!err)
        err = read_digests(c, "tokens_sha256", &c->tokens);
    if (!err)
        err = read_digests(c, "condition_sha256", &c->condition);
    if (err)
        dg_conditions_close(c);
    else
        *out = c;
    return err;
}

void dg_conditions_close(Conditions *c)
{
    if (c == NULL)
        return;
    if (c->file != NULL)
        dg_h5_close(c->file);
    free(c->room);
    free(c->encoder);
    dg_h5_free_texts(c->key);
    dg_h5_free_texts(c->tokens);
    dg_h5_free_texts(c->condition);
    free(c);
}

const char *dg_conditions_path(const Conditions *c)
{
    return dg_h5_path(c->file);
}

const char *dg_conditions_encoder(const Conditions *c)
{
    return c->encoder;
}

int64_t dg_conditions_width(const Conditions *c)
{
    return c->width;
}

H5Type dg_conditions_type(const Conditions *c)
{
    return c->type;
}

int64_t dg_conditions_find(const Conditions *c, const char *prompt,
                           const char **tokens)
{
    int64_t low = 0, high = c->num;
    HexDigest key;

    if (dg_sha256_bytes(key, prompt, strlen(prompt)) != DG_OK)
        return -1;
    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        const int order = strcmp(c->key[mid], key);

        if (order == 0) {
            if (tokens != NULL)
                *tokens = c->tokens[mid];
            return mid;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return -1;
}

int dg_conditions_read(Conditions *c, int64_t row, float *out)
{
    const int64_t dims[] = { c->num, c->width };
    void *stored = c->type == DG_H5_BF16 ? (void *)c->room : out;
    HexDigest digest;
    int err;

    dg_h5_hold(); /* an iteration's files may be written meanwhile */
    err =
        dg_h5_read_rows(c->file, "condition", c->type, 2, dims, row, 1, stored);
    dg_h5_release();
    if (!err)
        err = dg_sha256_bytes(digest, stored,
                              dg_h5_type_bytes(c->type) * (size_t)c->width);
    if (!err && strcmp(digest, c->condition[row]) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: dataset condition, row %lld: SHA-256 is %.16s..., "
                      "stored is %.16s...: the file is damaged",
                      dg_h5_path(c->file), (long long)row, digest,
                      c->condition[row]);
    if (!err && c->type == DG_H5_BF16)
        dg_bfloat_widen(out, c->room, c->width);
    return err;
}

int dg_conditions_digest(const char *path, HexDigest hex)
{
    Conditions *c = NULL;
    Sha256 sum = { 0 };
    float *row = NULL;
    int err = dg_conditions_open(&c, path);

    if (err)
        return err;
    row = malloc(sizeof *row * ((size_t)c->width + 1));
    err = row != NULL ? dg_sha256_init(&sum)
                      : dg_fail(DG_ENOMEM, "%s: a condition", path);
    for (int64_t i = 0; i < c->num && !err; i++) {
        err = dg_conditions_read(c, i, row);
        dg_sha256_update(&sum, c->key[i], DG_SHA256_HEX);
        dg_sha256_update(&sum, c->condition[i], DG_SHA256_HEX);
    }
    if (err)
        dg_sha256_fini(&sum);
    else
        dg_sha256_final(&sum, hex);
    free(row);
    dg_conditions_close(c);
    return err;
}
