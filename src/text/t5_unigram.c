#include "text/t5_unigram.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "encode.h"
#include "t5.h"
#include "unicode.h"

/* The best way to the end of a prefix of the text. */
typedef struct Best {
    double score;
    int32_t from; /* where its last token starts; -1: not reached yet */
    int32_t id;
} Best;

typedef struct Work {
    const T5Unigram *u;
    EncodeOut *out;
    const char *whole; /* the prompt */
    int at_start;      /* this segment is the prompt's first */
    Bytes text, word;
    Best *best; /* [bytes + 1] */
    size_t best_room;
    Ids back; /* ids, last one first */
} Work;

/* sentencepiece keeps sums in float32, Hugging Face in float64. */
static void offer(const T5Unigram *u, Best *to, double score, int32_t from,
                  int32_t id)
{
    if (to->from >= 0 && !(score > to->score))
        return;
    to->score = u->sentencepiece ? (double)(float)score : score;
    to->from = from;
    to->id = id;
}

static double score_of(const T5Unigram *u, int32_t id, size_t size)
{
    /* user-defined pieces are to win: sentencepiece's own bonus */
    if (u->user != NULL && u->user[id])
        return (double)((float)size * (float)u->max_score) - 0.1;
    return u->score[id];
}

/* All tokens that start at byte s. */
static void offer_from(Work *w, const char *text, size_t size, size_t s,
                       size_t width)
{
    const T5Unigram *u = w->u;
    const double here = w->best[s].score;
    int32_t node = 0;
    int covered = 0;

    for (size_t e = s; e < size;) {
        int32_t id;

        node = dg_trie_step(&u->piece, node, text[e++]);
        if (node < 0)
            break;
        id = u->piece.value.at[node];
        if (id < 0)
            continue;
        offer(u, &w->best[e], score_of(u, id, e - s) + here, (int32_t)s, id);
        covered |= e - s == width;
    }
    if (!covered) {
        double score = u->unk_score + here;

        if (u->sentencepiece)
            score = (double)((float)u->unk_score + (float)here);
        offer(u, &w->best[s + width], score, (int32_t)s, u->info.unk);
    }
}

/* The segmentation of normalised text with the largest sum of scores. */
static int segment(Work *w, const char *text, size_t size)
{
    void *best = w->best;
    int err = dg_buffer_reserve(&best, &w->best_room, size + 1, sizeof(Best));

    w->best = best;
    if (err || size == 0)
        return err;
    for (size_t i = 0; i <= size; i++)
        w->best[i] = (Best) { .score = 0, .from = -1, .id = -1 };
    for (size_t s = 0, width; s < size; s += width) {
        (void)dg_unicode_next(text + s, size - s, &width);
        offer_from(w, text, size, s, width);
    }
    w->back.used = 0;
    for (int32_t end = (int32_t)size; end > 0; end = w->best[end].from) {
        const int32_t id = w->best[end].id;

        if (id == w->u->info.unk && w->back.used > 0 &&
            w->back.at[w->back.used - 1] == id)
            continue;
        err = dg_ids_add(&w->back, id);
        if (err)
            return err;
    }
    while (w->back.used > 0)
        dg_encode_put(w->out, w->back.at[--w->back.used]);
    return DG_OK;
}

static const size_t space_size = sizeof T5_SPACE - 1;

static int starts_with_space(const char *s, size_t size)
{
    return size >= space_size && memcmp(s, T5_SPACE, space_size) == 0;
}

/* Metaspace: spaces become U+2581, one is put before, and each starts a
 * piece of its own. */
static int encode_word(Work *w, const char *s, size_t size, int first)
{
    const T5Unigram *u = w->u;
    size_t from = 0;
    int err = DG_OK;

    if (!u->metaspace)
        return segment(w, s, size);
    w->word.used = 0;
    if ((u->prepend == T5_PREPEND_ALWAYS ||
         (u->prepend == T5_PREPEND_FIRST && first)) &&
        s[0] != ' ' && !starts_with_space(s, size))
        err = dg_bytes_add(&w->word, T5_SPACE, space_size);
    for (size_t i = 0; i < size && !err; i++)
        err = s[i] == ' ' ? dg_bytes_add(&w->word, T5_SPACE, space_size)
                          : dg_bytes_add(&w->word, &s[i], 1);
    if (err || !u->metaspace_split)
        return err ? err : segment(w, w->word.at, w->word.used);
    for (size_t i = 1; i <= w->word.used && !err; i++) {
        if (i < w->word.used &&
            !starts_with_space(w->word.at + i, w->word.used - i))
            continue;
        err = segment(w, w->word.at + from, i - from);
        from = i;
    }
    return err;
}

/* A normalised piece of text that has no added token in it. */
static int encode_words(void *arg, const char *s, size_t size)
{
    Work *w = arg;
    const int at_start = w->at_start && s == w->text.at;
    size_t from = 0, width;
    int err = DG_OK;

    if (!w->u->whitespace_split)
        return encode_word(w, s, size, at_start);
    for (size_t at = 0; at < size && !err; at += width) {
        const int space =
            dg_unicode_is_space(dg_unicode_next(s + at, size - at, &width));

        if (space && at > from)
            err = encode_word(w, s + from, at - from, at_start && from == 0);
        if (space)
            from = at + width;
    }
    if (!err && size > from)
        err = encode_word(w, s + from, size - from, at_start && from == 0);
    return err;
}

static int encode_raw(void *arg, const char *text, size_t size)
{
    Work *w = arg;
    int err;

    w->text.used = 0;
    w->at_start = text == w->whole;
    if (w->u->sentencepiece) {
        err = dg_t5_sentencepiece_normalise(w->u, &w->text, text, size);
        return err ? err : segment(w, w->text.at, w->text.used);
    }
    err = dg_t5_steps_run(w->u, &w->text, text, size);
    if (!err)
        err = dg_encode_split(w->out, &w->u->added, &w->u->added.normalized,
                              w->text.at, w->text.used, encode_words, w);
    return err;
}

int dg_t5_unigram_encode(const T5Unigram *u, int32_t *ids, int32_t length,
                         TokenCount *count, const char *text)
{
    EncodeOut out;
    Work w = { .u = u, .out = &out, .whole = text };
    int err = dg_encode_begin(&out, &u->info, ids, length, text);

    if (err)
        return err;
    err = dg_encode_split(&out, &u->added, &u->added.raw, text, strlen(text),
                          encode_raw, &w);
    if (!err)
        dg_encode_end(&out, count);
    dg_bytes_free(&w.text);
    dg_bytes_free(&w.word);
    dg_ids_free(&w.back);
    free(w.best);
    return err;
}

int dg_t5_add_mark(T5Unigram *u, const char *text, int32_t id)
{
    const AddedToken token = { .id = id };

    return dg_added_add(&u->added, &token, text, strlen(text));
}

int dg_t5_unigram_open(T5Unigram **out, const char *folder)
{
    char path[1024];
    Bytes file;
    int err =
        dg_bytes_read_in(&file, path, sizeof path, folder, "tokenizer.json", 0);

    if (!err && file.at != NULL) {
        err = dg_t5_unigram_from_json(out, path, file.at, file.used);
    } else if (!err) {
        err = dg_bytes_read_in(&file, path, sizeof path, folder, "spiece.model",
                               1);
        if (!err)
            err = dg_t5_unigram_from_spiece(out, path, file.at, file.used);
    }
    dg_bytes_free(&file);
    return err;
}

const TokenizerInfo *dg_t5_unigram_info(const T5Unigram *u)
{
    return &u->info;
}

void dg_t5_unigram_destroy(T5Unigram *u)
{
    if (u == NULL)
        return;
    for (int i = 0; i < u->num_steps; i++) {
        free(u->step[i].from);
        free(u->step[i].to);
    }
    dg_trie_free(&u->piece);
    dg_trie_free(&u->user_text);
    dg_charsmap_free(&u->map);
    dg_added_free(&u->added);
    free(u->score);
    free(u->user);
    free(u);
}
