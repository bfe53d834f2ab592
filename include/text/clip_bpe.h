#ifndef DG_TEXT_CLIP_BPE_H
#define DG_TEXT_CLIP_BPE_H
/*
 * CLIP's byte-pair encoding (Stable Diffusion, FLUX, SDXL, the rewards).
 *
 * Equal to `transformers.CLIPTokenizer` as it is today, on Hugging Face's
 * `tokenizers`: normalisation form C; runs of white space become one space;
 * lower case letter by letter; cut into contractions ('s 't 're 've 'm 'll
 * 'd), runs of letters, single numbers and runs of anything else; bytes of a
 * piece, its last one with "</w>"; then the adjacent pair of lowest rank is
 * merged until none has a rank. No spaces are put around CJK ideographs, and
 * control characters stay: the slow tokenizer of transformers 4 did both.
 */
#include "text/tokenizer.h"

typedef struct ClipBpe ClipBpe;

/* What a tokenizer is made from: the bytes of its files. */
typedef struct ClipFiles {
    /* vocab.json: {"token": id, ...}. NULL: rebuilt from the rules, ids 0-255
     * the byte symbols, 256-511 the same with "</w>", then one id per rule,
     * then <|startoftext|> and <|endoftext|>. */
    const char *vocab;
    size_t vocab_bytes;
    /* merges.txt: "left right" per line, the rank is the line; a first line
     * with "#version" in it is a comment. NULL: they are in tokenizer. */
    const char *merges;
    size_t merges_bytes;
    int32_t num_merges; /* takes that many rules and ignores the rest, as with
                         * openai's list: 48894; 0: all */
    /* tokenizer.json, for vocabulary and rules in one; used without merges. */
    const char *tokenizer;
    size_t tokenizer_bytes;
    /* tokenizer_config.json, special_tokens_map.json, added_tokens.json; each
     * may be NULL. From them come the marks (otherwise <|startoftext|>, and
     * <|endoftext|> which is end, pad and unknown token), further added
     * tokens, and whether these are looked for before or after lower-casing. */
    const char *config, *special, *added;
    size_t config_bytes, special_bytes, added_bytes;
    const char *folder; /* for messages; "" is allowed, not NULL */
    const char *list;   /* for messages: the file merges are of; NULL:
                         * folder/merges.txt */
} ClipFiles;

/**
 * Errors: DG_EFORMAT naming file and line or token (malformed JSON or line,
 * a rule whose parts or result have no id, an id twice or out of range, a
 * mark without an id, not UTF-8), DG_ENOMEM. f is not needed afterwards.
 */
int dg_clip_bpe_create(ClipBpe **out, const ClipFiles *f);

/** Reads a folder's files. Errors: DG_EIO, and dg_clip_bpe_create()'s. */
int dg_clip_bpe_open(ClipBpe **out, const char *folder);

/**
 * Reads a list of rules alone: a merges.txt, or openai's
 * bpe_simple_vocab_16e6.txt, unpacked, of whose rules the first 48894 count.
 * Errors: DG_EIO; DG_EFORMAT for a packed file too; dg_clip_bpe_create()'s.
 */
int dg_clip_bpe_open_list(ClipBpe **out, const char *path);

const TokenizerInfo *dg_clip_bpe_info(const ClipBpe *b);

/** As dg_tokenizer_encode(). */
int dg_clip_bpe_encode(const ClipBpe *b, int32_t *ids, int32_t length,
                       TokenCount *count, const char *text);

void dg_clip_bpe_destroy(ClipBpe *b);

#endif
