#ifndef DG_TRAIN_SAME_FILES_H
#define DG_TRAIN_SAME_FILES_H
/*
 * Small files beside weights, which every rank reads by itself: config.json,
 * tokenizers. On hosts with disks of their own they may be other ones under one
 * name, and the ranks of such a host would make other latents, ids or pictures of
 * the same numbers without a word.
 */
#include "train/session.h"

/**
 * Compares those of policy.path and of rewards[], by name: on each host its first
 * rank reads them, and rank 0's are the measure. On one host nothing is read.
 * To be called when all ranks could read what they need: a file that is nowhere
 * is the same everywhere.
 * Collective. Errors, agreed: DG_EINVAL naming the file and the hosts; DG_ENOMEM.
 */
int dg_same_files(const Session *s);

#endif
