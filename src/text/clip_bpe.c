#include "text/clip_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "clip.h"
#include "encode.h"
#include "unicode.h"

/* A symbol of a piece in work; a merged one's right part has size 0. */
typedef struct Symbol {
    int32_t id, before, behind; /* neighbours' indices, -1: none */
    int32_t alive;
} Symbol;

/* A pair that a rule would merge, in a heap ordered by rank, then place. */
typedef struct Candidate {
    uint32_t rank;
    int32_t at;
} Candidate;

typedef struct Work {
    const ClipBpe *b;
    EncodeOut *out;
    Bytes composed, text; /* a segment on its way to normal form */
    Symbol *symbol;
    Candidate *heap;
    size_t symbol_room, heap_room, heap_used;
} Work;

static int before(const Candidate *a, const Candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* The heap has room for all that a piece can offer. */
static void push(Work *w, int32_t left)
{
    const int32_t right = left < 0 ? -1 : w->symbol[left].behind;
    Candidate c = { .at = left };
    size_t i = w->heap_used;

    if (right < 0)
        return;
    c.rank = dg_map_get(&w->b->rank,
                        dg_clip_pair(w->symbol[left].id, w->symbol[right].id));
    if (c.rank == DG_MAP_NONE)
        return;
    for (w->heap_used++; i > 0 && before(&c, &w->heap[(i - 1) / 2]);
         i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static Candidate pop(Work *w)
{
    const Candidate top = w->heap[0];
    const Candidate last = w->heap[--w->heap_used];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < w->heap_used) {
        child += child + 1 < w->heap_used &&
                 before(&w->heap[child + 1], &w->heap[child]);
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Merges what c names, unless its symbols have become others meanwhile. */
static void merge(Work *w, const Candidate *c)
{
    Symbol *left = &w->symbol[c->at], *right;
    uint32_t rank;

    if (!left->alive || left->behind < 0)
        return;
    right = &w->symbol[left->behind];
    rank = dg_map_get(&w->b->rank, dg_clip_pair(left->id, right->id));
    if (rank == DG_MAP_NONE ||
        w->b->merged.at[rank] != w->b->merged.at[c->rank])
        return;
    left->id = w->b->merged.at[rank];
    left->behind = right->behind;
    right->alive = 0;
    if (left->behind >= 0)
        w->symbol[left->behind].before = c->at;
    push(w, left->before);
    push(w, c->at);
}

static int reserve(Work *w, size_t size)
{
    void *symbol = w->symbol, *heap = w->heap;
    int err = dg_buffer_reserve(&symbol, &w->symbol_room, size, sizeof(Symbol));

    w->symbol = symbol;
    if (err)
        return err;
    /* one for each pair at first, two for each of size - 1 merges */
    err = dg_buffer_reserve(&heap, &w->heap_room, 3 * size, sizeof(Candidate));
    w->heap = heap;
    return err;
}

/* One piece of the text to ids. */
static int encode_piece(Work *w, const char *piece, size_t size)
{
    const int32_t last = (int32_t)size - 1;
    int err = reserve(w, size);

    if (err)
        return err;
    for (int32_t i = 0; i <= last; i++)
        w->symbol[i] = (Symbol) {
            .id = w->b->symbol[i == last][(unsigned char)piece[i]],
            .before = i - 1,
            .behind = i == last ? -1 : i + 1,
            .alive = 1,
        };
    w->heap_used = 0;
    for (int32_t i = 0; i < last; i++)
        push(w, i);
    while (w->heap_used > 0) {
        const Candidate c = pop(w);

        merge(w, &c);
    }
    for (int32_t i = 0; i >= 0; i = w->symbol[i].behind)
        dg_encode_put(w->out, w->symbol[i].id);
    return DG_OK;
}

static size_t contraction(const char *s, size_t size)
{
    static const char *const ends[] = { "'s", "'t",  "'re", "'ve",
                                        "'m", "'ll", "'d" };

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t n = strlen(ends[i]);

        if (n <= size && memcmp(s, ends[i], n) == 0)
            return n;
    }
    return 0;
}

/* Bytes of the run of code points of one class that s starts with. */
static size_t run_of(const char *s, size_t size, CharClass class)
{
    size_t at = 0, width;

    while (at < size && dg_unicode_class(dg_unicode_next(s + at, size - at,
                                                         &width)) == class)
        at += width;
    return at;
}

/* A mark that was not cut out as one token (it was written in capitals, and
 * is looked for before lower-casing) is three pieces: "<|", word, "|>". */
static size_t mark_at(const char *s, size_t size)
{
    static const char *const marks[] = { CLIP_BOS, CLIP_EOS };

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const size_t n = strlen(marks[i]);

        if (n <= size && memcmp(s, marks[i], n) == 0)
            return n;
    }
    return 0;
}

static int encode_mark(Work *w, const char *s, size_t size)
{
    int err = encode_piece(w, s, 2);

    if (!err)
        err = encode_piece(w, s + 2, size - 4);
    if (!err)
        err = encode_piece(w, s + size - 2, 2);
    return err;
}

/* Cuts normalised text into pieces. */
static int encode_text(void *arg, const char *s, size_t size)
{
    Work *w = arg;
    int err = DG_OK;

    while (size > 0 && !err) {
        size_t n = mark_at(s, size), width;
        CharClass class;

        if (n > 0) {
            err = encode_mark(w, s, n);
        } else if ((n = contraction(s, size)) > 0) {
            err = encode_piece(w, s, n);
        } else {
            class = dg_unicode_class(dg_unicode_next(s, size, &width));
            n = class == CHAR_NUMBER ? width : run_of(s, size, class);
            if (class != CHAR_SPACE)
                err = encode_piece(w, s, n);
        }
        s += n;
        size -= n;
    }
    return err;
}

int dg_clip_normalise(Bytes *out, const char *text, size_t size)
{
    int err = DG_OK, was_space = 0;

    for (size_t at = 0; at < size && !err;) {
        size_t width;
        const int32_t c = dg_unicode_next(text + at, size - at, &width);
        const int space = dg_unicode_is_space(c);

        if (!space)
            err = dg_unicode_lower(out, c);
        else if (!was_space)
            err = dg_bytes_add(out, " ", 1);
        was_space = space;
        at += width;
    }
    return err;
}

static int encode_raw(void *arg, const char *text, size_t size)
{
    Work *w = arg;
    int err;

    w->composed.used = 0;
    w->text.used = 0;
    err = dg_unicode_nfc(&w->composed, text, size);
    if (!err)
        err = dg_clip_normalise(&w->text, w->composed.at, w->composed.used);
    if (!err)
        err = dg_encode_split(w->out, &w->b->added, &w->b->added.normalized,
                              w->text.at, w->text.used, encode_text, w);
    return err;
}

int dg_clip_bpe_encode(const ClipBpe *b, int32_t *ids, int32_t length,
                       TokenCount *count, const char *text)
{
    EncodeOut out;
    Work w = { .b = b, .out = &out };
    int err = dg_encode_begin(&out, &b->info, ids, length, text);

    if (err)
        return err;
    err = dg_encode_split(&out, &b->added, &b->added.raw, text, strlen(text),
                          encode_raw, &w);
    if (!err)
        dg_encode_end(&out, count);
    dg_bytes_free(&w.composed);
    dg_bytes_free(&w.text);
    free(w.symbol);
    free(w.heap);
    return err;
}

const TokenizerInfo *dg_clip_bpe_info(const ClipBpe *b)
{
    return &b->info;
}

void dg_clip_bpe_destroy(ClipBpe *b)
{
    if (b == NULL)
        return;
    dg_map_free(&b->rank);
    dg_ids_free(&b->merged);
    dg_added_free(&b->added);
    free(b);
}
