#ifndef DG_SRC_TEXT_ENCODE_H
#define DG_SRC_TEXT_ENCODE_H
/*
 * Where the tokenizers put their ids: marks, cut, pads.
 */
#include "added.h"
#include "text/tokenizer.h"

typedef struct EncodeOut {
    const TokenizerInfo *info;
    int32_t *ids;
    int32_t length, used, truncated;
} EncodeOut;

/** Checks length and text, puts the begin mark. Errors: DG_EINVAL. */
int dg_encode_begin(EncodeOut *out, const TokenizerInfo *info, int32_t *ids,
                    int32_t length, const char *text);

/** One token, if there is room before the end mark. */
void dg_encode_put(EncodeOut *out, int32_t id);

/** Takes a piece of text without added tokens. */
typedef int EncodePiece(void *arg, const char *text, size_t size);

/**
 * Cuts a text as dg_added_split() does: an added token's id is put, all other
 * pieces go to piece, in their order. Errors: what piece returns.
 */
int dg_encode_split(EncodeOut *out, const AddedTokens *a, const Trie *trie,
                    const char *text, size_t size, EncodePiece *piece,
                    void *arg);

/** End mark and pads; count may be NULL. */
void dg_encode_end(EncodeOut *out, TokenCount *count);

#endif
