#include "clip_marks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "json_text.h"
#include "unicode.h"

enum { NUM_MARKS = 4, MOST_ADDED = 65536 };

/* In the order in which transformers adds them: where two marks are one
 * token, the flags of the later one count. */
static const char *const mark_key[NUM_MARKS] = { "bos_token", "eos_token",
                                                 "unk_token", "pad_token" };
static const char *const mark_default[NUM_MARKS] = { CLIP_BOS, CLIP_EOS,
                                                     CLIP_EOS, CLIP_EOS };

typedef struct Marks {
    ClipBpe *b;
    const Trie *vocab;
    int32_t vocab_ids, num_ids;
    Trie listed; /* texts of listed tokens to ids */
    char config_name[512], special_name[512], added_name[512];
} Marks;

static void name_file(char to[512], const ClipFiles *f, const char *name)
{
    snprintf(to, 512, "%.400s%s%s", f->folder, f->folder[0] != '\0' ? "/" : "",
             name);
}

static int parse(cJSON **out, const char *name, const char *data, size_t size)
{
    return data == NULL ? DG_OK : dg_json_parse(out, name, data, size);
}

/* A normalized token is looked for in its normalised form. */
static int add(Marks *m, const char *text, const cJSON *flags, int normalized,
               int32_t id)
{
    AddedToken t = { .id = id };
    Bytes composed = { 0 }, form = { 0 };
    int err;

    dg_json_token_flags(&t, flags);
    t.normalized |= normalized;
    err = dg_unicode_nfc(&composed, text, strlen(text));
    if (!err)
        err = dg_clip_normalise(&form, composed.at, composed.used);
    if (!err)
        err = t.normalized ? dg_added_add(&m->b->added, &t, form.at, form.used)
                           : dg_added_add(&m->b->added, &t, text, strlen(text));
    dg_bytes_free(&composed);
    dg_bytes_free(&form);
    return err;
}

/* A token with an id of its own, in the vocabulary or behind it. */
static int add_listed(Marks *m, const char *name, const char *text,
                      const cJSON *flags, int normalized, double id)
{
    const int32_t most = m->vocab_ids + MOST_ADDED;
    int32_t known;
    int err = dg_json_check_token(name, "an added token", text);

    if (err)
        return err;
    known = dg_trie_find(m->vocab, text, strlen(text));
    if (!(id >= 0 && id < most) || id != (int32_t)id)
        return dg_fail(DG_EFORMAT,
                       "%s: id of added token \"%.60s\" must be an integer of "
                       "[0, %d)",
                       name, text, most);
    if (known >= 0 ? known != id : id < m->vocab_ids)
        return dg_fail(DG_EFORMAT,
                       "%s: added token \"%.60s\" has id %d, in the "
                       "vocabulary %s",
                       name, text, (int)id,
                       known >= 0 ? "it has another" : "another token's");
    if (dg_trie_find(&m->listed, text, strlen(text)) >= 0)
        return dg_fail(DG_EFORMAT, "%s: added token \"%.60s\" is there twice",
                       name, text);
    err = dg_trie_add(&m->listed, text, strlen(text), (int32_t)id);
    m->num_ids = m->num_ids > id ? m->num_ids : (int32_t)id + 1;
    return err ? err : add(m, text, flags, normalized, (int32_t)id);
}

/* "added_tokens_decoder" of tokenizer_config.json: {"id": {token}, ...} */
static int add_decoder(Marks *m, const cJSON *decoder)
{
    const cJSON *item;
    int err = DG_OK;

    cJSON_ArrayForEach(item, decoder)
    {
        char *end;
        const double id = strtod(item->string, &end);

        if (!err)
            err = add_listed(m, m->config_name, dg_json_token_text(item), item,
                             0, *end == '\0' && end != item->string ? id : -1);
    }
    return err;
}

/* "added_tokens" of tokenizer.json: [{token with "id"}, ...] */
static int add_list(Marks *m, const char *name, const cJSON *list)
{
    const cJSON *item;
    int err = DG_OK;

    cJSON_ArrayForEach(item, list)
    {
        int32_t id;

        if (!dg_json_index(&id, dg_json_get(item, "id"), INT32_MAX))
            id = -1;
        if (!err)
            err = add_listed(m, name, dg_json_token_text(item), item, 0, id);
    }
    return err;
}

/* added_tokens.json, an older form: {"token": id, ...} */
static int add_map(Marks *m, const cJSON *map)
{
    const cJSON *item;
    int err = DG_OK;

    cJSON_ArrayForEach(item, map)
    {
        if (!err)
            err = add_listed(m, m->added_name, item->string, NULL, 1,
                             cJSON_IsNumber(item) ? item->valuedouble : -1);
    }
    return err;
}

static int32_t id_of(const Marks *m, const char *text)
{
    const int32_t id = dg_trie_find(m->vocab, text, strlen(text));

    return id >= 0 ? id : dg_trie_find(&m->listed, text, strlen(text));
}

static int add_marks(Marks *m, const cJSON *const token[NUM_MARKS])
{
    int32_t *const to[NUM_MARKS] = { &m->b->info.bos, &m->b->info.eos,
                                     &m->b->info.unk, &m->b->info.pad };
    const char *text[NUM_MARKS];
    int err = DG_OK;

    for (int i = 0; i < NUM_MARKS; i++) {
        text[i] = dg_json_token_text(token[i]);
        text[i] = text[i] != NULL ? text[i] : mark_default[i];
        *to[i] = id_of(m, text[i]);
        if (*to[i] < 0)
            return dg_fail(DG_EFORMAT,
                           "%s: %s \"%.60s\" is not in the vocabulary",
                           m->config_name, mark_key[i], text[i]);
    }
    for (int i = 0; i < NUM_MARKS && !err; i++) {
        int again = dg_trie_find(&m->listed, text[i], strlen(text[i])) >= 0;

        for (int k = i + 1; k < NUM_MARKS; k++)
            again |= strcmp(text[i], text[k]) == 0;
        err = dg_json_check_token(m->config_name, mark_key[i], text[i]);
        if (!err && !again)
            err = add(m, text[i], token[i], 0, *to[i]);
    }
    return err;
}

/* special_tokens_map.json counts before tokenizer_config.json, unless the
 * latter lists all added tokens. */
static int add_all(Marks *m, const cJSON *config, const cJSON *special,
                   const cJSON *added, const cJSON *tokenizer)
{
    const cJSON *decoder = dg_json_get(config, "added_tokens_decoder");
    const cJSON *token[NUM_MARKS];
    int err;

    for (int i = 0; i < NUM_MARKS; i++) {
        token[i] = decoder == NULL ? dg_json_get(special, mark_key[i]) : NULL;
        if (token[i] == NULL)
            token[i] = dg_json_get(config, mark_key[i]);
    }
    if (decoder != NULL)
        err = add_decoder(m, decoder);
    else if (tokenizer != NULL)
        err = add_list(m, "tokenizer.json",
                       dg_json_get(tokenizer, "added_tokens"));
    else
        err = add_map(m, added);
    return err ? err : add_marks(m, token);
}

int dg_clip_marks_add(ClipBpe *b, const Trie *vocab, int32_t num_ids,
                      const ClipFiles *f, const cJSON *tokenizer)
{
    Marks m = {
        .b = b, .vocab = vocab, .vocab_ids = num_ids, .num_ids = num_ids
    };
    cJSON *config = NULL, *special = NULL, *added = NULL;
    int err;

    name_file(m.config_name, f, "tokenizer_config.json");
    name_file(m.special_name, f, "special_tokens_map.json");
    name_file(m.added_name, f, "added_tokens.json");
    err = parse(&config, m.config_name, f->config, f->config_bytes);
    if (!err)
        err = parse(&special, m.special_name, f->special, f->special_bytes);
    if (!err)
        err = parse(&added, m.added_name, f->added, f->added_bytes);
    if (!err)
        err = add_all(&m, config, special, added, tokenizer);
    if (!err)
        b->info.num_ids = m.num_ids;
    cJSON_Delete(config);
    cJSON_Delete(special);
    cJSON_Delete(added);
    dg_trie_free(&m.listed);
    return err;
}
