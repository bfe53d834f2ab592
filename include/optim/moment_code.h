#ifndef DG_OPTIM_MOMENT_CODE_H
#define DG_OPTIM_MOMENT_CODE_H
/*
 * The codes of optim/adamw8.h, a value at a time. Host and device compile this
 * same text, each its own way of DG_INLINE, so that both give the same bits.
 *
 * A value stands to its block's scale as x = |value| / scale <= 1, and x is a
 * float of three bits behind its first: its bits are those of code c, shifted,
 *
 *   bits of x(c) = (c + base) << 20,   x(top) = 1,   0 stands for 0.
 *
 * A first moment has a sign and 7 bits, top 127: 15.7 octaves down to
 * 1.25 2^-16. A second has 8 bits, top 255: 31.7 octaves, down to 1.25 2^-32,
 * whose root is that of the first. Neighbours are a part of 1/15 to 1/8 of the
 * smaller one away, whatever the value's size.
 */
#include "base/float_bits.h"

enum {
    DG_MOMENT_SHIFT = 20,
    DG_MOMENT_TOP_M = 127,
    DG_MOMENT_TOP_V = 255,
    DG_MOMENT_ONE = 1016, /* of 1.0f, shifted */
    DG_MOMENT_NEAREST = 1 << (DG_MOMENT_SHIFT - 1)
};

/* Below these a block's scale does not go, so that no code's value is a
 * subnormal number; the roots of second moments as small as that are below
 * any eps. */
#define DG_MOMENT_FLOOR_M 0x1p-100f
#define DG_MOMENT_FLOOR_V 0x1p-90f

/* x of code c >= 0 */
DG_INLINE float dg_moment_level(uint32_t c, uint32_t top)
{
    const uint32_t bits = (c + (DG_MOMENT_ONE - top)) << DG_MOMENT_SHIFT;

    return dg_float_of_bits(c > 0 ? bits : 0);
}

/*
 * The code of a neighbour of x: of the one above where dither, of 0 .. 2^20 - 1,
 * is at least 2^20 less the way that x has come to it, in 2^-20 of the way
 * between both; with DG_MOMENT_NEAREST of the nearer one. Below the least x(c) a
 * first moment has 0 and that as neighbours. A second one has 0 for 0 alone:
 * none is lost that a first is divided by.
 */
DG_INLINE uint32_t dg_moment_code_v(float x, uint32_t dither)
{
    const uint32_t top = DG_MOMENT_TOP_V, base = DG_MOMENT_ONE - top;
    const uint32_t at = (dg_bits_of_float(x) + dither) >> DG_MOMENT_SHIFT;
    const uint32_t c = at > base ? at - base : 1u;

    return x > 0.0f ? (c < top ? c : top) : 0u;
}

DG_INLINE uint32_t dg_moment_code_m(float x, uint32_t dither)
{
    const uint32_t top = DG_MOMENT_TOP_M, base = DG_MOMENT_ONE - top;
    const float least = 1.25f * 0x1p-16f;
    const uint32_t at = (dg_bits_of_float(x) + dither) >> DG_MOMENT_SHIFT;
    const uint32_t c = at - base < top ? at - base : top;
    /* exact: at most 21 bits times 3 */
    const float way =
        (float)((int32_t)(1u << DG_MOMENT_SHIFT) - (int32_t)dither);
    const uint32_t below = x >= way * (least * 0x1p-20f) ? 1u : 0u;

    return x < least ? below : c;
}

/* Of 8 bits: a first moment's code and sign, as it is stored. */
DG_INLINE float dg_moment_m(uint32_t stored, float scale)
{
    const float x = dg_moment_level(stored & 127u, DG_MOMENT_TOP_M) * scale;

    return stored & 128u ? -x : x;
}
DG_INLINE float dg_moment_v(uint32_t stored, float scale)
{
    return dg_moment_level(stored, DG_MOMENT_TOP_V) * scale;
}
DG_INLINE uint32_t dg_moment_store_m(float m, float scale, uint32_t dither)
{
    const uint32_t c = dg_moment_code_m(fabsf(m) / scale, dither);

    return c > 0 && m < 0.0f ? c | 128u : c; /* one zero */
}
DG_INLINE uint32_t dg_moment_store_v(float v, float scale, uint32_t dither)
{
    return dg_moment_code_v(v / scale, dither);
}

/* What element i is rounded by in update n: from update to update, and from
 * element to element, multiples of irrational numbers, so that each part of
 * 0 .. 2^20 - 1 is met as often as its length asks for. */
DG_INLINE uint32_t dg_moment_dither_m(uint32_t i, uint32_t n)
{
    return (i * 0x9E3779B1u + n * 0x91E10DA5u) >> (32 - DG_MOMENT_SHIFT);
}
DG_INLINE uint32_t dg_moment_dither_v(uint32_t i, uint32_t n)
{
    return (i * 0xC13FA9A9u + n * 0x9E3779B9u) >> (32 - DG_MOMENT_SHIFT);
}

#endif
