#include "weights/half.h"

#include "base/float_bits.h"

#include <string.h>

float dg_half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t rest = half & 0x7fffU;

    if (rest >= 0x7c00) /* Inf, NaN: payload kept at its high end */
        return dg_float_of_bits(sign | 0x7f800000U | (rest & 0x3ffU) << 13);
    if (rest >= 0x0400) /* normal: exponent bias 15 becomes 127 */
        return dg_float_of_bits(sign | ((rest << 13) + (112U << 23)));
    /* subnormal: rest * 2^-24, exact in float32 */
    return dg_float_of_bits(sign | dg_bits_of_float((float)rest * 0x1p-24F));
}

uint16_t dg_half_from_float(float x)
{
    const uint32_t u = dg_bits_of_float(x), rest = u & 0x7fffffffU;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000U);

    if (rest > 0x7f800000U) /* NaN: made quiet, so that it stays one */
        return (uint16_t)(sign | 0x7e00U | (rest >> 13 & 0x3ffU));
    if (rest >= 0x47800000U) /* 2^16 and more, Inf */
        return (uint16_t)(sign | 0x7c00U);
    if (rest >= 0x38800000U) { /* 2^-14: normal; a carry rounds up to Inf */
        const uint32_t even = rest >> 13 & 1U;

        return (uint16_t)(sign | ((rest - (112U << 23) + 0xfffU + even) >> 13));
    }
    /* Subnormal: adding 1/2 leaves the multiple of 2^-24 nearest to x, ties
       to even, in the low bits: the processor does the rounding. */
    return (uint16_t)(sign | (dg_bits_of_float(dg_float_of_bits(rest) + 0.5F) -
                              0x3f000000U));
}

float dg_bfloat_to_float(uint16_t bfloat)
{
    return dg_float_of_bits((uint32_t)bfloat << 16);
}

uint16_t dg_bfloat_from_float(float x)
{
    const uint32_t u = dg_bits_of_float(x);

    if ((u & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)(u >> 16 | 0x40U);
    return (uint16_t)((u + 0x7fffU + (u >> 16 & 1U)) >> 16);
}

/* They stand anywhere in a file. */
static uint16_t half_at(const void *in, int64_t i)
{
    uint16_t x;

    memcpy(&x, (const char *)in + i * (int64_t)sizeof x, sizeof x);
    return x;
}

void dg_half_widen(float *out, const void *in, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_half_to_float(half_at(in, i));
}

void dg_half_narrow(uint16_t *out, const float *in, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_half_from_float(in[i]);
}

void dg_bfloat_widen(float *out, const void *in, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_bfloat_to_float(half_at(in, i));
}

void dg_bfloat_narrow(uint16_t *out, const float *in, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_bfloat_from_float(in[i]);
}
