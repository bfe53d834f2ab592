#include "base/philox.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

/*
 * LANES counters go through every stage side by side in plain loops, which
 * the compiler turns into vector code. Each lane's arithmetic is the same
 * sequence of IEEE operations as the scalar form, so the width of the
 * vectors, the tail and the device leave no trace in the bits.
 */
enum { LANES = 16 };

static inline void philox_round(uint32_t c[4], uint32_t k0, uint32_t k1)
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

static inline void philox_10(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int r = 0; r < 10; r++) {
        philox_round(c, k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static inline float float_of_bits(uint32_t b)
{
    float f;

    memcpy(&f, &b, sizeof f);
    return f;
}

static inline uint32_t bits_of_float(float f)
{
    uint32_t b;

    memcpy(&b, &f, sizeof b);
    return b;
}

/*
 * log(u) for 2^-32 <= u <= 1: u = m 2^e with m in [sqrt(1/2), sqrt(2)),
 * log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716. The series is cut
 * after s^9/9, which leaves 2e-9 relative. ln2's high part has 15 bits, so
 * that e * LN2_HI is exact.
 */
static inline float log_unit(float u)
{
    const float ln2_hi = 0.693145751953125f, ln2_lo = 1.42860677e-6f;
    const uint32_t b = bits_of_float(u);
    const int32_t e = (int32_t)(b - 0x3f3504f3u) >> 23;
    const float m = float_of_bits(b - ((uint32_t)e << 23));
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
static inline void box_muller(float *z0, float *z1, uint32_t a, uint32_t v)
{
    const float u = ((float)(int32_t)(a >> 1) + 0.5f) * 4.65661287e-10f;
    const float r = sqrtf(-2.0f * log_unit(u));
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
    *z0 = r * float_of_bits(bits_of_float(cs) ^ sign_c);
    *z1 = r * float_of_bits(bits_of_float(sn) ^ sign_s);
}

/* LANES consecutive blocks, one lane each. */
static void words_of_blocks(uint32_t w[4][LANES], const uint32_t ctr[4],
                            const uint32_t key[2])
{
    const uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    const uint32_t k0 = key[0], k1 = key[1];

#pragma omp simd
    for (int i = 0; i < LANES; i++) {
        uint32_t c[4] = { c0 + (uint32_t)i, c1, c2, c3 };

        philox_10(c, k0, k1);
        w[0][i] = c[0];
        w[1][i] = c[1];
        w[2][i] = c[2];
        w[3][i] = c[3];
    }
}

static void normal_blocks(float out[4 * LANES], const uint32_t ctr[4],
                          const uint32_t key[2])
{
    uint32_t w[4][LANES];
    float z[4][LANES];

    words_of_blocks(w, ctr, key);
#pragma omp simd
    for (int i = 0; i < LANES; i++) {
        box_muller(&z[0][i], &z[1][i], w[0][i], w[1][i]);
        box_muller(&z[2][i], &z[3][i], w[2][i], w[3][i]);
    }
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = z[j][i];
}

/* An odd multiple of 2^-24: exact in float, never 0 or 1. */
static void uniform_blocks(float out[4 * LANES], const uint32_t ctr[4],
                           const uint32_t key[2])
{
    uint32_t w[4][LANES];

    words_of_blocks(w, ctr, key);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++)
            out[4 * i + j] =
                (float)(int32_t)((w[j][i] >> 8) | 1u) * 5.96046448e-8f;
}

/* A coordinate that does not fit would silently repeat another's numbers. */
static void counter_of(uint32_t ctr[4], uint32_t key[2], const RngKey *k)
{
    if (k->sample >= 1u << 20 || k->step >= 1u << 12)
        dg_panic("random numbers: sample %u or step %u beyond its counter",
                 (unsigned)k->sample, (unsigned)k->step);
    ctr[0] = 0;
    ctr[1] = k->sample << 12 | k->step;
    ctr[2] = k->prompt;
    ctr[3] = k->iteration;
    key[0] = (uint32_t)k->seed ^ (uint32_t)k->purpose;
    key[1] = (uint32_t)(k->seed >> 32);
}

typedef void Filler(float out[4 * LANES], const uint32_t ctr[4],
                    const uint32_t key[2]);

static void fill(float *out, int64_t first, int64_t num, const RngKey *k,
                 Filler *blocks)
{
    const int64_t last = first + num;
    uint32_t ctr[4], key[2];
    float part[4 * LANES];

    counter_of(ctr, key, k);
    if (first < 0 || num < 0 || last > (int64_t)4 << 32)
        dg_panic("random numbers: elements %lld + %lld beyond the stream",
                 (long long)first, (long long)num);
    for (int64_t at = first; at < last;) {
        const int64_t skip = at % 4;
        int64_t n = 4 * LANES - skip;

        ctr[0] = (uint32_t)(at / 4);
        if (n > last - at)
            n = last - at;
        if (n == 4 * LANES) {
            blocks(out + (at - first), ctr, key);
        } else {
            blocks(part, ctr, key);
            memcpy(out + (at - first), part + skip, (size_t)n * sizeof *part);
        }
        at += n;
    }
}

void dg_philox4x32(uint32_t out[4], const uint32_t counter[4],
                   const uint32_t key[2])
{
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] };

    philox_10(c, key[0], key[1]);
    memcpy(out, c, sizeof c);
}

void dg_rng_block(uint32_t out[4], const RngKey *k, uint32_t block)
{
    uint32_t ctr[4], key[2];

    counter_of(ctr, key, k);
    ctr[0] = block;
    dg_philox4x32(out, ctr, key);
}

void dg_rng_normal(float *out, int64_t first, int64_t num, const RngKey *k)
{
    fill(out, first, num, k, normal_blocks);
}

void dg_rng_uniform(float *out, int64_t first, int64_t num, const RngKey *k)
{
    fill(out, first, num, k, uniform_blocks);
}

uint32_t dg_rng_below(uint32_t n, int64_t element, const RngKey *k)
{
    uint32_t w[4];
    const int at = (int)(element % 2) * 2;

    if (element < 0 || element >= (int64_t)2 << 32)
        dg_panic("random numbers: element %lld beyond the stream",
                 (long long)element);
    dg_rng_block(w, k, (uint32_t)(element / 2));
    return (uint32_t)(((uint64_t)w[at] * n + ((uint64_t)w[at + 1] * n >> 32)) >>
                      32);
}

void dg_rng_permutation(int32_t *out, int32_t n, const RngKey *k)
{
    for (int32_t i = 0; i < n; i++)
        out[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        const int32_t j = (int32_t)dg_rng_below((uint32_t)i + 1, i, k);
        const int32_t kept = out[i];

        out[i] = out[j];
        out[j] = kept;
    }
}
