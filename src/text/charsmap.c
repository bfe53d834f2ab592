#include "charsmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "unicode.h"

static const uint32_t leaf_bit = 0x80000000u; /* a unit that holds a value */

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
           (uint32_t)b[3] << 24;
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200u) >> 6);
}

static int has_leaf(uint32_t unit)
{
    return (unit >> 8 & 1) != 0;
}

/* Every unit that announces a value must lead to one, and the value to the
 * start of a code point of the replacements. */
static int check_leaves(const Charsmap *m, const char *name)
{
    for (size_t i = 0; i < m->num_units; i++) {
        const uint32_t unit = m->unit[i];
        size_t leaf, at;

        if (unit & leaf_bit || !has_leaf(unit))
            continue;
        leaf = i ^ offset_of(unit);
        if (leaf >= m->num_units || !(m->unit[leaf] & leaf_bit))
            return dg_fail(DG_EFORMAT,
                           "%s: character map: unit %zu of the trie points to "
                           "%zu, where no value is (%zu units)",
                           name, i, leaf, m->num_units);
        at = m->unit[leaf] & ~leaf_bit;
        if (at >= m->text_size || ((unsigned char)m->text[at] & 0xC0) == 0x80)
            return dg_fail(DG_EFORMAT,
                           "%s: character map: unit %zu of the trie has the "
                           "replacement at byte %zu of %zu",
                           name, leaf, at, m->text_size);
    }
    return DG_OK;
}

static int check_text(const Charsmap *m, const char *name)
{
    if (m->text_size == 0 || m->text[m->text_size - 1] != '\0')
        return dg_fail(DG_EFORMAT,
                       "%s: character map: its last replacement has no end",
                       name);
    if (dg_unicode_valid(m->text, m->text_size) != m->text_size)
        return dg_fail(DG_EFORMAT,
                       "%s: character map: replacements are not UTF-8 (byte "
                       "%zu)",
                       name, dg_unicode_valid(m->text, m->text_size));
    return DG_OK;
}

int dg_charsmap_create(Charsmap *out, const char *name, const char *data,
                       size_t size)
{
    const size_t trie = size >= 4 ? read_u32(data) : 0;
    Charsmap m = { 0 };
    int err;

    if (trie < 4 || trie % 4 != 0 || trie > size - 4)
        return dg_fail(DG_EFORMAT,
                       "%s: character map of %zu bytes: its trie cannot have "
                       "%zu",
                       name, size, trie);
    m.num_units = trie / 4;
    m.text_size = size - 4 - trie;
    m.unit = malloc(trie);
    m.text = malloc(m.text_size + 1);
    if (m.unit == NULL || m.text == NULL) {
        err = dg_fail(DG_ENOMEM, "%s: character map of %zu bytes", name, size);
        goto free_map;
    }
    for (size_t i = 0; i < m.num_units; i++)
        m.unit[i] = read_u32(data + 4 + 4 * i);
    memcpy(m.text, data + 4 + trie, m.text_size);
    err = check_text(&m, name);
    if (!err)
        err = check_leaves(&m, name);
    if (err)
        goto free_map;
    *out = m;
    return DG_OK;
free_map:
    dg_charsmap_free(&m);
    return err;
}

const char *dg_charsmap_find(const Charsmap *m, const char *text, size_t size,
                             int shortest, size_t *used)
{
    const char *found = NULL;
    size_t at = 0;

    if (m->num_units == 0)
        return NULL;
    at = offset_of(m->unit[0]);
    for (size_t i = 0; i < size && text[i] != '\0'; i++) {
        const unsigned char c = (unsigned char)text[i];
        uint32_t unit;

        at ^= c;
        if (at >= m->num_units)
            break;
        unit = m->unit[at];
        if ((unit & 0x800000FFu) != c)
            break;
        at ^= offset_of(unit);
        if (!has_leaf(unit))
            continue;
        found = m->text + (m->unit[at] & ~leaf_bit);
        *used = i + 1;
        if (shortest)
            break;
    }
    return found;
}

/* One code point, or a whole short cluster. */
static int rewrite(const Charsmap *m, Bytes *out, const char *text, size_t size,
                   int *done)
{
    size_t used;
    const char *to = dg_charsmap_find(m, text, size, 1, &used);

    *done = to != NULL;
    return to != NULL ? dg_bytes_add(out, to, strlen(to)) : DG_OK;
}

static int rewrite_cluster(const Charsmap *m, Bytes *out, const char *text,
                           size_t size)
{
    int done = 0, err = DG_OK;

    if (size < 6)
        err = rewrite(m, out, text, size, &done);
    for (size_t at = 0; !done && at < size && !err;) {
        size_t width;
        int changed;

        (void)dg_unicode_next(text + at, size - at, &width);
        err = rewrite(m, out, text + at, width, &changed);
        if (!err && !changed)
            err = dg_bytes_add(out, text + at, width);
        at += width;
    }
    return err;
}

int dg_charsmap_rewrite_clusters(const Charsmap *m, Bytes *out,
                                 const char *text, size_t size)
{
    int err = DG_OK;

    if (m->num_units == 0)
        return dg_bytes_add(out, text, size);
    for (size_t at = 0; at < size && !err;) {
        const size_t width = dg_unicode_cluster(text + at, size - at);

        err = rewrite_cluster(m, out, text + at, width);
        at += width;
    }
    return err;
}

void dg_charsmap_free(Charsmap *m)
{
    free(m->unit);
    free(m->text);
    memset(m, 0, sizeof *m);
}
