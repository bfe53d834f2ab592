#include "base/memory.h"

#include "base/error.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 256, HUGE_PAGE = 1 << 21, SPARE_MB = 128 };

void *dg_memory_new(size_t bytes)
{
    const size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    const size_t room = ((bytes > 0 ? bytes : 1) + unit - 1) & ~(unit - 1);
    void *p = room >= bytes ? aligned_alloc(unit, room) : NULL;

    if (p == NULL)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (unit == HUGE_PAGE) /* a wish: refused where the system has none */
        (void)madvise(p, room, MADV_HUGEPAGE);
#endif
    memset(p, 0, room);
    return p;
}

void dg_memory_drop(void *p, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)p + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)p + bytes) / page * page;

    if (end > from)
        (void)madvise((void *)from, end - from, MADV_DONTNEED);
}

void dg_memory_take(void *p, size_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = (uintptr_t)p / page * page;

    (void)madvise((void *)from, (uintptr_t)p + bytes - from,
                  MADV_POPULATE_WRITE);
#else
    (void)p;
    (void)bytes;
#endif
}

int dg_memory_spare(void)
{
    void *volatile p = malloc((size_t)SPARE_MB << 20); /* not to be left out */

    if (p == NULL)
        return dg_fail(DG_ENOMEM,
                       "%d MiB beside what is reserved, for libraries",
                       (int)SPARE_MB);
    free(p);
    return DG_OK;
}
