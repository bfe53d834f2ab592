#ifndef DG_BASE_FLOAT_BITS_H
#define DG_BASE_FLOAT_BITS_H
/*
 * A float and its bit pattern. One text for host and device, each with its own
 * way of DG_INLINE.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef DG_INLINE
#define DG_INLINE static inline
#endif

DG_INLINE float dg_float_of_bits(uint32_t b)
{
    float f;

    memcpy(&f, &b, sizeof f);
    return f;
}

DG_INLINE uint32_t dg_bits_of_float(float f)
{
    uint32_t b;

    memcpy(&b, &f, sizeof b);
    return b;
}

/** The float nearest to x among bfloat16's values, ties to even; a NaN stays
 *  as it is. */
DG_INLINE float dg_round_bf16(float x)
{
    const uint32_t b = dg_bits_of_float(x);

    if (isnan(x))
        return x;
    return dg_float_of_bits((b + 0x7fffu + (b >> 16 & 1u)) & 0xffff0000u);
}

#endif
