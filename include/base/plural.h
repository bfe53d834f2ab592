#ifndef DG_BASE_PLURAL_H
#define DG_BASE_PLURAL_H
/* Numbers of things in messages: "1 rank", "2 ranks". */
#include <stdint.h>

/** What follows the thing's name: "s" unless it is one. */
static inline const char *dg_plural(int64_t num)
{
    return num == 1 ? "" : "s";
}

#endif
