#include "added.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unicode.h"

int dg_added_add(AddedTokens *a, const AddedToken *token, const char *text,
                 size_t size)
{
    void *at = a->item;
    int err;

    if (size == 0)
        return DG_OK;
    err = dg_buffer_reserve(&at, &a->room, a->num + 1, sizeof *a->item);
    a->item = at;
    if (!err)
        err = dg_trie_add(token->normalized ? &a->normalized : &a->raw, text,
                          size, (int32_t)a->num);
    if (!err)
        a->item[a->num++] = *token;
    return err;
}

/* Start of the code point that ends before at; text is UTF-8, at > 0. */
static size_t step_back(const char *text, size_t at)
{
    at--;
    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80)
        at--;
    return at;
}

static int stands_alone(const char *text, size_t size, size_t from, size_t to)
{
    size_t width;

    if (from > 0) {
        const size_t before = step_back(text, from);

        if (dg_unicode_is_word(
                dg_unicode_next(text + before, size - before, &width)))
            return 0;
    }
    return to == size ||
           !dg_unicode_is_word(dg_unicode_next(text + to, size - to, &width));
}

static size_t skip_left(const char *text, size_t from, size_t floor)
{
    while (from > floor) {
        const size_t before = step_back(text, from);
        size_t width;

        if (!dg_unicode_is_space(
                dg_unicode_next(text + before, from - before, &width)))
            break;
        from = before;
    }
    return from > floor ? from : floor;
}

static size_t skip_right(const char *text, size_t size, size_t to)
{
    while (to < size) {
        size_t width;

        if (!dg_unicode_is_space(dg_unicode_next(text + to, size - to, &width)))
            break;
        to += width;
    }
    return to;
}

int dg_added_split(const AddedTokens *a, const Trie *trie, const char *text,
                   size_t size, AddedVisit *visit, void *arg)
{
    size_t done = 0, at = 0;
    int err = DG_OK;

    while (trie->value.used > 0 && at < size && !err) {
        int32_t index = -1;
        const size_t found =
            dg_trie_longest(trie, text + at, size - at, &index);
        size_t from = at, to = at + found;
        const AddedToken *t;

        at += found > 0 ? found : 1;
        if (found == 0)
            continue;
        t = &a->item[index];
        if (t->single_word && !stands_alone(text, size, from, to))
            continue;
        from = t->lstrip ? skip_left(text, from, done) : from;
        to = t->rstrip ? skip_right(text, size, to) : to;
        if (from > done)
            err = visit(arg, text + done, from - done, -1);
        if (!err)
            err = visit(arg, text + from, to - from, t->id);
        done = to;
        at = at > done ? at : done;
    }
    if (!err && done < size)
        err = visit(arg, text + done, size - done, -1);
    return err;
}

void dg_added_free(AddedTokens *a)
{
    free(a->item);
    dg_trie_free(&a->raw);
    dg_trie_free(&a->normalized);
    memset(a, 0, sizeof *a);
}
