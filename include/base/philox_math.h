#ifndef DG_BASE_PHILOX_MATH_H
#define DG_BASE_PHILOX_MATH_H
/*
 * The arithmetic behind base/philox.h, one block at a time: words from a
 * counter, normals from words. Host and device compile this same text without
 * contraction, each its own way of DG_INLINE, so that both give the same
 * bits. Division and square root are IEEE's.
 */
#include "base/float_bits.h"

DG_INLINE void dg_philox_round(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    const uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
    const uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
    const uint32_t hi0 = (uint32_t)(p0 >> 32), lo0 = (uint32_t)p0;
    const uint32_t hi1 = (uint32_t)(p1 >> 32), lo1 = (uint32_t)p1;

    c[0] = hi1 ^ c[1] ^ k0;
    c[1] = lo1;
    c[2] = hi0 ^ c[3] ^ k1;
    c[3] = lo0;
}

DG_INLINE void dg_philox_10(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int r = 0; r < 10; r++) {
        dg_philox_round(c, k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/*
 * log(u) for 2^-32 <= u <= 1: u = m 2^e with m in [sqrt(1/2), sqrt(2)),
 * log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716. The series is cut
 * after s^9/9, which leaves 2e-9 relative. ln2's high part has 15 bits, so
 * that e * LN2_HI is exact.
 */
DG_INLINE float dg_log_unit(float u)
{
    const float ln2_hi = 0.693145751953125f, ln2_lo = 1.42860677e-6f;
    const uint32_t b = dg_bits_of_float(u);
    const int32_t e = (int32_t)(b - 0x3f3504f3u) >> 23;
    const float m = dg_float_of_bits(b - ((uint32_t)e << 23));
    const float s = (m - 1.0f) / (m + 1.0f);
    const float w = s * s;
    float p = 0.111111111f;

    p = p * w + 0.142857143f;
    p = p * w + 0.2f;
    p = p * w + 0.333333333f;
    p = p * w * s;
    p = p + s;
    return (float)e * ln2_lo + 2.0f * p + (float)e * ln2_hi;
}

/*
 * Two words to two normals: r = sqrt(-2 log u), angle = 2 pi v / 2^32.
 * u has 31 bits and is never 0, so |z| < 6.67. The angle's quadrant is split
 * off as an integer, so the polynomials only see [-pi/4, pi/4).
 */
DG_INLINE void dg_box_muller(float *z0, float *z1, uint32_t a, uint32_t v)
{
    const float u = ((float)(int32_t)(a >> 1) + 0.5f) * 4.65661287e-10f;
    const float r = sqrtf(-2.0f * dg_log_unit(u));
    const uint32_t q = (v + 0x20000000u) >> 30;
    const float x = (float)(int32_t)(v - (q << 30)) * 1.46291808e-9f;
    const float w = x * x;
    float s = 2.75573192e-6f, c = 2.48015873e-5f;

    s = s * w - 1.98412698e-4f;
    s = s * w + 8.33333333e-3f;
    s = s * w - 1.66666667e-1f;
    s = s * w * x + x;
    c = c * w - 1.38888889e-3f;
    c = c * w + 4.16666667e-2f;
    c = c * w - 0.5f;
    c = c * w + 1.0f;
    const float cs = (q & 1) ? s : c, sn = (q & 1) ? c : s;
    const uint32_t sign_c = ((q + 1) & 2) << 30, sign_s = (q & 2) << 30;
    *z0 = r * dg_float_of_bits(dg_bits_of_float(cs) ^ sign_c);
    *z1 = r * dg_float_of_bits(dg_bits_of_float(sn) ^ sign_s);
}

#endif
