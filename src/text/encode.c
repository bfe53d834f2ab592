#include "encode.h"

#include <string.h>

#include "base/error.h"
#include "unicode.h"

int dg_encode_begin(EncodeOut *out, const TokenizerInfo *info, int32_t *ids,
                    int32_t length, const char *text)
{
    const int32_t marks = info->bos >= 0 ? 2 : 1;
    const size_t size = strlen(text);
    size_t valid;

    if (length < marks)
        return dg_fail(DG_EINVAL, "tokenizer: %d ids: must be at least %d",
                       length, marks);
    if (size > DG_TOKENIZER_TEXT_BYTES)
        return dg_fail(DG_EINVAL,
                       "prompt \"%.40s...\" of %zu bytes: at most %zu are "
                       "tokenized",
                       text, size, DG_TOKENIZER_TEXT_BYTES);
    valid = dg_unicode_valid(text, size);
    if (valid < size)
        return dg_fail(DG_EINVAL,
                       "prompt \"%.*s...\": not UTF-8 at byte %zu (0x%02x)",
                       (int)(valid < 40 ? valid : 0), text, valid + 1,
                       (unsigned char)text[valid]);
    *out = (EncodeOut) { .info = info, .ids = ids, .length = length };
    if (info->bos >= 0)
        ids[out->used++] = info->bos;
    return DG_OK;
}

void dg_encode_put(EncodeOut *out, int32_t id)
{
    if (out->used < out->length - 1)
        out->ids[out->used++] = id;
    else
        out->truncated = 1;
}

typedef struct Split {
    EncodeOut *out;
    EncodePiece *piece;
    void *arg;
} Split;

static int visit(void *split, const char *text, size_t size, int32_t id)
{
    const Split *s = split;

    if (id < 0)
        return s->piece(s->arg, text, size);
    dg_encode_put(s->out, id);
    return DG_OK;
}

int dg_encode_split(EncodeOut *out, const AddedTokens *a, const Trie *trie,
                    const char *text, size_t size, EncodePiece *piece,
                    void *arg)
{
    Split s = { out, piece, arg };

    return dg_added_split(a, trie, text, size, visit, &s);
}

void dg_encode_end(EncodeOut *out, TokenCount *count)
{
    out->ids[out->used++] = out->info->eos;
    for (int32_t i = out->used; i < out->length; i++)
        out->ids[i] = out->info->pad;
    if (count != NULL)
        *count =
            (TokenCount) { .used = out->used, .truncated = out->truncated };
}
