#ifndef DG_PARALLEL_EXACT_SUM_H
#define DG_PARALLEL_EXACT_SUM_H
/*
 * Sums of gradients that do not depend on order.
 *
 * Each work item's float32 gradient becomes 64-bit fixed point,
 *
 *   q = round_to_even(g * 2^scale_bits),
 *
 * and is summed as an integer. Integer addition is associative, so any order,
 * any partition over threads and ranks gives the same bits. With exact off
 * the sum is kept in float32 in half the memory; its last bits then depend on
 * the number of ranks.
 *
 * Range: |g| * 2^scale_bits <= 2^62 / max_items is checked for every element,
 * so that no sum of max_items gradients can wrap. With the default of 40 bits
 * and 1024 items, |g| may reach 4096 and is resolved to 9.1e-13.
 */
#include <stddef.h>
#include <stdint.h>

#include "parallel/comm.h"

enum { DG_EXACT_SCALE_BITS = 40 };

typedef struct ExactSum {
    int64_t *fixed;    /* [num] sums in units of 2^-scale_bits; exact */
    float *plain;      /* [num] sums; not exact */
    int64_t num;       /* elements */
    int64_t items;     /* gradients added so far */
    int64_t max_items; /* how many may be added, over all ranks */
    int scale_bits;
    float limit; /* largest |g| allowed; FLT_MAX when not exact */
} ExactSum;

/* into += part, which are the host's. */
typedef void (*ExactTake)(void *user, ExactSum *into, const ExactSum *part);

/* A part of a sum that goes to other ranks beside a device's kernels. */
typedef struct ExactSend {
    ExactSum part;
    int root;      /* who gets the sum; -1: all ranks */
    ExactSum into; /* num > 0: and adds it here, of kernel memory, */
    ExactTake
        take; /* or of the host's if this is not NULL, which adds it there,
                       piece by piece, on any thread */
    void *user;
    int slot; /* of the memory that part is in; -1: it stays in place */
} ExactSend;

/** Bytes of the buffer for num elements. */
size_t dg_exact_bytes(int64_t num, int exact);

/**
 * Lays a sum of zero over a buffer of dg_exact_bytes(), which is borrowed.
 * scale_bits  0 .. 60
 * max_items   >= 1: work items of one update, over all ranks
 * Not collective. Errors: DG_EINVAL.
 */
int dg_exact_init(ExactSum *s, void *buffer, int64_t num, int exact,
                  int scale_bits, int64_t max_items);

/** Back to zero. */
void dg_exact_clear(ExactSum *s);

/**
 * Adds one item's gradient g [num] f32, any unit. Shared out over the OpenMP
 * threads when called outside a parallel region; the bits are the same.
 * bad  out, may be NULL: index of the first element not allowed, else -1
 * Not collective. Errors: DG_ENUMERIC for NaN, Inf or |g| > limit, naming the
 * first such element: the sum is then untouched. DG_EINVAL: more than
 * max_items.
 */
int dg_exact_add(ExactSum *s, const float *g, int64_t *bad);

/** Whether dg_exact_add() would take g. Its errors for NaN, Inf and size. */
int dg_exact_check(const ExactSum *s, const float *g, int64_t *bad);

/** A sum over elements first .. first + num - 1 of s and their buffer, with
 *  s's limits and no items yet. */
ExactSum dg_exact_part(const ExactSum *s, int64_t first, int64_t num);

/**
 * into += from; same num, scale_bits and exact. Not collective.
 * Errors: DG_EINVAL when they differ or together exceed max_items.
 */
int dg_exact_merge(ExactSum *into, const ExactSum *from);

/**
 * The sum over all ranks, on all ranks. Collective.
 * Errors: DG_EINVAL, the same on all ranks: together more than max_items.
 */
int dg_exact_allreduce(const Comm *c, ExactSum *s);

/** s->items becomes that of all ranks, before sums go another way.
 *  Collective. Errors: as dg_exact_allreduce(). */
int dg_exact_count(const Comm *c, ExactSum *s);

/** The sum over all ranks on root alone; elsewhere s stays. Its items do not
 *  travel. Collective. */
void dg_exact_sum_to(const Comm *c, ExactSum *s, int root);

/** out [num] f32 = sum / divisor, rounded once to double, once to float. */
void dg_exact_read(const ExactSum *s, float *out, double divisor);

#endif
