#ifndef DG_BASE_MEMORY_H
#define DG_BASE_MEMORY_H
/*
 * Large blocks of host memory: arenas, weights, gradients, moments.
 */
#include <stddef.h>

/**
 * Zeroed memory, 256-byte aligned, touched at once so that nothing is left
 * to be had later; 0 bytes are allowed. Blocks of 2 MiB and more ask the
 * system for huge pages: kernels walk them in long strides. To free().
 * NULL when there is none; no error is recorded.
 */
void *dg_memory_new(size_t bytes);

/** Gives the whole pages within [p, p + bytes) of such a block back to the
 *  system. They stay part of it, and read as zero or as before. */
void dg_memory_drop(void *p, size_t bytes);

/** Before all of [p, p + bytes) is written: asks for its pages together, which
 *  costs half of what one fault each does. A wish; what is there stays as it is. */
void dg_memory_take(void *p, size_t bytes);

/** Whether there is room for what libraries take as they go: where they have
 *  none, they end the program in their own ways. What cannot be told, as where a
 *  limit is of memory that is used, is taken to be there. Errors: DG_ENOMEM. */
int dg_memory_spare(void);

#endif
