#include "text/t5_unigram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "json_text.h"
#include "t5.h"

typedef struct Loader {
    T5Unigram *u;
    const char *name;
    int32_t num; /* pieces */
    double min_score;
} Loader;

static int digit_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* Base64 with its padding; out has 3 bytes for every 4 characters. */
static int decode_base64(const Loader *l, const char *text, char *out,
                         size_t *size)
{
    const size_t n = strlen(text);
    uint32_t bits = 0;
    size_t used = 0, pads = 0;

    while (pads < 2 && pads < n && text[n - 1 - pads] == '=')
        pads++;
    for (size_t i = 0; i < n - pads; i++) {
        const int digit = digit_of(text[i]);

        if (digit < 0 || n % 4 != 0)
            return dg_fail(DG_EFORMAT,
                           "%s: precompiled_charsmap is not base64 (%zu "
                           "characters, at %zu)",
                           l->name, n, i);
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            out[used++] = (char)(bits >> (6 - 2 * (i % 4)) & 0xFF);
    }
    *size = used;
    return DG_OK;
}

static int add_charsmap(Loader *l, T5Step *step, const cJSON *item)
{
    const char *text = dg_json_string(item, "precompiled_charsmap");
    char *data;
    size_t size = 0;
    int err;

    step->kind = T5_STEP_CHARSMAP;
    if (text == NULL)
        return dg_fail(DG_EFORMAT,
                       "%s: normalizer Precompiled has no "
                       "precompiled_charsmap",
                       l->name);
    if (l->u->map.num_units > 0)
        return dg_fail(DG_EFORMAT, "%s: two Precompiled normalizers", l->name);
    data = malloc(strlen(text) / 4 * 3 + 4);
    if (data == NULL)
        return dg_fail(DG_ENOMEM, "%s: character map", l->name);
    err = decode_base64(l, text, data, &size);
    if (!err)
        err = dg_charsmap_create(&l->u->map, l->name, data, size);
    free(data);
    return err;
}

static int add_replace(Loader *l, T5Step *step, const cJSON *item)
{
    const cJSON *pattern = dg_json_get(item, "pattern");
    const char *regex = dg_json_string(pattern, "Regex");
    const char *text = dg_json_string(pattern, "String");
    const char *to = dg_json_string(item, "content");
    int err;

    step->kind = T5_STEP_REPLACE;
    step->space_runs = regex != NULL && strcmp(regex, " {2,}") == 0;
    if (!step->space_runs && (text == NULL || text[0] == '\0'))
        return dg_fail(DG_EFORMAT,
                       "%s: normalizer Replace of \"%.60s\": only a string or "
                       "the expression \" {2,}\" is understood",
                       l->name, regex != NULL ? regex : "");
    if (text != NULL) {
        err = dg_json_check_token(l->name, "a Replace pattern", text);
        if (err)
            return err;
    }
    err = to == NULL || to[0] == '\0'
              ? DG_OK
              : dg_json_check_token(l->name, "a Replace content", to);
    if (err)
        return err;
    step->from = strdup(text != NULL ? text : " ");
    step->to = strdup(to != NULL ? to : "");
    if (step->from == NULL || step->to == NULL)
        return dg_fail(DG_ENOMEM, "%s", l->name);
    return DG_OK;
}

static int add_step(Loader *l, const cJSON *item)
{
    const char *type = dg_json_string(item, "type");
    T5Step *step;

    if (type == NULL)
        return dg_fail(DG_EFORMAT, "%s: a normalizer has no type", l->name);
    if (l->u->num_steps == T5_MOST_STEPS)
        return dg_fail(DG_EFORMAT, "%s: more than %d normalizers", l->name,
                       T5_MOST_STEPS);
    step = &l->u->step[l->u->num_steps++];
    if (strcmp(type, "Precompiled") == 0)
        return add_charsmap(l, step, item);
    if (strcmp(type, "Replace") == 0)
        return add_replace(l, step, item);
    if (strcmp(type, "Strip") != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: normalizer \"%.60s\" is not understood; "
                       "Precompiled, Strip, Replace are",
                       l->name, type);
    step->kind = T5_STEP_STRIP;
    step->left = dg_json_flag(item, "strip_left", 1);
    step->right = dg_json_flag(item, "strip_right", 1);
    return DG_OK;
}

static int is_type(const cJSON *item, const char *type)
{
    const char *is = dg_json_string(item, "type");

    return is != NULL && strcmp(is, type) == 0;
}

/* One, or the members of a Sequence. list is the sequence's key. */
static int each(Loader *l, const cJSON *item, const char *list,
                int (*add)(Loader *, const cJSON *))
{
    const cJSON *member;
    int err = DG_OK;

    if (item == NULL || cJSON_IsNull(item))
        return DG_OK;
    if (!is_type(item, "Sequence"))
        return add(l, item);
    cJSON_ArrayForEach(member, dg_json_get(item, list))
    {
        if (!err)
            err = add(l, member);
    }
    return err;
}

static int add_metaspace(Loader *l, const cJSON *item)
{
    const char *space = dg_json_string(item, "replacement");
    const char *scheme = dg_json_string(item, "prepend_scheme");
    T5Unigram *u = l->u;

    if (space == NULL || strcmp(space, T5_SPACE) != 0)
        return dg_fail(DG_EFORMAT, "%s: Metaspace's replacement must be U+2581",
                       l->name);
    u->metaspace = 1;
    u->metaspace_split = dg_json_flag(item, "split", 1);
    u->prepend = T5_PREPEND_ALWAYS;
    if (scheme != NULL && strcmp(scheme, "first") == 0)
        u->prepend = T5_PREPEND_FIRST;
    else if ((scheme != NULL && strcmp(scheme, "never") == 0) ||
             !dg_json_flag(item, "add_prefix_space", 1))
        u->prepend = T5_PREPEND_NEVER;
    else if (scheme != NULL && strcmp(scheme, "always") != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: Metaspace's prepend_scheme \"%.60s\" must be "
                       "always, first or never",
                       l->name, scheme);
    return DG_OK;
}

static int add_pre_tokenizer(Loader *l, const cJSON *item)
{
    const char *type = dg_json_string(item, "type");

    if (is_type(item, "WhitespaceSplit") && !l->u->metaspace) {
        l->u->whitespace_split = 1;
        return DG_OK;
    }
    if (is_type(item, "Metaspace") && !l->u->metaspace)
        return add_metaspace(l, item);
    return dg_fail(DG_EFORMAT,
                   "%s: pre-tokenizer \"%.60s\": understood are "
                   "WhitespaceSplit and, behind it, one Metaspace",
                   l->name, type != NULL ? type : "");
}

/* ["piece", score] */
static int add_piece(Loader *l, const cJSON *item)
{
    const char *text = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
    const cJSON *score = cJSON_GetArrayItem(item, 1);
    char what[32];
    int err;

    snprintf(what, sizeof what, "piece %d", l->num);
    err = dg_json_check_token(l->name, what, text);
    if (err)
        return err;
    if (!cJSON_IsNumber(score) || !isfinite(score->valuedouble))
        return dg_fail(DG_EFORMAT, "%s: %s \"%.60s\" has no finite score",
                       l->name, what, text);
    if (dg_trie_find(&l->u->piece, text, strlen(text)) >= 0)
        return dg_fail(DG_EFORMAT, "%s: %s \"%.60s\" is there twice", l->name,
                       what, text);
    l->u->score[l->num] = score->valuedouble;
    l->min_score = fmin(l->min_score, score->valuedouble);
    return dg_trie_add(&l->u->piece, text, strlen(text), l->num++);
}

static int add_model(Loader *l, const cJSON *model)
{
    const cJSON *vocab = dg_json_get(model, "vocab"), *item;
    const int num = cJSON_IsArray(vocab) ? cJSON_GetArraySize(vocab) : 0;
    int err = DG_OK;

    if (!is_type(model, "Unigram") || num == 0)
        return dg_fail(DG_EFORMAT,
                       "%s: model is not T5's: type Unigram with a vocab",
                       l->name);
    if (dg_json_flag(model, "byte_fallback", 0))
        return dg_fail(DG_EFORMAT, "%s: byte_fallback is not T5's", l->name);
    if (num > T5_MOST_PIECES)
        return dg_fail(DG_EFORMAT, "%s: more than %d pieces", l->name,
                       T5_MOST_PIECES);
    l->u->score = calloc((size_t)num, sizeof *l->u->score);
    if (l->u->score == NULL)
        return dg_fail(DG_ENOMEM, "%s: %d pieces", l->name, num);
    cJSON_ArrayForEach(item, vocab)
    {
        if (!err)
            err = add_piece(l, item);
    }
    if (!err &&
        !dg_json_index(&l->u->info.unk, dg_json_get(model, "unk_id"), num))
        err = dg_fail(DG_EFORMAT, "%s: unk_id must be an integer of [0, %d)",
                      l->name, num);
    l->u->info.num_ids = num;
    l->u->unk_score = l->min_score - 10.0;
    return err;
}

static int add_added(Loader *l, const cJSON *item)
{
    const char *text = dg_json_token_text(item);
    const int32_t most = l->num + 65536;
    AddedToken token = { 0 };
    Bytes form = { 0 };
    int32_t known;
    int err = dg_json_check_token(l->name, "an added token", text);

    if (err)
        return err;
    dg_json_token_flags(&token, item);
    known = dg_trie_find(&l->u->piece, text, strlen(text));
    if (!dg_json_index(&token.id, dg_json_get(item, "id"), most) ||
        (known >= 0 ? token.id != known : token.id < l->num))
        return dg_fail(DG_EFORMAT,
                       "%s: id of added token \"%.60s\" must be its piece's, "
                       "or an integer of [%d, %d)",
                       l->name, text, l->num, most);
    if (token.id >= l->u->info.num_ids)
        l->u->info.num_ids = token.id + 1;
    if (strcmp(text, T5_EOS) == 0)
        l->u->info.eos = token.id;
    if (strcmp(text, T5_PAD) == 0)
        l->u->info.pad = token.id;
    if (token.normalized)
        err = dg_t5_steps_run(l->u, &form, text, strlen(text));
    else
        err = dg_bytes_add(&form, text, strlen(text));
    if (!err)
        err = dg_added_add(&l->u->added, &token, form.at, form.used);
    dg_bytes_free(&form);
    return err;
}

static int add_all(Loader *l, const cJSON *json)
{
    TokenizerInfo *info = &l->u->info;
    const cJSON *item;
    int err = add_model(l, dg_json_get(json, "model"));

    if (!err)
        err = each(l, dg_json_get(json, "normalizer"), "normalizers", add_step);
    if (!err)
        err = each(l, dg_json_get(json, "pre_tokenizer"), "pretokenizers",
                   add_pre_tokenizer);
    if (err)
        return err;
    info->eos = dg_trie_find(&l->u->piece, T5_EOS, strlen(T5_EOS));
    info->pad = dg_trie_find(&l->u->piece, T5_PAD, strlen(T5_PAD));
    cJSON_ArrayForEach(item, dg_json_get(json, "added_tokens"))
    {
        if (!err)
            err = add_added(l, item);
    }
    if (!err && (info->eos < 0 || info->pad < 0))
        err = dg_fail(DG_EFORMAT, "%s: no token %s among its %d", l->name,
                      info->eos < 0 ? T5_EOS : T5_PAD, info->num_ids);
    return err;
}

int dg_t5_unigram_from_json(T5Unigram **out, const char *name, const char *data,
                            size_t size)
{
    Loader l = { .u = calloc(1, sizeof(T5Unigram)),
                 .name = name,
                 .min_score = INFINITY };
    cJSON *json = NULL;
    int err;

    if (l.u == NULL)
        return dg_fail(DG_ENOMEM, "%s", name);
    l.u->info = (TokenizerInfo) {
        .kind = DG_TOKENIZER_T5, .bos = -1, .unk = -1, .length = 512
    };
    err = dg_json_parse(&json, name, data, size);
    if (!err)
        err = add_all(&l, json);
    cJSON_Delete(json);
    if (err)
        dg_t5_unigram_destroy(l.u);
    else
        *out = l.u;
    return err;
}
