#include "text/wordpiece.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "encode.h"
#include "unicode.h"
#include "wordpiece.h"

typedef struct Work {
    const WordPiece *w;
    EncodeOut *out;
    Bytes spaced, decomposed, text; /* a segment on its way to normal form */
    Ids pieces;                     /* of a word */
} Work;

/* --- normal form ---------------------------------------------------------- */

static int is_ideograph(int32_t c)
{
    static const int32_t ranges[][2] = {
        { 0x4E00, 0x9FFF },   { 0x3400, 0x4DBF },   { 0x20000, 0x2A6DF },
        { 0x2A700, 0x2B73F }, { 0x2B740, 0x2B81F }, { 0x2B820, 0x2CEAF },
        { 0xF900, 0xFAFF },   { 0x2F800, 0x2FA1F },
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return 1;
    return 0;
}

/* Controls are dropped, spaces are all alike and stand around ideographs. */
static int space_out(Bytes *out, const char *text, size_t size)
{
    int err = DG_OK;

    for (size_t at = 0, width; at < size && !err; at += width) {
        const int32_t c = dg_unicode_next(text + at, size - at, &width);
        const int usual = c == '\t' || c == '\n' || c == '\r';
        const int apart = is_ideograph(c);

        if (!usual && (c == 0xFFFD || dg_unicode_is_control(c)))
            continue;
        if (dg_unicode_is_space(c)) {
            err = dg_bytes_add(out, " ", 1);
            continue;
        }
        err = dg_bytes_add(out, " ", (size_t)apart);
        if (!err)
            err = dg_bytes_add(out, text + at, width);
        if (!err)
            err = dg_bytes_add(out, " ", (size_t)apart);
    }
    return err;
}

static int strip_marks(Bytes *out, const char *text, size_t size)
{
    int err = DG_OK;

    for (size_t at = 0, width; at < size && !err; at += width) {
        const int32_t c = dg_unicode_next(text + at, size - at, &width);

        if (!dg_unicode_is_nonspacing(c))
            err = dg_unicode_lower(out, c);
    }
    return err;
}

/* --- words ---------------------------------------------------------------- */

static int encode_word(Work *k, const char *word, size_t size, int64_t chars)
{
    const Trie *trie = &k->w->first;
    int err = DG_OK;

    if (size == 0)
        return DG_OK;
    k->pieces.used = 0;
    for (size_t at = 0; at < size && chars <= WORDPIECE_MOST_CHARS && !err;) {
        int32_t id = -1;
        const size_t n = dg_trie_longest(trie, word + at, size - at, &id);

        if (n == 0)
            chars = WORDPIECE_MOST_CHARS + 1;
        else
            err = dg_ids_add(&k->pieces, id);
        at += n;
        trie = &k->w->behind;
    }
    if (chars > WORDPIECE_MOST_CHARS)
        dg_encode_put(k->out, k->w->info.unk);
    for (size_t i = 0; i < k->pieces.used && chars <= WORDPIECE_MOST_CHARS; i++)
        dg_encode_put(k->out, k->pieces.at[i]);
    return err;
}

static int encode_words(Work *k, const char *s, size_t size)
{
    size_t from = 0, at = 0, width;
    int64_t chars = 0;
    int err = DG_OK;

    for (; at < size && !err; at += width) {
        const int32_t c = dg_unicode_next(s + at, size - at, &width);
        const int mark = dg_unicode_is_punctuation(c);

        chars++;
        if (!mark && !dg_unicode_is_space(c))
            continue;
        err = encode_word(k, s + from, at - from, chars - 1);
        if (!err && mark)
            err = encode_word(k, s + at, width, 1);
        from = at + width;
        chars = 0;
    }
    return err ? err : encode_word(k, s + from, size - from, chars);
}

/* A piece of the text without added tokens. */
static int encode_raw(void *arg, const char *text, size_t size)
{
    Work *k = arg;
    int err;

    k->spaced.used = k->decomposed.used = k->text.used = 0;
    err = space_out(&k->spaced, text, size);
    if (!err)
        err = dg_unicode_nfd(&k->decomposed, k->spaced.at, k->spaced.used);
    if (!err)
        err = strip_marks(&k->text, k->decomposed.at, k->decomposed.used);
    if (!err && k->text.used > 0)
        err = encode_words(k, k->text.at, k->text.used);
    return err;
}

int dg_wordpiece_encode(const WordPiece *w, int32_t *ids, int32_t length,
                        TokenCount *count, const char *text)
{
    EncodeOut out;
    Work k = { .w = w, .out = &out };
    int err = dg_encode_begin(&out, &w->info, ids, length, text);

    if (err)
        return err;
    err = dg_encode_split(&out, &w->added, &w->added.raw, text, strlen(text),
                          encode_raw, &k);
    if (!err)
        dg_encode_end(&out, count);
    dg_bytes_free(&k.spaced);
    dg_bytes_free(&k.decomposed);
    dg_bytes_free(&k.text);
    dg_ids_free(&k.pieces);
    return err;
}

const TokenizerInfo *dg_wordpiece_info(const WordPiece *w)
{
    return &w->info;
}

void dg_wordpiece_destroy(WordPiece *w)
{
    if (w == NULL)
        return;
    dg_trie_free(&w->first);
    dg_trie_free(&w->behind);
    dg_added_free(&w->added);
    free(w);
}
