#include <string.h>

#include "base/error.h"
#include "t5.h"
#include "unicode.h"

/* What the text starts with becomes *to; returns the bytes it was. */
static size_t rewrite_prefix(const T5Unigram *u, const char *text, size_t size,
                             const char **to, size_t *to_size)
{
    size_t used = 0;
    int32_t id;

    *to = text;
    if (u->user_text.value.used > 0)
        used = dg_trie_longest(&u->user_text, text, size, &id);
    if (used == 0) {
        const char *found = dg_charsmap_find(&u->map, text, size, 0, &used);

        if (found != NULL) {
            *to = found;
            *to_size = strlen(found);
            return used;
        }
        (void)dg_unicode_next(text, size, &used);
    }
    *to_size = used;
    return used;
}

static int add_escaped(const T5Unigram *u, Bytes *out, const char *s,
                       size_t size)
{
    int err = DG_OK;

    for (size_t i = 0; i < size && !err; i++)
        err = s[i] == ' ' && u->escape_spaces ? dg_bytes_add(out, T5_SPACE, 3)
                                              : dg_bytes_add(out, &s[i], 1);
    return err;
}

static void drop_last_spaces(const T5Unigram *u, Bytes *out, size_t begin)
{
    const char *space = u->escape_spaces ? T5_SPACE : " ";
    const size_t n = strlen(space);

    while (out->used >= begin + n &&
           memcmp(out->at + out->used - n, space, n) == 0)
        out->used -= n;
}

int dg_t5_sentencepiece_normalise(const T5Unigram *u, Bytes *out,
                                  const char *text, size_t size)
{
    const size_t begin = out->used;
    int after_space = u->remove_extra_spaces, err = DG_OK;
    size_t at = 0, to_size;
    const char *to;

    while (u->remove_extra_spaces && at < size) {
        const size_t used =
            rewrite_prefix(u, text + at, size - at, &to, &to_size);

        if (to_size != 1 || to[0] != ' ')
            break;
        at += used;
    }
    if (at < size && u->add_dummy_prefix)
        err = add_escaped(u, out, " ", 1);
    while (at < size && !err) {
        at += rewrite_prefix(u, text + at, size - at, &to, &to_size);
        for (; after_space && to_size > 0 && to[0] == ' '; to_size--)
            to++;
        if (to_size > 0) {
            err = add_escaped(u, out, to, to_size);
            after_space = to[to_size - 1] == ' ' && u->remove_extra_spaces;
        }
    }
    if (!err && u->remove_extra_spaces)
        drop_last_spaces(u, out, begin);
    return err;
}

static int strip(const T5Step *step, Bytes *out, const char *s, size_t size)
{
    size_t from = 0, end = size, width;

    while (step->left && from < size &&
           dg_unicode_is_space(dg_unicode_next(s + from, size - from, &width)))
        from += width;
    while (step->right && end > from) {
        size_t last = end - 1;

        while (last > from && ((unsigned char)s[last] & 0xC0) == 0x80)
            last--;
        if (!dg_unicode_is_space(dg_unicode_next(s + last, end - last, &width)))
            break;
        end = last;
    }
    return dg_bytes_add(out, s + from, end - from);
}

/* Bytes of what step replaces at the start of s, 0 if it does not. */
static size_t replaced(const T5Step *step, const char *s, size_t size)
{
    size_t n = 0;

    if (!step->space_runs) {
        n = strlen(step->from);
        return n <= size && memcmp(s, step->from, n) == 0 ? n : 0;
    }
    while (n < size && s[n] == ' ')
        n++;
    return n >= 2 ? n : 0;
}

static int replace(const T5Step *step, Bytes *out, const char *s, size_t size)
{
    int err = DG_OK;

    for (size_t at = 0; at < size && !err;) {
        const size_t n = replaced(step, s + at, size - at);

        err = n > 0 ? dg_bytes_add(out, step->to, strlen(step->to))
                    : dg_bytes_add(out, s + at, 1);
        at += n > 0 ? n : 1;
    }
    return err;
}

static int run(const T5Unigram *u, const T5Step *step, Bytes *out,
               const char *s, size_t size)
{
    switch (step->kind) {
    case T5_STEP_CHARSMAP:
        return dg_charsmap_rewrite_clusters(&u->map, out, s, size);
    case T5_STEP_STRIP:
        return strip(step, out, s, size);
    default:
        return replace(step, out, s, size);
    }
}

int dg_t5_steps_run(const T5Unigram *u, Bytes *out, const char *text,
                    size_t size)
{
    Bytes turn[2] = { { 0 } };
    int err = dg_bytes_add(&turn[0], text, size);

    for (int i = 0; i < u->num_steps && !err; i++) {
        const Bytes *from = &turn[i % 2];
        Bytes *to = &turn[(i + 1) % 2];

        to->used = 0;
        err = run(u, &u->step[i], to, from->at, from->used);
    }
    if (!err)
        err = dg_bytes_add(out, turn[u->num_steps % 2].at,
                           turn[u->num_steps % 2].used);
    dg_bytes_free(&turn[0]);
    dg_bytes_free(&turn[1]);
    return err;
}
