#include "map.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* The finalizer of SplitMix64: every bit of a key moves every slot bit. */
static size_t slot_of(uint64_t key, size_t slots)
{
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
    return (size_t)(key ^ (key >> 31)) & (slots - 1);
}

static size_t find(const Map *m, uint64_t key)
{
    size_t at = slot_of(key, m->slots);

    while (m->key[at] != key && m->key[at] != UINT64_MAX)
        at = (at + 1) & (m->slots - 1);
    return at;
}

uint32_t dg_map_get(const Map *m, uint64_t key)
{
    size_t at;

    if (m->slots == 0)
        return DG_MAP_NONE;
    at = find(m, key);
    return m->key[at] == key ? m->value[at] : DG_MAP_NONE;
}

static int grow(Map *m)
{
    Map bigger = { .used = m->used, .slots = m->slots ? 2 * m->slots : 64 };

    bigger.key = malloc(bigger.slots * sizeof *bigger.key);
    bigger.value = malloc(bigger.slots * sizeof *bigger.value);
    if (bigger.key == NULL || bigger.value == NULL) {
        dg_map_free(&bigger);
        return dg_fail(DG_ENOMEM, "tokenizer: a table of %zu entries",
                       m->slots);
    }
    memset(bigger.key, 0xff, bigger.slots * sizeof *bigger.key);
    for (size_t i = 0; i < m->slots; i++) {
        size_t at;

        if (m->key[i] == UINT64_MAX)
            continue;
        at = find(&bigger, m->key[i]);
        bigger.key[at] = m->key[i];
        bigger.value[at] = m->value[i];
    }
    dg_map_free(m);
    *m = bigger;
    return DG_OK;
}

int dg_map_set(Map *m, uint64_t key, uint32_t value)
{
    size_t at;

    if (2 * (m->used + 1) > m->slots) {
        int err = grow(m);

        if (err)
            return err;
    }
    at = find(m, key);
    m->used += m->key[at] != key;
    m->key[at] = key;
    m->value[at] = value;
    return DG_OK;
}

void dg_map_free(Map *m)
{
    free(m->key);
    free(m->value);
    memset(m, 0, sizeof *m);
}
