#ifndef DG_SRC_TEXT_TRIE_H
#define DG_SRC_TEXT_TRIE_H
/*
 * A trie over bytes: strings to ids, and all keys that are a prefix of a
 * text. A zeroed trie is an empty one.
 */
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "map.h"

typedef struct Trie {
    Map edge;  /* node << 8 | byte -> node; node 0 is the root */
    Ids value; /* [nodes] the id of the key that ends here, or -1 */
} Trie;

/** Sets a key's id (>= 0). Errors: DG_ENOMEM. */
int dg_trie_add(Trie *t, const char *key, size_t size, int32_t id);

/** The id of a whole key, or -1. */
int32_t dg_trie_find(const Trie *t, const char *key, size_t size);

/** The node one byte on, or -1. */
int32_t dg_trie_step(const Trie *t, int32_t node, char byte);

/** The longest key that text starts with: its size, 0 if none; *id its id. */
size_t dg_trie_longest(const Trie *t, const char *text, size_t size,
                       int32_t *id);

void dg_trie_free(Trie *t);

#endif
