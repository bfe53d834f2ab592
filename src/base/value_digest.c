#include "base/value_digest.h"

#include <string.h>

enum { BLOCK = 1024 };

/* A well mixed number of each number (the finalizer of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* In 16-bit weights the lower half is 0: the upper one is folded into it, or the
 * lowest bits of all products would be. */
static uint64_t sum_up(const uint32_t *key, const float *values, int64_t num)
{
    uint64_t sum = 0;

    for (int64_t i = 0; i < num; i++) {
        uint32_t x;

        memcpy(&x, values + i, sizeof x);
        x ^= x >> 16;
        sum += (uint64_t)key[i] * x;
    }
    return sum;
}

uint64_t dg_value_digest(int64_t first, const float *values, int64_t num)
{
    uint32_t key[BLOCK];
    uint64_t sum = 0;

    for (int i = 0; i < BLOCK; i++)
        key[i] = (uint32_t)(mix((uint64_t)i) >> 32) | 1;
    while (num > 0) {
        const int64_t at = first % BLOCK;
        const int64_t n = num < BLOCK - at ? num : BLOCK - at;
        const uint64_t block = ~(uint64_t)(first / BLOCK);

        sum += (mix(block) | 1) * sum_up(key + at, values, n);
        first += n;
        values += n;
        num -= n;
    }
    return sum;
}
