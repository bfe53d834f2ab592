#ifndef DG_TEXT_WORDPIECE_H
#define DG_TEXT_WORDPIECE_H
/*
 * BERT's WordPiece, of uncased vocabularies (bert-base-uncased, ImageReward).
 *
 * Equal to `transformers.BertTokenizer` (4; its fast one, and that of 5, give
 * the same ids but for characters that Unicode has not assigned, or only of
 * late). Control characters go, white space parts words, and so does each CJK
 * ideograph; decomposed, marks that take no room go, the rest becomes lower
 * case letter by letter; each punctuation mark is a word. A word becomes the
 * longest piece that it begins with, then the longest "##" piece that
 * follows, and so on: where none does, or it has more than 100 characters,
 * the word is [UNK].
 */
#include "text/tokenizer.h"

typedef struct WordPiece WordPiece;

/**
 * From the bytes of a vocab.txt: a piece per line, ids from 0.
 * name      of the file, for messages
 * added     the bytes of added_tokens.json beside it, or NULL; its tokens are
 *           cut out of texts first, as [PAD], [UNK], [CLS], [SEP] and [MASK]
 *           are
 * Errors: DG_EFORMAT naming file and line or token (an empty or repeated
 * piece, not UTF-8, no [PAD], [UNK], [CLS] or [SEP]), DG_ENOMEM.
 */
int dg_wordpiece_from_vocab(WordPiece **out, const char *name, const char *data,
                            size_t size, const char *added, size_t added_size);

/**
 * From the bytes of a tokenizer.json with a WordPiece model, BertNormalizer
 * and BertPreTokenizer.
 * Errors: DG_EFORMAT naming what is wrong or not understood, DG_ENOMEM.
 */
int dg_wordpiece_from_json(WordPiece **out, const char *name, const char *data,
                           size_t size);

/** A folder's tokenizer.json, or its vocab.txt if there is none, which its
 *  tokenizer_config.json must not say to be cased. Errors: DG_EIO, and those
 *  above. */
int dg_wordpiece_open(WordPiece **out, const char *folder);

/** A vocab.txt by itself. Errors: DG_EIO, and those above. */
int dg_wordpiece_open_list(WordPiece **out, const char *path);

/** 1 if a file's bytes are a vocab.txt: [UNK] is a line of it. */
int dg_wordpiece_is_list(const char *data, size_t size);

const TokenizerInfo *dg_wordpiece_info(const WordPiece *w);

/** As dg_tokenizer_encode(). */
int dg_wordpiece_encode(const WordPiece *w, int32_t *ids, int32_t length,
                        TokenCount *count, const char *text);

/** NULL is allowed. */
void dg_wordpiece_destroy(WordPiece *w);

#endif
