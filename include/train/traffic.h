#ifndef DG_TRAIN_TRAFFIC_H
#define DG_TRAIN_TRAFFIC_H
/*
 * What goes between ranks in training, in bytes as it stands in memory: a sum, or
 * weights, of so many bytes count once on each rank that takes part, however MPI or
 * NCCL move them. Scores, conditions and files, which are small beside them or not
 * the networks', are not counted.
 */
#include <stdint.h>

typedef struct Traffic {
    uint64_t sums;    /* of gradients, of which each rank has a part */
    uint64_t weights; /* trained or lent ones, from their owners to all */
} Traffic;

#endif
