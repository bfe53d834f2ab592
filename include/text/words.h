#ifndef DG_TEXT_WORDS_H
#define DG_TEXT_WORDS_H
/*
 * A word tokenizer over a small fixed vocabulary, for generators that know
 * only the captions of the shapes world. The vocabulary is a list of strings
 * in the order of the ids.
 */
#include <stdint.h>

enum {
    DG_WORDS_MAX = 64,  /* entries of a vocabulary */
    DG_WORDS_BYTES = 24 /* bytes of an entry, with the final NUL */
};

/* Three entries are marks, found by their names. */
#define DG_WORDS_PAD "<pad>"
#define DG_WORDS_EOS "<eos>"
#define DG_WORDS_UNK "<unk>"

typedef struct Words {
    int32_t num;
    int32_t pad, eos, unk; /* ids of the marks; pad is 0 */
    char word[DG_WORDS_MAX][DG_WORDS_BYTES];
} Words;

typedef enum WordsOrder {
    DG_WORDS_EOS_FIRST, /* pad 0, eos 1, unk 2, words: as T5 has it */
    DG_WORDS_EOS_LAST   /* pad 0, unk 1, words, eos: the largest id, as
                         * CLIP's pooling by argmax wants it */
} WordsOrder;

/**
 * A vocabulary from its entries in the order of ids.
 * Errors: DG_EFORMAT on more than DG_WORDS_MAX entries, an empty, too long
 * or repeated one, a missing mark, or a pad that is not entry 0.
 */
int dg_words_init(Words *out, const char *const *entries, int num);

/** The vocabulary of the shapes world's captions. Cannot fail. */
void dg_words_world(Words *out, WordsOrder order);

/**
 * Text to ids: words in lower case, eos, pads up to length.
 * ids        [length] i32 out
 * num_used   out, may be NULL: ids before the pads, eos included
 * allow_unk  nonzero: an unknown word becomes unk, else it is an error
 * Spaces, commas and full stops part words. Case (ASCII) does not matter.
 * Errors: DG_EINVAL naming the unknown word, or the words there are and
 * that fit; ids are then undefined.
 */
int dg_words_encode(const Words *w, int32_t *ids, int32_t *num_used,
                    const char *text, int length, int allow_unk);

#endif
