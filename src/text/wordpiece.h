#ifndef DG_SRC_TEXT_WORDPIECE_H
#define DG_SRC_TEXT_WORDPIECE_H
/*
 * Inside of the WordPiece tokenizer, shared by what loads and what encodes.
 */
#include "added.h"
#include "text/wordpiece.h"
#include "trie.h"

#define WORDPIECE_PAD "[PAD]"
#define WORDPIECE_UNK "[UNK]"
#define WORDPIECE_CLS "[CLS]"
#define WORDPIECE_SEP "[SEP]"

enum { WORDPIECE_MOST_CHARS = 100, WORDPIECE_MOST_PIECES = 1 << 24 };

struct WordPiece {
    TokenizerInfo info;
    Trie first;  /* pieces that words begin with */
    Trie behind; /* and that follow, without their "##" */
    AddedTokens added;
};

#endif
