#ifndef CUDA_EMULATION_BF16_H
#define CUDA_EMULATION_BF16_H
/*
 * bfloat16 as a storage type: the upper half of a float32. Narrowing rounds
 * to nearest, ties to even, and gives 0x7fff for NaN, as sm_80 and later do.
 */
#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x)
{
    const uint32_t u = (uint32_t)x.bits << 16;
    float value;

    memcpy(&value, &u, sizeof value);
    return value;
}

inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return __nv_bfloat16 { 0x7fff };
    return __nv_bfloat16 { (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16) };
}

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162 { __float2bfloat16_rn(x), __float2bfloat16_rn(y) };
}

#endif
