#ifndef DG_PARALLEL_COMM_H
#define DG_PARALLEL_COMM_H
/*
 * Ranks and collectives. This is the only face of MPI in the program.
 *
 * Every function with a Comm is collective unless it says otherwise: all
 * ranks call it in the same order with the same sizes. A failure inside MPI
 * itself ends the job (MPI's own handler); no code is returned for it. Sizes
 * are 64-bit: buffers beyond INT_MAX elements travel in pieces.
 * Called from the main thread, or, with a Comm of its own, from another
 * (dg_comm_beside()).
 */
#include <stddef.h>
#include <stdint.h>

struct CommImpl;

typedef struct Comm {
    int rank;      /* 0 .. size-1 */
    int size;      /* >= 1 */
    int node_rank; /* rank among those that share this node's memory */
    int node_size;
    int threads;           /* 1: MPI lets another thread call it too, of all */
    struct CommImpl *impl; /* MPI's handles */
} Comm;

/**
 * Starts MPI, with or without mpirun, and installs the hook that lets
 * dg_panic() take all ranks down. Once per process.
 * MPI is asked for MPI_THREAD_MULTIPLE, or with DANCEGRPO_MPI_THREADS=funneled
 * in the environment for less. Errors: DG_EDEVICE when MPI offers no
 * MPI_THREAD_FUNNELED; DG_EINVAL, agreed: another word there; DG_ENOMEM.
 */
int dg_comm_init(Comm *c, int *argc, char ***argv);

/**
 * From now on a rank that waits for others longer than patience_s in any of
 * these functions, or in those of comm_file.h, ends the job: one line names it,
 * what it waits in, and which ranks of its node are not there. 0: nobody
 * watches. Time in which the whole job was suspended does not count. c stays
 * where it is. Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_comm_watch(Comm *c, double patience_s);
/** Ends the watch, if there is one, as dg_comm_fini() does, once all are there,
 *  which is still watched. Collective. */
void dg_comm_unwatch(Comm *c);

/** A communicator of this rank alone, beside the one of all. Not collective.
 *  Errors: DG_ENOMEM. */
int dg_comm_self(Comm *out);
/** Frees it; before dg_comm_fini() of the one of all. */
void dg_comm_self_free(Comm *c);

/**
 * A communicator of the same ranks for one other thread of each: what it does
 * there has no order with what the main thread does. Its waits sleep, and leave
 * the core to others. It is watched where c is. To be made and freed by the
 * main thread, before dg_comm_fini(); c->threads must be 1. Collective.
 * doing  for the watch's message, behind what is waited in: " of files"
 * *out stays where it is. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_comm_beside(Comm *out, const Comm *c, const char *doing);
/** Of a Comm that is all zero: nothing. */
void dg_comm_beside_free(Comm *c);

/** Ends MPI. Collective; allowed after a failed dg_comm_init(). */
void dg_comm_fini(Comm *c);

/**
 * Lets all ranks go on, or fail, together.
 * err  this rank's code; its text is in dg_last_error()
 * Returns DG_OK if all were DG_OK. Otherwise every rank gets the code, text,
 * rank and host of the lowest failing rank, as dg_last_error(). To be called
 * before the next collective wherever one rank may fail alone.
 */
int dg_agree(const Comm *c, int err);

void dg_comm_barrier(const Comm *c);

/** A barrier for long waits: those who wait sleep and leave their core to
 *  others, at the price of a millisecond. */
void dg_comm_barrier_idle(const Comm *c);

/** root's bytes to all; buf [bytes] in on root, out elsewhere. */
void dg_comm_bcast(const Comm *c, void *buf, size_t bytes, int root);

/** The same among the ranks of one node; node_root is a node_rank. Every node
 *  has its own root and bytes, equal on all of its ranks. */
void dg_comm_node_bcast(const Comm *c, void *buf, size_t bytes, int node_root);

/** Rank 0's bytes to the first rank of every node; on others nothing. Of a
 *  Comm of dg_comm_init() alone. */
void dg_comm_nodes_bcast(const Comm *c, void *buf, size_t bytes);

/**
 * root's block of any size to all, in memory of each rank's own.
 * buf, bytes   in on root; elsewhere out, *buf from malloc (one more zero
 *              byte behind it, so that text is a string), for the caller to
 *              free
 * Errors: DG_ENOMEM, agreed; outputs then untouched.
 */
int dg_comm_bcast_alloc(const Comm *c, char **buf, size_t *bytes, int root);

/** all [size][bytes] gets every rank's mine [bytes], in rank order. */
void dg_comm_allgather(const Comm *c, void *all, const void *mine,
                       size_t bytes);

/**
 * Blocks of unequal length, in rank order without gaps.
 * all     [sum of counts] elements out
 * mine    [counts[rank]] elements in; may be its own place inside all
 * counts  [size] elements of each rank, equal on all ranks
 */
void dg_comm_allgatherv(const Comm *c, void *all, const void *mine,
                        const int64_t *counts, size_t element_bytes);

/**
 * As dg_comm_allgatherv() for items shared out by dg_share_range(): fills in
 * the other ranks' items of buf [num_items][item_bytes], own items in place.
 */
void dg_comm_share_items(const Comm *c, void *buf, int64_t num_items,
                         size_t item_bytes);

/** Reductions in place, v [num], element by element, result on all ranks.
 *  Integer sums wrap never: the caller bounds them (see exact_sum.h). */
void dg_comm_sum_i64(const Comm *c, int64_t *v, int64_t num);
void dg_comm_min_i64(const Comm *c, int64_t *v, int64_t num);
void dg_comm_max_i64(const Comm *c, int64_t *v, int64_t num);
void dg_comm_max_f64(const Comm *c, double *v, int64_t num);

/** dg_comm_min_i64() of few numbers; a rank that waits for others calls
 *  meanwhile() now and then, which is not to wait. */
void dg_comm_min_i64_while(const Comm *c, int64_t *v, int num,
                           void (*meanwhile)(void));

/**
 * Tells all other ranks that this one has failed, also where they do not meet
 * it: they may wait for something that does not come. Not collective; once is
 * enough. All ranks then meet in dg_comm_alarm_end().
 */
void dg_comm_alarm(const Comm *c);
/** 1 if another rank has done so. Not collective, does not wait. */
int dg_comm_alarmed(const Comm *c);
/** Forgets all alarms. Collective. */
void dg_comm_alarm_end(const Comm *c);

/** Floating-point sums: their last bits depend on the number of ranks. For
 *  times and counters, and for gradients where exact_sum is off. */
void dg_comm_sum_f64(const Comm *c, double *v, int64_t num);
void dg_comm_sum_f32(const Comm *c, float *v, int64_t num);

/** The same sums on root alone; elsewhere v stays what it was. */
void dg_comm_sum_i64_to(const Comm *c, int64_t *v, int64_t num, int root);
void dg_comm_sum_f32_to(const Comm *c, float *v, int64_t num, int root);

/* Values of their owners, each of whom has a part; all ranks get all of them
 * beside a device's kernels. */
typedef struct CommFetch {
    void *at;            /* kernel memory: where all of them go, */
    const size_t *first; /* [size] bytes from there of each rank's part */
    const size_t *bytes; /* [size] of it, may be 0 */
    const void *own;     /* this rank's part, not inside of the place */
    int slot;            /* by which it is waited for */
} CommFetch;

/** bytes of rank from's buf to rank to's; the others do nothing. */
void dg_comm_pass(const Comm *c, void *buf, size_t bytes, int from, int to);

/** 'to' bytes of to_next to the next rank, and into from_before 'from' bytes of
 *  the one before, as many as that gives; 0 are allowed. The last rank's next is
 *  the first. Collective. */
void dg_comm_ring(const Comm *c, const void *to_next, size_t to,
                  void *from_before, size_t from);

/** The name of this rank's host, cut to bytes - 1; "" where all ranks are on
 *  one host. Not collective. */
void dg_comm_host(const Comm *c, char *text, size_t bytes);

/** Name of the host each rank runs on, "a,b" without repeats, in rank order,
 *  cut at bytes - 1; the same on all ranks. */
void dg_comm_hosts(const Comm *c, char *text, size_t bytes);

/** Version line of the MPI library. Not collective. */
void dg_comm_library(char *text, size_t bytes);

/**
 * Contiguous blocks: the items first .. first+num-1 of total belong to rank.
 * Any total >= 0 and size >= 1; block lengths differ by at most 1; ranks
 * beyond the items get num = 0. Pure arithmetic, not collective.
 */
void dg_share_range(int64_t total, int rank, int size, int64_t *first,
                    int64_t *num);

/** The rank that owns an item under dg_share_range(). Not collective. */
int dg_share_owner(int64_t total, int size, int64_t item);

#endif
