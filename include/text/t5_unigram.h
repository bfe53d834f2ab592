#ifndef DG_TEXT_T5_UNIGRAM_H
#define DG_TEXT_T5_UNIGRAM_H
/*
 * T5's tokenizer: a SentencePiece unigram model.
 *
 *   tokens = argmax over segmentations of sum of scores
 *
 * over pieces of the vocabulary; a code point that no piece covers alone
 * costs min(scores) - 10 and is <unk>; adjacent <unk> become one.
 *
 * From spiece.model it is equal to the sentencepiece library (longest rule of
 * the character map first, float32 scores, white space over the whole text);
 * from tokenizer.json to `transformers.T5TokenizerFast` on Hugging Face's
 * `tokenizers` (rules per grapheme cluster, float64 scores, word by word).
 * The two agree on ordinary text. They differ where a cluster of less than 6
 * bytes starts with a rule that does not cover it: a full-width e with a
 * combining accent loses the accent in the second.
 *
 * In both, <pad>, </s>, <unk> and <extra_id_0..99> are cut out of the text
 * first. Where spiece.model lacks the extra ids they follow its pieces:
 * <extra_id_k> is num_pieces + 99 - k.
 */
#include "text/tokenizer.h"

typedef struct T5Unigram T5Unigram;

/**
 * From the bytes of a spiece.model (a SentencePiece ModelProto).
 * name  of the file, for messages
 * Errors: DG_EFORMAT (cut off or malformed protobuf, not a unigram model,
 * options that T5 does not use, no <unk>, <pad> or </s>, pieces that are
 * empty, there twice or not UTF-8, scores that are not finite, offsets of the
 * character map that lead nowhere), DG_ENOMEM.
 */
int dg_t5_unigram_from_spiece(T5Unigram **out, const char *name,
                              const char *data, size_t size);

/**
 * From the bytes of a tokenizer.json with a Unigram model.
 * Normalizers Precompiled, Strip and Replace (of a string, or of the regular
 * expression " {2,}") and pre-tokenizers WhitespaceSplit and Metaspace are
 * understood, alone or in a Sequence.
 * Errors: DG_EFORMAT naming what is wrong or not understood, DG_ENOMEM.
 */
int dg_t5_unigram_from_json(T5Unigram **out, const char *name, const char *data,
                            size_t size);

/** A folder's tokenizer.json, or its spiece.model if there is none.
 *  Errors: DG_EIO, and those above. */
int dg_t5_unigram_open(T5Unigram **out, const char *folder);

const TokenizerInfo *dg_t5_unigram_info(const T5Unigram *u);

/** As dg_tokenizer_encode(). */
int dg_t5_unigram_encode(const T5Unigram *u, int32_t *ids, int32_t length,
                         TokenCount *count, const char *text);

void dg_t5_unigram_destroy(T5Unigram *u);

#endif
