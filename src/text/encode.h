#ifndef DG_SRC_TEXT_ENCODE_H
#define DG_SRC_TEXT_ENCODE_H
/*
 * Where the tokenizers put their ids: marks, cut, pads.
 */
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

/** End mark and pads; count may be NULL. */
void dg_encode_end(EncodeOut *out, TokenCount *count);

#endif
