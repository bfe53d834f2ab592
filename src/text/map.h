#ifndef DG_SRC_TEXT_MAP_H
#define DG_SRC_TEXT_MAP_H
/*
 * A hash map from 64-bit keys to 32-bit values: open addressing, linear
 * probing, at most half full. A zeroed map is an empty one.
 */
#include <stddef.h>
#include <stdint.h>

#define DG_MAP_NONE UINT32_MAX /* never a value */

typedef struct Map {
    uint64_t *key; /* UINT64_MAX: free; never a key */
    uint32_t *value;
    size_t used, slots; /* slots: 0 or a power of two */
} Map;

/** Value of a key, or DG_MAP_NONE. */
uint32_t dg_map_get(const Map *m, uint64_t key);

/** Sets a key, new or there already. Errors: DG_ENOMEM. */
int dg_map_set(Map *m, uint64_t key, uint32_t value);

void dg_map_free(Map *m);

#endif
