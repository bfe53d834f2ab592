#ifndef DG_SRC_TEXT_CLIP_H
#define DG_SRC_TEXT_CLIP_H
/*
 * Inside of the CLIP tokenizer, shared by what loads and what encodes.
 */
#include "added.h"
#include "map.h"
#include "text/clip_bpe.h"

#define CLIP_BOS "<|startoftext|>"
#define CLIP_EOS "<|endoftext|>"

struct ClipBpe {
    TokenizerInfo info;
    int32_t symbol[2][256]; /* ids of a byte: inside a piece, at its end */
    Map rank;               /* left << 32 | right -> rank of the rule */
    Ids merged;             /* [ranks] id of left and right as one */
    AddedTokens added;
};

static inline uint64_t dg_clip_pair(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/** text as the tokenizer sees it: composed, white space, lower case.
 *  Appends to out. Errors: DG_ENOMEM. */
int dg_clip_normalise(Bytes *out, const char *text, size_t size);

#endif
