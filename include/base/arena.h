#ifndef DG_BASE_ARENA_H
#define DG_BASE_ARENA_H
/*
 * Arenas: memory by lifetime. One arena per lifetime (run, iteration, step,
 * call). With a NULL base an arena only counts, so the same layout code first
 * measures and then places. Addresses are 256-byte aligned.
 */
#include <stddef.h>

typedef struct Arena {
    char *base;       /* NULL: counting only */
    size_t cap;       /* bytes reserved; SIZE_MAX while counting */
    size_t used;      /* bytes taken now */
    size_t peak;      /* highest 'used' ever */
    const char *name; /* for messages: "run", "step", ... */
} Arena;

/** A counting arena (base NULL). name is borrowed and must outlive it. */
void dg_arena_init_count(Arena *a, const char *name);

/**
 * Reserves cap bytes of zeroed host memory. cap 0 is allowed.
 * Errors: DG_ENOMEM naming the arena and the bytes.
 */
int dg_arena_init(Arena *a, const char *name, size_t cap);
void dg_arena_fini(Arena *a);

/** An arena over cap bytes of another one's memory, which outlives it and may
 *  be a device's: an arena never looks into it. Not for dg_arena_fini().
 *  base is 256-byte aligned. */
void dg_arena_init_over(Arena *a, const char *name, void *base, size_t cap);

/**
 * Takes bytes; NULL when counting, and NULL with an error recorded
 * (DG_ENOMEM, naming arena, bytes wanted and reserved) when it does not fit.
 * dg_arena_full() tells the two apart.
 */
void *dg_arena_take(Arena *a, size_t bytes);

/** 1 if a take has failed since init; the arena then stays failed. */
int dg_arena_full(const Arena *a);

/** Stack discipline: everything taken after the mark is given back. */
size_t dg_arena_mark(const Arena *a);
void dg_arena_release(Arena *a, size_t mark);

#endif
