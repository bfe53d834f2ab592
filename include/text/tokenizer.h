#ifndef DG_TEXT_TOKENIZER_H
#define DG_TEXT_TOKENIZER_H
/*
 * The tokenizers of real text encoders, CLIP's, T5's and BERT's, behind one face:
 * opened from a Hugging Face tokenizer folder by what is in it.
 *
 * A tokenizer is not changed after it was opened: threads may share one.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct Tokenizer Tokenizer;

typedef enum TokenizerKind {
    DG_TOKENIZER_CLIP,     /* byte-pair encoding, see text/clip_bpe.h */
    DG_TOKENIZER_T5,       /* SentencePiece unigram, see text/t5_unigram.h */
    DG_TOKENIZER_WORDPIECE /* BERT's, see text/wordpiece.h */
} TokenizerKind;

/* A longer prompt is refused. */
#define DG_TOKENIZER_TEXT_BYTES ((size_t)1 << 24)

typedef struct TokenizerInfo {
    TokenizerKind kind;
    int32_t num_ids;  /* all ids are in [0, num_ids) */
    int32_t bos, eos; /* bos -1: none */
    int32_t pad, unk; /* ids behind the end mark, for unknown characters */
    int32_t length;   /* usual ids per prompt: 77 (CLIP) or 512 (T5, BERT) */
} TokenizerInfo;

/* What became of one prompt. */
typedef struct TokenCount {
    int32_t used;      /* ids before the pads, marks included */
    int32_t truncated; /* 1: the prompt had more tokens than fit */
} TokenCount;

/**
 * Opens a folder, or a file, which is a list of CLIP's rules (see
 * dg_clip_bpe_open_list()) or BERT's vocab.txt. A folder is T5's if it has a tokenizer.json
 * with a Unigram model or a spiece.model, BERT's if it has one with a WordPiece model or a
 * vocab.txt, CLIP's if it has a merges.txt (with or without vocab.json) or a
 * tokenizer.json with CLIP's BPE model. tokenizer.json goes before
 * spiece.model and vocab.txt, merges.txt before tokenizer.json.
 * Not collective: every rank may open, or fail, alone.
 * Errors, each naming the file and what is wrong in it: DG_EIO (cannot be
 * read; none of these files is there), DG_EFORMAT, DG_ENOMEM. *out is set on
 * success only; dg_tokenizer_destroy() it.
 */
int dg_tokenizer_open(Tokenizer **out, const char *path);

const TokenizerInfo *dg_tokenizer_info(const Tokenizer *t);

/**
 * A prompt to ids: begin mark (CLIP, BERT), tokens, end mark, pads.
 * ids     [length] i32 out; tokens that do not fit are cut off at the end,
 *         the marks never: length >= 2 (CLIP, BERT), >= 1
 *         (T5)
 * count   out, may be NULL
 * text    UTF-8; "" is allowed
 * Errors: DG_EINVAL (not UTF-8: the byte is named; length; longer than
 * DG_TOKENIZER_TEXT_BYTES), DG_ENOMEM; ids are then undefined.
 */
int dg_tokenizer_encode(const Tokenizer *t, int32_t *ids, int32_t length,
                        TokenCount *count, const char *text);

/** NULL is allowed. */
void dg_tokenizer_destroy(Tokenizer *t);

#endif
