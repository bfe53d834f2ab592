#ifndef DG_SRC_TEXT_ADDED_H
#define DG_SRC_TEXT_ADDED_H
/*
 * Added tokens: strings that are cut out of a text as one id before it is
 * tokenized, as the `added_tokens` of Hugging Face's tokenizers are.
 */
#include "trie.h"

typedef struct AddedToken {
    int32_t id;
    int single_word;    /* only where no word character touches it */
    int lstrip, rstrip; /* takes the white space before, behind it along */
    int normalized;     /* looked for after normalisation, not before */
} AddedToken;

typedef struct AddedTokens {
    AddedToken *item;
    size_t num, room;
    Trie raw, normalized; /* texts to indices of item */
} AddedTokens;

/**
 * text  what to look for: for a normalized token its normalised form
 * Errors: DG_ENOMEM.
 */
int dg_added_add(AddedTokens *a, const AddedToken *token, const char *text,
                 size_t size);

/** Takes a piece of text (id -1) or an added token. */
typedef int AddedVisit(void *arg, const char *text, size_t size, int32_t id);

/**
 * Cuts a text: leftmost, longest first; visits all pieces in their order.
 * trie    &a->raw or &a->normalized
 * Errors: what visit returns; it is not called again then.
 */
int dg_added_split(const AddedTokens *a, const Trie *trie, const char *text,
                   size_t size, AddedVisit *visit, void *arg);

void dg_added_free(AddedTokens *a);

#endif
