#ifndef DG_WORLD_LISTS_H
#define DG_WORLD_LISTS_H
/*
 * The fixed train and held-out prompt lists of the shapes world. Meanings
 * are parted first, tag by tag, so no held-out prompt has a train prompt of
 * the same text or of the same meaning.
 */
#include <stdint.h>

/**
 * Writes the two lists as JSONL: the same bytes for the same arguments.
 * train, heldout  paths; replaced
 * num_heldout     lines per tag of the held-out list, 1 .. 1000
 * seed            of the stream the prompts are taken from
 * The train list has DG_WORLD_TRAIN_LINES lines, more of them of the tags
 * with more captions. A tag with few captions repeats its own: a repeated
 * line is another picture of the same prompt. Lines alternate over tags.
 * Errors: DG_EINVAL, DG_EIO naming the file, DG_ENOMEM.
 */
int dg_world_write_prompts(const char *train, const char *heldout,
                           int num_heldout, uint64_t seed);

enum { DG_WORLD_TRAIN_LINES = 700 };

#endif
