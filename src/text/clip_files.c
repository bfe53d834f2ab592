#include "text/clip_bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "clip.h"
#include "clip_marks.h"
#include "json_text.h"
#include "unicode.h"

/* A tokenizer on its way from files. */
typedef struct Loader {
    const ClipFiles *f;
    ClipBpe *b;
    Trie vocab;       /* tokens to ids */
    int32_t num_ids;  /* entries of the vocabulary */
    int rebuild;      /* the rules make the vocabulary */
    cJSON *tokenizer; /* tokenizer.json, or NULL */
    char vocab_name[512], merges_name[512];
} Loader;

/* A code point below U+0144, as GPT-2 writes bytes, in UTF-8. */
static size_t symbol_text(char *to, int code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    to[0] = (char)(0xC0 | code >> 6);
    to[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

/* Printable bytes stand for themselves, the 68 others for U+0100 on. order
 * is a byte's place in the vocabulary, code its code point. */
static void byte_symbols(int order[256], int code[256])
{
    int num = 0, others = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < 256; i++) {
            const int itself =
                (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;

            if (itself == (pass == 1))
                continue;
            order[i] = num++;
            code[i] = itself ? i : 256 + others++;
        }
}

/* Ids are 0 .. num - 1, each once; so is each token, as a key of two values is
 * refused before. */
static int add_token(Loader *l, const cJSON *item, unsigned char *seen)
{
    const char *text = item->string;
    int32_t id;
    int err = dg_json_check_token(l->vocab_name, "a token", text);

    if (err)
        return err;
    if (!dg_json_index(&id, item, l->num_ids))
        return dg_fail(DG_EFORMAT,
                       "%s: id of \"%.60s\" must be an integer of [0, %d)",
                       l->vocab_name, text, l->num_ids);
    if (seen[id])
        return dg_fail(DG_EFORMAT, "%s: id %d is there twice (\"%.60s\")",
                       l->vocab_name, id, text);
    seen[id] = 1;
    return dg_trie_add(&l->vocab, text, strlen(text), id);
}

static int add_vocab(Loader *l, const cJSON *vocab)
{
    const cJSON *item;
    unsigned char *seen;
    int err = DG_OK;

    if (!cJSON_IsObject(vocab) || vocab->child == NULL)
        return dg_fail(DG_EFORMAT, "%s: no object of tokens and ids",
                       l->vocab_name);
    l->num_ids = cJSON_GetArraySize(vocab);
    seen = calloc((size_t)l->num_ids, 1);
    if (seen == NULL)
        return dg_fail(DG_ENOMEM, "%s: %d tokens", l->vocab_name, l->num_ids);
    cJSON_ArrayForEach(item, vocab)
    {
        if (!err)
            err = add_token(l, item, seen);
    }
    free(seen);
    return err;
}

/* The 512 byte symbols, when there is no vocab.json. */
static int begin_rebuild(Loader *l)
{
    int order[256], code[256], err = DG_OK;

    byte_symbols(order, code);
    for (int byte = 0; byte < 256 && !err; byte++) {
        char text[8];
        const size_t n = symbol_text(text, code[byte]);

        memcpy(text + n, "</w>", 4);
        err = dg_trie_add(&l->vocab, text, n, order[byte]);
        if (!err)
            err = dg_trie_add(&l->vocab, text, n + 4, 256 + order[byte]);
    }
    l->num_ids = 512;
    return err;
}

static int end_rebuild(Loader *l)
{
    int err = dg_trie_add(&l->vocab, CLIP_BOS, strlen(CLIP_BOS), l->num_ids);

    if (!err)
        err =
            dg_trie_add(&l->vocab, CLIP_EOS, strlen(CLIP_EOS), l->num_ids + 1);
    l->num_ids += 2;
    return err;
}

/* Id of a rule's part or result; -1 with a message if there is none. */
static int32_t part_id(const Loader *l, long line, const char *text,
                       size_t size)
{
    const int32_t id = dg_trie_find(&l->vocab, text, size);

    if (id < 0)
        dg_fail(DG_EFORMAT, "%s, rule in line %ld: \"%.*s\" has no id in %s",
                l->merges_name, line, (int)(size < 60 ? size : 60), text,
                l->rebuild ? "the symbols and rules before it" : l->vocab_name);
    return id;
}

/* The rule "left right", of the next rank. whole is left and right as one. */
static int add_rule(Loader *l, long line, const char *whole, size_t left_size,
                    size_t size)
{
    const int32_t left = part_id(l, line, whole, left_size);
    const int32_t right =
        left < 0 ? -1 : part_id(l, line, whole + left_size, size - left_size);
    int32_t id;
    int err = DG_OK;

    if (right < 0)
        return DG_EFORMAT;
    if (dg_map_get(&l->b->rank, dg_clip_pair(left, right)) != DG_MAP_NONE)
        return dg_fail(DG_EFORMAT, "%s, line %ld: rule is there twice",
                       l->merges_name, line);
    if (l->rebuild && dg_trie_find(&l->vocab, whole, size) >= 0)
        return dg_fail(DG_EFORMAT, "%s, line %ld: \"%.*s\" is there already",
                       l->merges_name, line, (int)(size < 60 ? size : 60),
                       whole);
    if (l->rebuild)
        err = dg_trie_add(&l->vocab, whole, size, l->num_ids++);
    if (err)
        return err;
    id = part_id(l, line, whole, size);
    if (id < 0)
        return DG_EFORMAT;
    err = dg_map_set(&l->b->rank, dg_clip_pair(left, right),
                     (uint32_t)l->b->merged.used);
    return err ? err : dg_ids_add(&l->b->merged, id);
}

/* "left right", one space, in a buffer of its own to be joined. */
static int add_line(Loader *l, long line, const char *s, size_t size,
                    Bytes *whole)
{
    const char *space = memchr(s, ' ', size);
    const size_t left = space != NULL ? (size_t)(space - s) : 0;
    int err;

    if (left == 0 || left + 1 == size ||
        memchr(space + 1, ' ', size - left - 1) != NULL)
        return dg_fail(DG_EFORMAT,
                       "%s, line %ld: \"%.*s\" is not two tokens with one "
                       "space between",
                       l->merges_name, line, (int)(size < 60 ? size : 60), s);
    whole->used = 0;
    err = dg_bytes_add(whole, s, left);
    if (!err)
        err = dg_bytes_add(whole, space + 1, size - left - 1);
    if (!err)
        err = add_rule(l, line, whole->at, left, whole->used);
    return err;
}

static int wants_more(const Loader *l)
{
    return l->f->num_merges == 0 ||
           l->b->merged.used < (size_t)l->f->num_merges;
}

static int is_comment(const char *s, size_t size)
{
    static const char mark[] = "#version";

    for (size_t i = 0; i + sizeof mark - 1 <= size; i++)
        if (memcmp(s + i, mark, sizeof mark - 1) == 0)
            return 1;
    return 0;
}

static int add_merges(Loader *l, const char *s, size_t left)
{
    Bytes whole = { 0 };
    int err = DG_OK;

    for (long line = 1; left > 0 && wants_more(l) && !err; line++) {
        const char *end = memchr(s, '\n', left);
        const size_t step = end != NULL ? (size_t)(end - s) + 1 : left;
        size_t size = end != NULL ? step - 1 : left;

        size -= size > 0 && s[size - 1] == '\r';
        if (size > 0 && !(line == 1 && is_comment(s, size)))
            err = add_line(l, line, s, size, &whole);
        s += step;
        left -= step;
    }
    dg_bytes_free(&whole);
    if (!err && l->b->merged.used < (size_t)l->f->num_merges)
        err = dg_fail(DG_EFORMAT, "%s: %zu rules, wanted %d", l->merges_name,
                      l->b->merged.used, l->f->num_merges);
    return err;
}

/* The rules of a tokenizer.json: "left right" or ["left", "right"]. */
static int add_json_merges(Loader *l, const cJSON *merges)
{
    const cJSON *item;
    Bytes whole = { 0 };
    long rule = 0;
    int err = DG_OK;

    cJSON_ArrayForEach(item, merges)
    {
        const char *left = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
        const char *right = cJSON_GetStringValue(cJSON_GetArrayItem(item, 1));
        const char *both = cJSON_GetStringValue(item);

        rule++;
        if (err)
            continue;
        whole.used = 0;
        if (both != NULL) {
            err = add_line(l, rule, both, strlen(both), &whole);
        } else if (left != NULL && right != NULL) {
            err = dg_bytes_add(&whole, left, strlen(left));
            if (!err)
                err = dg_bytes_add(&whole, right, strlen(right));
            if (!err)
                err = add_rule(l, rule, whole.at, strlen(left), whole.used);
        } else {
            err = dg_fail(DG_EFORMAT, "%s, rule %ld: not two tokens",
                          l->merges_name, rule);
        }
    }
    dg_bytes_free(&whole);
    return err;
}

static int add_tokenizer_json(Loader *l)
{
    const cJSON *model;
    const char *type, *suffix;
    int err = dg_json_parse(&l->tokenizer, l->vocab_name, l->f->tokenizer,
                            l->f->tokenizer_bytes);

    if (err)
        return err;
    model = dg_json_get(l->tokenizer, "model");
    type = dg_json_string(model, "type");
    suffix = dg_json_string(model, "end_of_word_suffix");
    if (type == NULL || strcmp(type, "BPE") != 0 || suffix == NULL ||
        strcmp(suffix, "</w>") != 0)
        return dg_fail(DG_EFORMAT,
                       "%s: model is not CLIP's: type BPE with "
                       "end_of_word_suffix \"</w>\"",
                       l->vocab_name);
    err = add_vocab(l, dg_json_get(model, "vocab"));
    if (!err)
        err = add_json_merges(l, dg_json_get(model, "merges"));
    return err;
}

static int add_files(Loader *l)
{
    cJSON *vocab = NULL;
    int err;

    if (l->f->merges == NULL)
        return add_tokenizer_json(l);
    l->rebuild = l->f->vocab == NULL;
    if (l->rebuild) {
        err = begin_rebuild(l);
    } else {
        err = dg_json_parse(&vocab, l->vocab_name, l->f->vocab,
                            l->f->vocab_bytes);
        if (!err)
            err = add_vocab(l, vocab);
        cJSON_Delete(vocab);
    }
    if (!err)
        err = add_merges(l, l->f->merges, l->f->merges_bytes);
    if (!err && l->rebuild)
        err = end_rebuild(l);
    return err;
}

/* Files that were cut off between two rules are files, but of other words. */
static void look_for_rules(const Loader *l)
{
    enum { SYMBOLS = 512, MARKS = 2 };
    const int64_t made = (int64_t)l->b->merged.used;

    if (l->num_ids - SYMBOLS - MARKS > made)
        dg_warn("%s: %lld rules make fewer than the %d tokens of %s: is it "
                "whole?",
                l->merges_name, (long long)made, l->num_ids, l->vocab_name);
}

/* A byte that the vocabulary lacks is the unknown token. */
static void set_symbols(Loader *l)
{
    int order[256], code[256];

    byte_symbols(order, code);
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        const size_t n = symbol_text(text, code[byte]);

        memcpy(text + n, "</w>", 4);
        for (int end = 0; end < 2; end++) {
            const int32_t id = dg_trie_find(&l->vocab, text, n + 4 * end);

            l->b->symbol[end][byte] = id >= 0 ? id : l->b->info.unk;
        }
    }
}

static void name_files(Loader *l)
{
    const char *folder = l->f->folder, *slash = folder[0] != '\0' ? "/" : "";
    const int one = l->f->merges == NULL;

    snprintf(l->vocab_name, sizeof l->vocab_name, "%.400s%s%s", folder, slash,
             one ? "tokenizer.json" : "vocab.json");
    snprintf(l->merges_name, sizeof l->merges_name, "%.400s%s%s", folder, slash,
             one ? "tokenizer.json" : "merges.txt");
    if (l->f->list != NULL)
        snprintf(l->merges_name, sizeof l->merges_name, "%.400s", l->f->list);
}

int dg_clip_bpe_create(ClipBpe **out, const ClipFiles *f)
{
    Loader l = { .f = f, .b = calloc(1, sizeof(ClipBpe)) };
    int err;

    if (l.b == NULL)
        return dg_fail(DG_ENOMEM, "tokenizer");
    name_files(&l);
    l.b->info = (TokenizerInfo) { .kind = DG_TOKENIZER_CLIP, .length = 77 };
    err = add_files(&l);
    if (!err)
        err = dg_clip_marks_add(l.b, &l.vocab, l.num_ids, f, l.tokenizer);
    if (!err) {
        look_for_rules(&l);
        set_symbols(&l);
        *out = l.b;
    } else {
        dg_clip_bpe_destroy(l.b);
    }
    cJSON_Delete(l.tokenizer);
    dg_trie_free(&l.vocab);
    return err;
}

int dg_clip_bpe_open_list(ClipBpe **out, const char *path)
{
    enum { OPENAI = 48894 };
    ClipFiles f = { .folder = "", .list = path };
    size_t lines = 0;
    Bytes file;
    int err = dg_bytes_read(&file, path, 1);

    if (!err && file.used > 1 && memcmp(file.at, "\x1f\x8b", 2) == 0)
        err = dg_fail(DG_EFORMAT, "%s: is packed: must be unpacked by gunzip",
                      path);
    for (size_t i = 0; !err && i < file.used; i++)
        lines += file.at[i] == '\n';
    if (!err) {
        f.merges = file.at;
        f.merges_bytes = file.used;
        f.num_merges = lines > OPENAI + 2 ? OPENAI : 0;
        err = dg_clip_bpe_create(out, &f);
    }
    dg_bytes_free(&file);
    return err;
}

int dg_clip_bpe_open(ClipBpe **out, const char *folder)
{
    static const char *const names[] = { "vocab.json",
                                         "merges.txt",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json" };
    enum { NUM = sizeof names / sizeof *names };
    Bytes file[NUM] = { 0 };
    char path[1024];
    int err = DG_OK;

    for (int i = 0; i < NUM && !err; i++)
        err = dg_bytes_read_in(&file[i], path, sizeof path, folder, names[i],
                               i == 2 && file[1].at == NULL);
    if (!err) {
        const ClipFiles f = {
            .vocab = file[0].at,
            .vocab_bytes = file[0].used,
            .merges = file[1].at,
            .merges_bytes = file[1].used,
            .tokenizer = file[2].at,
            .tokenizer_bytes = file[2].used,
            .config = file[3].at,
            .config_bytes = file[3].used,
            .special = file[4].at,
            .special_bytes = file[4].used,
            .added = file[5].at,
            .added_bytes = file[5].used,
            .folder = folder,
        };

        err = dg_clip_bpe_create(out, &f);
    }
    for (int i = 0; i < NUM; i++)
        dg_bytes_free(&file[i]);
    return err;
}
