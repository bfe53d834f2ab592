#include "cache_internal.h"
#include "train/cache.h"

#include "base/error.h"
#include "train/guided.h"
#include "train/setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- digests ------------------------------------------------------------- */

int dg_cache_encoders(HexDigest hex, const Policy *p)
{
    const int64_t lengths[] = { p->shape.text_tokens, p->shape.clip_tokens };
    Sha256 sum;
    int err = dg_sha256_init(&sum);

    if (err)
        return err;
    dg_sha256_update(&sum, lengths, sizeof lengths);
    for (int i = 0; i < p->text.num_params; i++) {
        const Param *q = p->text.params[i];

        dg_sha256_update(&sum, q->name, strlen(q->name) + 1);
        dg_sha256_update(&sum, q->value.dims, sizeof q->value.dims);
        dg_sha256_update(&sum, q->value.data,
                         sizeof(float) * (size_t)dg_tensor_count(&q->value));
    }
    dg_sha256_final(&sum, hex);
    return DG_OK;
}

size_t dg_cache_ids_bytes(const Policy *p)
{
    return sizeof(int32_t) *
           (size_t)(p->shape.text_tokens + p->shape.clip_tokens);
}

int dg_cache_tokenize(const Policy *p, const char *prompt, int32_t *ids,
                      HexDigest hex)
{
    int err = dg_policy_tokenize(p, prompt, ids, ids + p->shape.text_tokens);

    return err ? err : dg_sha256_bytes(hex, ids, dg_cache_ids_bytes(p));
}

/* --- reading --------------------------------------------------------------- */

/* what  says in messages which prompt it is */
static int check_prompt(const Conditions *c, const Policy *p, const char *text,
                        const char *what, int32_t *ids)
{
    const char *stored;
    HexDigest tokens;
    int err;

    if (dg_conditions_find(c, text, &stored) < 0)
        return dg_fail(DG_EINVAL,
                       "prompts.cache = \"%s\": %s, \"%.100s\", is not in "
                       "it: run `dancegrpo encode` again",
                       dg_conditions_path(c), what, text);
    err = dg_cache_tokenize(p, text, ids, tokens);
    if (!err && strcmp(stored, tokens) != 0)
        err = dg_fail(DG_EINVAL,
                      "prompts.cache = \"%s\": %s, \"%.100s\", was made "
                      "into other tokens: run `dancegrpo encode` again",
                      dg_conditions_path(c), what, text);
    return err;
}

static int check_empty(const Conditions *c, const Policy *p, double scale)
{
    int32_t *ids = malloc(dg_cache_ids_bytes(p));
    char what[64];
    int err = ids != NULL ? DG_OK : dg_fail(DG_ENOMEM, "token ids");

    snprintf(what, sizeof what, "the empty prompt of cfg.scale = %g", scale);
    if (!err)
        err = check_prompt(c, p, "", what, ids);
    free(ids);
    return err;
}

static int check_list(const Conditions *c, const Policy *p,
                      const PromptList *list, const char *path)
{
    int32_t *ids = malloc(dg_cache_ids_bytes(p));
    char what[DG_CONFIG_STRING + 64];
    int err = ids != NULL ? DG_OK : dg_fail(DG_ENOMEM, "token ids");

    for (int32_t i = 0; i < list->num && !err; i++) {
        snprintf(what, sizeof what, "prompt %d of %s", i + 1, path);
        err = check_prompt(c, p, list->item[i].text, what, ids);
    }
    free(ids);
    return err;
}

H5Type dg_cache_type(const Config *c)
{
    if (c->prompts.cache_dtype == DG_CACHE_RUN)
        return c->run.dtype == DG_STORE_BFLOAT16 ? DG_H5_BF16 : DG_H5_F32;
    return c->prompts.cache_dtype == DG_CACHE_BFLOAT16 ? DG_H5_BF16 : DG_H5_F32;
}

/* What a run computes does not depend on what a file happens to hold: networks
 * in bfloat16 round conditions before they use them, others take them as they
 * are. */
static int check_type(const Conditions *c, const Config *config)
{
    const H5Type wanted = dg_cache_type(config), there = dg_conditions_type(c);

    if (config->run.dtype == DG_STORE_BFLOAT16 || there == wanted)
        return DG_OK;
    return dg_fail(DG_EINVAL,
                   "prompts.cache = \"%s\": its conditions are %s, and "
                   "run.dtype = \"float32\" would compute other bits than with "
                   "%s: encode again, or set prompts.cache_dtype = \"%s\"",
                   dg_conditions_path(c), dg_h5_type_name(there),
                   dg_h5_type_name(wanted), dg_h5_type_name(there));
}

static int open_one(Conditions **out, const char *path, const Policy *p)
{
    int err;

    if (access(path, F_OK) != 0 && errno == ENOENT)
        return dg_fail(DG_EIO,
                       "prompts.cache = \"%s\": there is no such file: "
                       "`dancegrpo encode` with this configuration writes it",
                       path);
    err = dg_conditions_open(out, path);

    if (!err && dg_conditions_width(*out) != p->shape.condition)
        err = dg_fail(DG_EFORMAT,
                      "%s: conditions of %lld values, the policy's have %lld: "
                      "run `dancegrpo encode` again",
                      path, (long long)dg_conditions_width(*out),
                      (long long)p->shape.condition);
    return err;
}

int dg_cache_open(Conditions **out, const Session *s, const Policy *p)
{
    const char *path = s->config->prompts.cache;
    int err;

    *out = NULL;
    if (path[0] == '\0')
        return dg_setup_check_cache(s->config);
    err = open_one(out, path, p);
    if (!err)
        err = check_type(*out, s->config);
    if (!err && dg_guided_wanted(s->config))
        err = check_empty(*out, p, s->config->cfg.scale);
    err = dg_agree(s->comm, err);
    if (err) {
        dg_conditions_close(*out);
        *out = NULL;
    }
    return err;
}

int dg_cache_match(const Conditions *c, const Session *s, const Policy *p)
{
    HexDigest encoder;
    int err;

    if (c == NULL)
        return DG_OK;
    err = dg_cache_encoders(encoder, p);
    if (!err && strcmp(encoder, dg_conditions_encoder(c)) != 0)
        err = dg_fail(DG_EFORMAT,
                      "%s: made with text encoders of SHA-256 %.16s..., this "
                      "policy's have %.16s...: run `dancegrpo encode` again",
                      dg_conditions_path(c), dg_conditions_encoder(c), encoder);
    return dg_agree(s->comm, err);
}

int dg_cache_check(const Conditions *c, const Session *s, const Policy *p,
                   const PromptList *list, const char *path)
{
    if (c == NULL)
        return DG_OK;
    return dg_agree(s->comm,
                    s->comm->rank == 0 ? check_list(c, p, list, path) : DG_OK);
}

int dg_cache_read(Conditions *c, const char *prompt, float *condition)
{
    const int64_t row = dg_conditions_find(c, prompt, NULL);

    if (row < 0)
        return dg_fail(DG_EINVAL, "%s: \"%.100s\" is not in it",
                       dg_conditions_path(c), prompt);
    return dg_conditions_read(c, row, condition);
}
