#ifndef DG_PARALLEL_SHARD_H
#define DG_PARALLEL_SHARD_H
/*
 * Who holds what of a flat buffer of trained values.
 *
 * The buffer is cut into blocks, counted from its beginning, and each rank
 * owns one contiguous range of whole blocks: a pure function of size and
 * number of ranks. What lies outside of its range a rank need not hold
 * (parallel.shard, config/choices.h). Sums that go to the owners alone are
 * the integers that all ranks would have had, so levels and rank counts give
 * the same bits.
 */
#include <stddef.h>
#include <stdint.h>

#include "config/choices.h"
#include "parallel/comm.h"
#include "parallel/exact_sum.h"

typedef struct Shard {
    const Comm *comm; /* borrowed; NULL: sizes only, for plans */
    ShardLevel level;
    int rank, size;
    int64_t total;      /* elements of the whole buffer */
    int64_t block;      /* elements; the last block may be shorter */
    int64_t first, num; /* what this rank holds: all at level none */
} Shard;

/** Of total >= 0 elements in blocks of block >= 1. Not collective. */
void dg_shard_init(Shard *s, const Comm *c, ShardLevel level, int64_t total,
                   int64_t block);

/** The same for rank of size ranks that are not there. */
void dg_shard_outline(Shard *s, int rank, int size, ShardLevel level,
                      int64_t total, int64_t block);

/** 1 if ranks hold different ranges. */
int dg_shard_split(const Shard *s);

/** 1 if no rank has the sum of the whole. */
int dg_shard_rounds(const Shard *s);
/** 1 if no rank has all weights. */
int dg_shard_pools(const Shard *s);

/** What a rank holds; num 0 where there are fewer blocks than ranks. */
void dg_shard_range(const Shard *s, int rank, int64_t *first, int64_t *num);

typedef struct ShardRange {
    int64_t first, num;
} ShardRange;

/** What of a range a rank holds; num 0: nothing. */
void dg_shard_overlap(const Shard *s, int rank, const ShardRange *of,
                      int64_t *first, int64_t *num);

/** The rank whose range has an element. At level none: 0. */
int dg_shard_owner(const Shard *s, int64_t element);

/**
 * Sums over all ranks, [total] elements of the host's memory, to who holds
 * them: on this rank elements first .. first + num - 1 are then the sum, and
 * the others undefined. sum->items becomes that of all ranks. Collective.
 * Errors: as dg_exact_allreduce().
 */
int dg_shard_sum(const Shard *s, ExactSum *sum);

/** values [total] of the host: fills in what other ranks hold. At level none
 *  nothing. Collective. */
void dg_shard_gather(const Shard *s, void *values, size_t element_bytes);

/** The same of one value for each block, [total / block rounded up]. */
void dg_shard_gather_blocks(const Shard *s, void *values, size_t element_bytes);

#endif
