#ifndef DG_SRC_TRAIN_UPDATE_STATS_H
#define DG_SRC_TRAIN_UPDATE_STATS_H
/* Means over the terms of an iteration's updates, each added in the order of
 * items and steps on every rank: the same bits for any number of ranks, threads
 * and samples at a time. Not public. */
#include "train/update.h"

void dg_update_stats_begin(UpdateStats *s);

/** Adds what the shared results of update 'index' say. */
void dg_update_stats_add(UpdateStats *s, const Update *u, int index);

/** After the last one, or where an update failed. */
void dg_update_stats_end(UpdateStats *s);

#endif
