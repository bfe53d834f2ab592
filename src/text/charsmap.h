#ifndef DG_SRC_TEXT_CHARSMAP_H
#define DG_SRC_TEXT_CHARSMAP_H
/*
 * SentencePiece's precompiled_charsmap: rules "these bytes become those", a
 * double-array trie with its replacements behind it.
 *
 * Layout: u32 LE size of the trie in bytes; trie of u32 LE units; then
 * replacements, each UTF-8 ended by a zero byte. A leaf's value is where in
 * them its replacement starts.
 */
#include "buffer.h"

typedef struct Charsmap {
    uint32_t *unit;
    size_t num_units; /* 0: no rules */
    char *text;       /* replacements, ends in a zero byte */
    size_t text_size;
} Charsmap;

/**
 * Takes a map apart and checks all offsets in it.
 * name  of the file, for messages. Errors: DG_EFORMAT, DG_ENOMEM.
 */
int dg_charsmap_create(Charsmap *out, const char *name, const char *data,
                       size_t size);

/**
 * The replacement of the longest (shortest = 0) or of the shortest rule that
 * text starts with, and the rule's size in bytes; NULL if there is none.
 */
const char *dg_charsmap_find(const Charsmap *m, const char *text, size_t size,
                             int shortest, size_t *used);

/**
 * Appends text rewritten cluster by cluster, as Hugging Face's tokenizers do
 * it: a cluster of less than 6 bytes that starts with a rule becomes the
 * shortest such rule's replacement, whole; any other one is rewritten code
 * point by code point. Errors: DG_ENOMEM.
 */
int dg_charsmap_rewrite_clusters(const Charsmap *m, Bytes *out,
                                 const char *text, size_t size);

void dg_charsmap_free(Charsmap *m);

#endif
