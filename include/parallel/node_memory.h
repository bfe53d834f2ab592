#ifndef DG_PARALLEL_NODE_MEMORY_H
#define DG_PARALLEL_NODE_MEMORY_H
/*
 * Memory that the ranks of a node have together: it is filled once, by one of them
 * or by each in a part, and from then on each reads the same pages, and has its own
 * of those it writes to. So a node of eight ranks holds what they have loaded once
 * and not eight times.
 *
 * It is a file of the kernel's own memory, in no file system, which the others
 * open by way of the first rank's process and map for themselves.
 */
#include "parallel/comm.h"

typedef struct NodeMemory NodeMemory;

/* bytes first .. first + num - 1 of it */
typedef struct NodeRange {
    size_t first, num;
} NodeRange;

/**
 * Takes zeroed memory. Until dg_node_memory_publish() a node's ranks all write to
 * the same: each to a part that nobody else writes to, or the one alone that
 * dg_node_memory_fills() says. Where a rank cannot open another's, which a line of
 * the log says, and on a node of one rank, each has memory of its own.
 * Collective. Errors, agreed: DG_ENOMEM.
 */
int dg_node_memory_new(NodeMemory **out, const Comm *c, size_t bytes);

/** Not collective; NULL: nothing. */
void dg_node_memory_free(NodeMemory *m);

/** The memory: aligned as dg_memory_new() aligns it. */
void *dg_node_memory_at(const NodeMemory *m);

/** 1: the ranks of every node have it together. The same on all ranks. */
int dg_node_memory_together(const NodeMemory *m);

/** 1: this rank is to fill what is not shared out; the first of each node, or all
 *  of them. */
int dg_node_memory_fills(const NodeMemory *m);

/** What a rank of the node has written is there for all ranks of it, and from now
 *  on nobody sees what another writes. Once. Collective. Errors, agreed:
 *  DG_ENOMEM. */
int dg_node_memory_publish(NodeMemory *m, const Comm *c);

/**
 * After the last need of all else: pages that no rank keeps are given back, and
 * what is not named here may read as zero from now on.
 * own   [num_own] ranges that this rank writes to: copied, in memory of its own
 * kept  [num_kept] ranges that it goes on reading, at most 4
 * Where memory is each rank's own: nothing. Collective. Errors, agreed:
 * DG_ENOMEM.
 */
int dg_node_memory_settle(NodeMemory *m, const Comm *c, const NodeRange *own,
                          int num_own, const NodeRange *kept, int num_kept);

#endif
