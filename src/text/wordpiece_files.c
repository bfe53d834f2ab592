#include "text/wordpiece.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "json_text.h"
#include "unicode.h"
#include "wordpiece.h"

static const char *const marks[] = { WORDPIECE_PAD, WORDPIECE_UNK,
                                     WORDPIECE_CLS, WORDPIECE_SEP };
enum { NUM_MARKS = sizeof marks / sizeof *marks, MOST_ADDED = 65536 };

/* --- pieces ----------------------------------------------------------------- */

static WordPiece *new_tokenizer(void)
{
    WordPiece *w = calloc(1, sizeof *w);

    if (w != NULL)
        w->info =
            (TokenizerInfo) { .kind = DG_TOKENIZER_WORDPIECE, .length = 512 };
    return w;
}

/* Where a piece goes, and what of it. */
static Trie *place_of(WordPiece *w, const char **text, size_t *size)
{
    if (*size <= 2 || memcmp(*text, "##", 2) != 0)
        return &w->first;
    *text += 2;
    *size -= 2;
    return &w->behind;
}

/* what names the piece in messages */
static int add_piece(WordPiece *w, const char *what, const char *text,
                     size_t size, int32_t id)
{
    const size_t whole = size;
    const char *shown = text;
    Trie *trie = place_of(w, &text, &size);

    if (size == 0)
        return dg_fail(DG_EFORMAT, "%s: a piece without text", what);
    if (dg_unicode_valid(text, size) < size)
        return dg_fail(DG_EFORMAT, "%s: not UTF-8", what);
    if (dg_trie_find(trie, text, size) >= 0)
        return dg_fail(DG_EFORMAT, "%s: piece \"%.*s\" is there twice", what,
                       whole < 60 ? (int)whole : 60, shown);
    return dg_trie_add(trie, text, size, id);
}

static int32_t find(const WordPiece *w, const char *text)
{
    return dg_trie_find(&w->first, text, strlen(text));
}

/* The marks' ids, once all pieces are there. */
static int set_marks(WordPiece *w, const char *name)
{
    int32_t *const ids[] = { &w->info.pad, &w->info.unk, &w->info.bos,
                             &w->info.eos };

    for (int i = 0; i < NUM_MARKS; i++) {
        *ids[i] = find(w, marks[i]);
        if (*ids[i] < 0)
            return dg_fail(DG_EFORMAT, "%s: no token %s: not a BERT vocabulary",
                           name, marks[i]);
    }
    return DG_OK;
}

/* A token that is cut out of texts: a piece, or with an id behind all num of
 * them. */
static int add_token(WordPiece *w, const char *name, int32_t num,
                     const char *text, const AddedToken *token)
{
    const int32_t known = text != NULL ? find(w, text) : -1;
    int err = dg_json_check_token(name, "an added token", text);

    if (err)
        return err;
    if (known < 0 && token->normalized)
        return dg_fail(DG_EFORMAT,
                       "%s: added token \"%.60s\" is normalized: only tokens "
                       "that are not are understood",
                       name, text);
    if (token->id < 0 || token->id >= num + MOST_ADDED ||
        (known >= 0 ? token->id != known : token->id < num))
        return dg_fail(DG_EFORMAT,
                       "%s: id of added token \"%.60s\" must be its piece's, "
                       "or an integer of [%" PRId32 ", %" PRId32 ")",
                       name, text, num, num + MOST_ADDED);
    if (token->id >= w->info.num_ids)
        w->info.num_ids = token->id + 1;
    return dg_added_add(&w->added, token, text, strlen(text));
}

/* --- vocab.txt ---------------------------------------------------------------- */

/* A line's bytes without its end; *next is where the following one begins. */
static size_t line_of(const char *at, const char *end, const char **next)
{
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    size_t n = (size_t)((stop != NULL ? stop : end) - at);

    *next = stop != NULL ? stop + 1 : end;
    if (n > 0 && at[n - 1] == '\r')
        n--;
    return n;
}

int dg_wordpiece_is_list(const char *data, size_t size)
{
    const char *end = data + size, *next;

    for (const char *at = data; at < end; at = next)
        if (line_of(at, end, &next) == strlen(WORDPIECE_UNK) &&
            memcmp(at, WORDPIECE_UNK, strlen(WORDPIECE_UNK)) == 0)
            return 1;
    return 0;
}

static int add_lines(WordPiece *w, const char *name, const char *data,
                     size_t size)
{
    const char *end = data + size, *next;
    char what[1100];
    int err = DG_OK;

    for (const char *at = data; at < end && !err; at = next) {
        const size_t n = line_of(at, end, &next);

        if (w->info.num_ids == WORDPIECE_MOST_PIECES)
            return dg_fail(DG_EFORMAT, "%s: more than %d pieces", name,
                           WORDPIECE_MOST_PIECES);
        snprintf(what, sizeof what, "%.1000s, line %" PRId32, name,
                 w->info.num_ids + 1);
        err = add_piece(w, what, at, n, w->info.num_ids);
        w->info.num_ids++;
    }
    return err;
}

/* What a text may name: BERT's marks. [MASK] is one, and need not be there. */
static int add_special(WordPiece *w, const char *name)
{
    static const char mask[] = "[MASK]";
    int err = DG_OK;

    for (int i = 0; i <= NUM_MARKS && !err; i++) {
        const char *text = i < NUM_MARKS ? marks[i] : mask;
        const AddedToken token = { .id = find(w, text) };

        if (token.id >= 0)
            err = add_token(w, name, w->info.num_ids, text, &token);
    }
    return err;
}

/* added_tokens.json: {"[DEC]": 30522, ...} */
static int add_beside(WordPiece *w, const char *name, const char *data,
                      size_t size)
{
    const int32_t num = w->info.num_ids;
    cJSON *json = NULL;
    const cJSON *item;
    int err = dg_json_parse(&json, name, data, size);

    cJSON_ArrayForEach(item, json)
    {
        AddedToken token = { 0 };

        if (err)
            break;
        if (!dg_json_index(&token.id, item, INT32_MAX))
            token.id = -1;
        err = add_token(w, name, num, item->string, &token);
    }
    cJSON_Delete(json);
    return err;
}

int dg_wordpiece_from_vocab(WordPiece **out, const char *name, const char *data,
                            size_t size, const char *added, size_t added_size)
{
    WordPiece *w = new_tokenizer();
    char beside[1100];
    int err;

    if (w == NULL)
        return dg_fail(DG_ENOMEM, "%s", name);
    snprintf(beside, sizeof beside, "added_tokens.json beside %.1000s", name);
    err = add_lines(w, name, data, size);
    if (!err)
        err = set_marks(w, name);
    if (!err)
        err = add_special(w, name);
    if (!err && added != NULL)
        err = add_beside(w, beside, added, added_size);
    if (err)
        dg_wordpiece_destroy(w);
    else
        *out = w;
    return err;
}

/* --- tokenizer.json ------------------------------------------------------------ */

/* A member's text must be this one, or left out. */
static int want_text(const char *name, const cJSON *object, const char *of,
                     const char *key, const char *want)
{
    const cJSON *item = dg_json_get(object, key);
    const char *text = cJSON_GetStringValue(item);

    if (item == NULL || (text != NULL && strcmp(text, want) == 0))
        return DG_OK;
    return dg_fail(DG_EFORMAT, "%s: %s.%s is \"%.60s\": must be \"%s\"", name,
                   of, key, text != NULL ? text : "(no text)", want);
}

static int want_flag(const char *name, const cJSON *object, const char *key)
{
    if (dg_json_flag(object, key, 1))
        return DG_OK;
    return dg_fail(DG_EFORMAT,
                   "%s: %s must be true: only uncased vocabularies of BERT "
                   "are understood",
                   name, key);
}

/* What comes before the pieces: BERT's own steps, of uncased text. */
static int check_steps(const char *name, const cJSON *json)
{
    static const char *const steps[][2] = { { "normalizer", "BertNormalizer" },
                                            { "pre_tokenizer",
                                              "BertPreTokenizer" } };
    static const char *const flags[] = { "clean_text", "handle_chinese_chars",
                                         "strip_accents", "lowercase" };
    int err = DG_OK;

    for (int i = 0; i < 2 && !err; i++) {
        const cJSON *step = dg_json_get(json, steps[i][0]);

        if (dg_json_string(step, "type") == NULL)
            return dg_fail(DG_EFORMAT, "%s: %s must be a %s", name, steps[i][0],
                           steps[i][1]);
        err = want_text(name, step, steps[i][0], "type", steps[i][1]);
    }
    for (int i = 0; i < 4 && !err; i++)
        err = want_flag(name, dg_json_get(json, "normalizer"), flags[i]);
    return err;
}

static int check_model(const char *name, const cJSON *model)
{
    const cJSON *most = dg_json_get(model, "max_input_chars_per_word");
    int32_t chars;
    int err = want_text(name, model, "model", "type", "WordPiece");

    if (!err)
        err = want_text(name, model, "model", "unk_token", WORDPIECE_UNK);
    if (!err)
        err =
            want_text(name, model, "model", "continuing_subword_prefix", "##");
    if (!err && most != NULL &&
        (!dg_json_index(&chars, most, INT32_MAX) ||
         chars != WORDPIECE_MOST_CHARS))
        err = dg_fail(DG_EFORMAT,
                      "%s: model.max_input_chars_per_word: must be %d", name,
                      WORDPIECE_MOST_CHARS);
    if (!err && !cJSON_IsObject(dg_json_get(model, "vocab")))
        err = dg_fail(DG_EFORMAT, "%s: model has no vocab", name);
    return err;
}

static int add_vocab(WordPiece *w, const char *name, const cJSON *vocab)
{
    const int num = cJSON_GetArraySize(vocab);
    const cJSON *item;
    char *taken = calloc((size_t)num + 1, 1);
    int err = DG_OK;

    if (taken == NULL)
        return dg_fail(DG_ENOMEM, "%s: %d pieces", name, num);
    cJSON_ArrayForEach(item, vocab)
    {
        int32_t id;

        if (err)
            break;
        if (!dg_json_index(&id, item, num) || taken[id])
            err = dg_fail(DG_EFORMAT,
                          "%s: id of piece \"%.60s\" must be an integer of "
                          "[0, %d) of its own",
                          name, item->string, num);
        else
            err = add_piece(w, name, item->string, strlen(item->string), id);
        if (!err)
            taken[id] = 1;
    }
    free(taken);
    w->info.num_ids = num;
    return err;
}

static int add_listed(WordPiece *w, const char *name, const cJSON *list)
{
    const int32_t num = w->info.num_ids;
    const cJSON *item;
    int err = DG_OK;

    cJSON_ArrayForEach(item, list)
    {
        AddedToken token = { 0 };

        if (err)
            break;
        dg_json_token_flags(&token, item);
        if (!dg_json_index(&token.id, dg_json_get(item, "id"), INT32_MAX))
            token.id = -1;
        err = add_token(w, name, num, dg_json_token_text(item), &token);
    }
    return err;
}

int dg_wordpiece_from_json(WordPiece **out, const char *name, const char *data,
                           size_t size)
{
    WordPiece *w = new_tokenizer();
    const cJSON *model;
    cJSON *json = NULL;
    int err;

    if (w == NULL)
        return dg_fail(DG_ENOMEM, "%s", name);
    err = dg_json_parse(&json, name, data, size);
    model = dg_json_get(json, "model");
    if (!err)
        err = check_model(name, model);
    if (!err)
        err = check_steps(name, json);
    if (!err)
        err = add_vocab(w, name, dg_json_get(model, "vocab"));
    if (!err)
        err = set_marks(w, name);
    if (!err)
        err = add_listed(w, name, dg_json_get(json, "added_tokens"));
    cJSON_Delete(json);
    if (err)
        dg_wordpiece_destroy(w);
    else
        *out = w;
    return err;
}

/* --- on disk -------------------------------------------------------------------- */

/* tokenizer_config.json beside a vocab.txt, if there is one: not cased. */
static int check_config(const char *folder)
{
    static const char *const flags[] = { "do_lower_case", "strip_accents",
                                         "tokenize_chinese_chars" };
    cJSON *json = NULL;
    char path[1024];
    Bytes file;
    int err = dg_bytes_read_in(&file, path, sizeof path, folder,
                               "tokenizer_config.json", 0);

    if (!err && file.at != NULL)
        err = dg_json_parse(&json, path, file.at, file.used);
    for (int i = 0; i < 3 && !err; i++)
        err = want_flag(path, json, flags[i]);
    cJSON_Delete(json);
    dg_bytes_free(&file);
    return err;
}

int dg_wordpiece_open(WordPiece **out, const char *folder)
{
    char path[1024], beside[1024];
    Bytes file, added = { 0 };
    int err =
        dg_bytes_read_in(&file, path, sizeof path, folder, "tokenizer.json", 0);

    if (!err && file.at != NULL) {
        err = dg_wordpiece_from_json(out, path, file.at, file.used);
    } else if (!err) {
        err = check_config(folder);
        if (!err)
            err = dg_bytes_read_in(&file, path, sizeof path, folder,
                                   "vocab.txt", 1);
        if (!err)
            err = dg_bytes_read_in(&added, beside, sizeof beside, folder,
                                   "added_tokens.json", 0);
        if (!err)
            err = dg_wordpiece_from_vocab(out, path, file.at, file.used,
                                          added.at, added.used);
    }
    dg_bytes_free(&file);
    dg_bytes_free(&added);
    return err;
}

int dg_wordpiece_open_list(WordPiece **out, const char *path)
{
    Bytes file;
    int err = dg_bytes_read(&file, path, 1);

    if (!err)
        err = dg_wordpiece_from_vocab(out, path, file.at, file.used, NULL, 0);
    dg_bytes_free(&file);
    return err;
}
