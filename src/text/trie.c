#include "trie.h"

#include "base/error.h"

static uint64_t edge_key(int32_t node, char byte)
{
    return (uint64_t)node << 8 | (unsigned char)byte;
}

int32_t dg_trie_step(const Trie *t, int32_t node, char byte)
{
    const uint32_t next = dg_map_get(&t->edge, edge_key(node, byte));

    return next == DG_MAP_NONE ? -1 : (int32_t)next;
}

int dg_trie_add(Trie *t, const char *key, size_t size, int32_t id)
{
    int32_t node = 0;
    int err = t->value.used == 0 ? dg_ids_add(&t->value, -1) : DG_OK;

    if (err)
        return err;
    for (size_t i = 0; i < size; i++) {
        int32_t next = dg_trie_step(t, node, key[i]);

        if (next < 0) {
            if (t->value.used >= INT32_MAX)
                return dg_fail(DG_ENOMEM, "tokenizer: too many nodes");
            next = (int32_t)t->value.used;
            err = dg_ids_add(&t->value, -1);
            if (!err)
                err = dg_map_set(&t->edge, edge_key(node, key[i]),
                                 (uint32_t)next);
            if (err)
                return err;
        }
        node = next;
    }
    t->value.at[node] = id;
    return DG_OK;
}

int32_t dg_trie_find(const Trie *t, const char *key, size_t size)
{
    int32_t node = t->value.used == 0 ? -1 : 0;

    for (size_t i = 0; i < size && node >= 0; i++)
        node = dg_trie_step(t, node, key[i]);
    return node < 0 ? -1 : t->value.at[node];
}

size_t dg_trie_longest(const Trie *t, const char *text, size_t size,
                       int32_t *id)
{
    int32_t node = 0;
    size_t longest = 0;

    for (size_t i = 0; i < size; i++) {
        node = dg_trie_step(t, node, text[i]);
        if (node < 0)
            break;
        if (t->value.at[node] >= 0) {
            longest = i + 1;
            *id = t->value.at[node];
        }
    }
    return longest;
}

void dg_trie_free(Trie *t)
{
    dg_map_free(&t->edge);
    dg_ids_free(&t->value);
}
