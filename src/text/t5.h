#ifndef DG_SRC_TEXT_T5_H
#define DG_SRC_TEXT_T5_H
/*
 * Inside of the T5 tokenizer, shared by what loads and what encodes.
 */
#include "added.h"
#include "charsmap.h"
#include "text/t5_unigram.h"
#include "trie.h"

#define T5_SPACE "\xE2\x96\x81" /* U+2581, what a space is written as */
#define T5_PAD   "<pad>"
#define T5_EOS   "</s>"

enum { T5_MOST_STEPS = 8, T5_EXTRA_IDS = 100, T5_MOST_PIECES = 1 << 24 };

/* A step of tokenizer.json's normalisation. */
typedef struct T5Step {
    enum {
        T5_STEP_CHARSMAP,
        T5_STEP_STRIP,  /* white space at the ends */
        T5_STEP_REPLACE /* a string, or runs of spaces, by another */
    } kind;
    int left, right; /* of strip */
    int space_runs;  /* of replace: two spaces and more, not from */
    char *from, *to; /* of replace */
} T5Step;

typedef enum T5Prepend {
    T5_PREPEND_NEVER,
    T5_PREPEND_FIRST, /* only at the start of the text */
    T5_PREPEND_ALWAYS
} T5Prepend;

struct T5Unigram {
    TokenizerInfo info;
    int sentencepiece; /* 1: from spiece.model, 0: from tokenizer.json */
    Trie piece;
    double *score;       /* [pieces] */
    unsigned char *user; /* [pieces] 1: user-defined, NULL: none is */
    double unk_score, max_score;
    Charsmap map;
    AddedTokens added;

    /* spiece.model */
    Trie user_text; /* user-defined pieces: never normalised */
    int remove_extra_spaces, add_dummy_prefix, escape_spaces;

    /* tokenizer.json */
    T5Step step[T5_MOST_STEPS];
    int num_steps;
    int whitespace_split, metaspace, metaspace_split;
    T5Prepend prepend;
};

/** Appends text as tokenizer.json normalises it. Errors: DG_ENOMEM. */
int dg_t5_steps_run(const T5Unigram *u, Bytes *out, const char *text,
                    size_t size);

/** Appends text as SentencePiece normalises it. Errors: DG_ENOMEM. */
int dg_t5_sentencepiece_normalise(const T5Unigram *u, Bytes *out,
                                  const char *text, size_t size);

/** Adds a token that is cut out of texts, with no flags. DG_ENOMEM. */
int dg_t5_add_mark(T5Unigram *u, const char *text, int32_t id);

#endif
