/* A warp's tensor-core instructions, lane by lane; see cuda/mma.h. */
#include "cuda_runtime.h"

#include <stdio.h>
#include <stdlib.h>

#include <vector>

namespace
{

/* a copy to shared memory that its thread has not waited for */
struct Copy {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
};

/* each thread's own of a block, and how many all have */
thread_local std::vector<Copy> under_way[1024];
thread_local size_t num_under_way;

void copy(void *to, const void *from, size_t bytes)
{
    if ((uintptr_t)to % bytes != 0 || (uintptr_t)from % bytes != 0) {
        fprintf(stderr, "cuda emulation: a copy that is not aligned\n");
        abort();
    }
    memset(to, 0xff, bytes);
    under_way[threadIdx.x].push_back(Copy { to, from, bytes });
    ++num_under_way;
}

const unsigned whole = 0xffffffffu;

float half_of(uint32_t pair, int second)
{
    const uint32_t bits = second ? pair & 0xffff0000u : pair << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

uint32_t rounded(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* every lane's two registers */
void exchange(uint64_t all[32], uint32_t low, uint32_t high)
{
    memcpy(all, cuda_emulation_exchange(whole, (uint64_t)high << 32 | low),
           32 * sizeof *all);
}

uint32_t word(uint64_t x, int high)
{
    return (uint32_t)(high ? x >> 32 : x);
}

/* Sums stay as they are where one side has nothing but zeros, the other only
 * numbers: most of small tests' padded tiles. */
struct Halves {
    bool nothing, finite;
};

Halves halves(const uint64_t *x, const uint64_t *y)
{
    const uint64_t exponent = 0x7f807f807f807f80, ulp = 0x0080008000800080;
    uint64_t any = 0, full = 0;

    for (int i = 0; i < 4; ++i) {
        any |= x[i] | y[i];
        full |= ((x[i] & exponent) + ulp) | ((y[i] & exponent) + ulp);
    }
    return { (any & ~0x8000800080008000) == 0,
             (full & 0x8000800080008000) == 0 };
}

void load(uint32_t r[4], const uint32_t *place, bool across)
{
    const int lane = cuda_emulation_lane();
    uint64_t all[32];

    memcpy(all, cuda_emulation_exchange(whole, (uint64_t)(uintptr_t)place),
           sizeof all);
    for (int j = 0; j < 4; ++j) {
        uint16_t half[2];
        for (int e = 0; e < 2; ++e) {
            const int row = across ? lane % 4 * 2 + e : lane / 4;
            const int column = across ? lane / 4 : lane % 4 * 2 + e;
            half[e] = ((const uint16_t *)(uintptr_t)all[8 * j + row])[column];
        }
        memcpy(&r[j], half, sizeof half);
    }
}

} // namespace

uint32_t mma_pair(float first, float second)
{
    return rounded(first) | rounded(second) << 16;
}

void mma_load(uint32_t r[4], const uint32_t *place)
{
    load(r, place, false);
}

void mma_load_across(uint32_t r[4], const uint32_t *place)
{
    load(r, place, true);
}

void mma_add(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    const int lane = cuda_emulation_lane();
    uint64_t low[32], high[32], right[32];

    exchange(low, a[0], a[1]);
    exchange(high, a[2], a[3]);
    exchange(right, b0, b1);
    const Halves rows = halves(low + lane / 4 * 4, high + lane / 4 * 4);
    const Halves columns =
        halves(right + lane % 4 * 8, right + lane % 4 * 8 + 4);
    if ((rows.nothing && columns.finite) || (columns.nothing && rows.finite))
        return;
    float x[2][16], y[2][16];
    for (int k = 0; k < 16; ++k) {
        const uint64_t row = (k < 8 ? low : high)[lane / 4 * 4 + k % 8 / 2];
        for (int i = 0; i < 2; ++i) {
            const uint64_t column = right[(lane % 4 * 2 + i) * 4 + k % 8 / 2];
            x[i][k] = half_of(word(row, i), k % 2);
            y[i][k] = half_of(word(column, k / 8), k % 2);
        }
    }
    float sum[4] = { d[0], d[1], d[2], d[3] };
    for (int k = 0; k < 16; ++k)
        for (int i = 0; i < 4; ++i)
            sum[i] = fmaf(x[i / 2][k], y[i % 2][k], sum[i]);
    memcpy(d, sum, sizeof sum);
}

float mma_power(float x)
{
    const float y = exp2f(x);

    return y < 0x1p-126f ? 0.0f : y;
}

void mma_copy(uint32_t *to, const uint32_t *from, int there)
{
    copy(to, there ? from : nullptr, 16);
}

void mma_copy_float(float *to, const float *from, int there)
{
    copy(to, there ? from : nullptr, sizeof *to);
}

void mma_copies_wait(void)
{
    std::vector<Copy> *mine = &under_way[threadIdx.x];

    for (const Copy &c : *mine)
        if (c.from != nullptr)
            memcpy(c.to, c.from, c.bytes);
        else
            memset(c.to, 0, c.bytes);
    num_under_way -= mine->size();
    mine->clear();
}

int cuda_emulation_copies_left(void)
{
    if (num_under_way == 0)
        return 0;
    for (std::vector<Copy> &of : under_way)
        of.clear();
    num_under_way = 0;
    return 1;
}
