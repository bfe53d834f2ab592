#include "base/philox.h"

#include "base/error.h"
#include "base/philox_math.h"

#include <string.h>

/*
 * LANES counters go through every stage side by side in plain loops, which
 * the compiler turns into vector code. Each lane's arithmetic is the same
 * sequence of IEEE operations as the scalar form, so the width of the
 * vectors, the tail and the device leave no trace in the bits.
 */
enum { LANES = 16 };

/* LANES consecutive blocks, one lane each. */
static void words_of_blocks(uint32_t w[4][LANES], const uint32_t ctr[4],
                            const uint32_t key[2])
{
    const uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    const uint32_t k0 = key[0], k1 = key[1];

#pragma omp simd
    for (int i = 0; i < LANES; i++) {
        uint32_t c[4] = { c0 + (uint32_t)i, c1, c2, c3 };

        dg_philox_10(c, k0, k1);
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
        dg_box_muller(&z[0][i], &z[1][i], w[0][i], w[1][i]);
        dg_box_muller(&z[2][i], &z[3][i], w[2][i], w[3][i]);
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
void dg_rng_counter(uint32_t ctr[4], uint32_t key[2], const RngKey *k)
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

    dg_rng_counter(ctr, key, k);
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

    dg_philox_10(c, key[0], key[1]);
    memcpy(out, c, sizeof c);
}

void dg_rng_block(uint32_t out[4], const RngKey *k, uint32_t block)
{
    uint32_t ctr[4], key[2];

    dg_rng_counter(ctr, key, k);
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
