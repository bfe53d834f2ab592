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

uint32_t rounded(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

float widened(uint32_t half)
{
    const uint32_t bits = half << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

enum { ROWS = 16, COLUMNS = 8, INNER = 16, WARPS = 32 };

/* What the lanes of a warp hand in, and have back: who is the first to go on
 * multiplies for all of them. */
struct Product {
    uint32_t a[32][4], b[32][2];
    float d[32][4];
    int read; /* by so many lanes */
};

thread_local Product products[WARPS];

/* Each sum in the order of k. */
void multiply(Product *p)
{
    float x[INNER][ROWS], y[INNER][COLUMNS], sum[ROWS][COLUMNS];

    for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / 4, at = lane % 4 * 2;
        for (int i = 0; i < 8; ++i) {
            const uint32_t pair = p->a[lane][i / 2];
            const int k = at + i % 2 + i / 4 * 8, row = group + i / 2 % 2 * 8;
            x[k][row] = widened(i % 2 ? pair >> 16 : pair & 0xffff);
        }
        for (int i = 0; i < 4; ++i) {
            const uint32_t pair = p->b[lane][i / 2];
            y[at + i % 2 + i / 2 * 8][group] =
                widened(i % 2 ? pair >> 16 : pair & 0xffff);
            sum[group + i / 2 * 8][at + i % 2] = p->d[lane][i];
        }
    }
    for (int row = 0; row < ROWS; ++row)
        for (int k = 0; k < INNER; ++k)
            for (int j = 0; j < COLUMNS; ++j)
                sum[row][j] = fmaf(x[k][row], y[k][j], sum[row][j]);
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            p->d[lane][i] = sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void load(uint32_t r[4], const uint32_t *place, bool across)
{
    const int lane = cuda_emulation_lane();
    const uint64_t *all =
        cuda_emulation_exchange(whole, (uint64_t)(uintptr_t)place);

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
    Product *p = &products[cuda_emulation_warp()];

    memcpy(p->a[lane], a, sizeof p->a[lane]);
    memcpy(p->d[lane], d, sizeof p->d[lane]);
    p->b[lane][0] = b0;
    p->b[lane][1] = b1;
    __syncwarp();
    if (p->read == 0)
        multiply(p);
    p->read = (p->read + 1) % 32;
    memcpy(d, p->d[lane], sizeof p->d[lane]);
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
