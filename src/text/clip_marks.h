#ifndef DG_SRC_TEXT_CLIP_MARKS_H
#define DG_SRC_TEXT_CLIP_MARKS_H
/*
 * Marks and added tokens of a CLIP tokenizer, from the small JSON files.
 */
#include <cjson/cJSON.h>

#include "clip.h"

/**
 * Fills b->added and the ids in b->info.
 * vocab, num_ids  the vocabulary and its number of entries
 * tokenizer       the parsed tokenizer.json, or NULL
 * Errors: DG_EFORMAT naming file and token, DG_ENOMEM.
 */
int dg_clip_marks_add(ClipBpe *b, const Trie *vocab, int32_t num_ids,
                      const ClipFiles *f, const cJSON *tokenizer);

#endif
