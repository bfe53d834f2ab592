#include "base/arena.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

void dg_arena_init_count(Arena *a, const char *name)
{
    *a = (Arena) { .base = NULL, .cap = SIZE_MAX, .name = name };
}

int dg_arena_init(Arena *a, const char *name, size_t cap)
{
    char *base = dg_memory_new(cap); /* touched: no surprise at a step */

    if (base == NULL)
        return dg_fail(DG_ENOMEM, "arena %s: cannot reserve %zu bytes", name,
                       cap);
    *a = (Arena) { .base = base, .cap = cap, .name = name };
    return DG_OK;
}

void dg_arena_init_over(Arena *a, const char *name, void *base, size_t cap)
{
    *a = (Arena) { .base = base, .cap = cap, .name = name };
}

void dg_arena_fini(Arena *a)
{
    free(a->base);
    *a = (Arena) { 0 };
}

void *dg_arena_take(Arena *a, size_t bytes)
{
    const size_t at = (a->used + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);

    if (bytes > a->cap - at || at > a->cap) {
        dg_fail(DG_ENOMEM, "arena %s: %zu bytes wanted with %zu of %zu in use",
                a->name, bytes, a->used, a->cap);
        a->peak = SIZE_MAX;
        return NULL;
    }
    a->used = at + bytes;
    if (a->used > a->peak)
        a->peak = a->used;
    return a->base != NULL ? a->base + at : NULL;
}

int dg_arena_full(const Arena *a)
{
    return a->peak == SIZE_MAX;
}

size_t dg_arena_mark(const Arena *a)
{
    return a->used;
}

void dg_arena_release(Arena *a, size_t mark)
{
    a->used = mark;
}
