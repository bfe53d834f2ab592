/*
 * What the lanes of a warp do together. Sections "shfl.sync", "vote.sync",
 * "bar.warp.sync", "ldmatrix", "mma" and "Matrix Fragments for mma.m16n8k16
 * with floating point type" of the PTX ISA.
 */
#include "ptx.h"

#include <math.h>
#include <string.h>

namespace ptx
{

namespace
{

enum { UP, DOWN, BUTTERFLY, INDEX };

float value(uint32_t bits)
{
    return __builtin_bit_cast(float, bits);
}

uint32_t bits_of(float x)
{
    return __builtin_bit_cast(uint32_t, x);
}

/* lane .. reads from lane *j; false: it is out of range, and lane keeps its
 * own. "shfl.sync", Semantics: c holds a bound and a mask of segments. */
bool source_lane(int mode, int lane, uint32_t b, uint32_t c, int *j)
{
    const int bval = b & 31, cval = c & 31, mask = c >> 8 & 31;
    const int most = (lane & mask) | (cval & ~mask), least = lane & mask;

    switch (mode) {
    case UP:
        *j = lane - bval;
        return *j >= most;
    case DOWN:
        *j = lane + bval;
        break;
    case BUTTERFLY:
        *j = lane ^ bval;
        break;
    default:
        *j = least | (bval & ~mask);
    }
    return *j <= most;
}

} // namespace

void run_shuffle(Warp &w, const Op &op, uint32_t lanes)
{
    const uint32_t *a = w.words(op.from[0]), *b = w.words(op.from[1]),
                   *c = w.words(op.from[2]);
    uint32_t d[LANES] = { 0 }, in_range[LANES] = { 0 };

    for (int lane = 0; lane < LANES; ++lane) {
        int j = lane;
        if (!(lanes >> lane & 1))
            continue;
        in_range[lane] = source_lane(op.mode, lane, b[lane], c[lane], &j);
        if (!in_range[lane])
            j = lane;
        if (!(lanes >> j & 1))
            fault(w, op, 1u << lane, "reads lane %d, which is not there", j);
        d[lane] = a[j];
    }
    put_words(w, op.to[0], d, lanes);
    if (op.num_to > 1)
        put_words(w, op.to[1], in_range, lanes);
}

void run_vote(Warp &w, const Op &op, uint32_t lanes)
{
    const bool all = op.mode != 0;
    bool answer = all;
    uint32_t d[LANES];

    for (int i = 0; i < LANES; ++i)
        if (lanes >> i & 1) {
            const bool yes = w.words(op.from[0])[i] & 1;
            answer = all ? answer && yes : answer || yes;
        }
    for (int i = 0; i < LANES; ++i)
        d[i] = answer;
    put_words(w, op.to[0], d, lanes);
}

void run_fence(Warp &w, const Op &, uint32_t)
{
    ++w.fences;
}

/*
 * "ldmatrix": lanes 8 j .. 8 j + 7 give the addresses of the eight rows of
 * matrix j, 16 bytes each. Of matrix j a lane's register j gets row lane / 4,
 * elements 2 (lane % 4) and the next one; with .trans the same of the matrix
 * read as columns.
 */
void run_tiles(Warp &w, const Op &op, uint32_t lanes)
{
    uint16_t tile[4][8][8];
    uint32_t d[LANES];

    for (int lane = 0; lane < LANES; ++lane) {
        const uint64_t address = address_of(w, op, lane, 0);
        const uint64_t at = address - SHARED_BASE;
        if (address < SHARED_BASE || at + 16 > w.block->shared_bytes ||
            address % 16 != 0)
            fault(w, op, 1u << lane,
                  "a row at byte %lld of shared memory: not aligned, or "
                  "outside of %u",
                  (long long)at, w.block->shared_bytes);
        shared_read(w, MANY, (uint32_t)at, 16);
        memcpy(tile[lane / 8][lane % 8], &w.block->shared[at], 16);
    }
    for (int j = 0; j < 4; ++j) {
        for (int lane = 0; lane < LANES; ++lane) {
            const int row = lane / 4, first = lane % 4 * 2;
            const uint16_t low =
                op.mode ? tile[j][first][row] : tile[j][row][first];
            const uint16_t high =
                op.mode ? tile[j][first + 1][row] : tile[j][row][first + 1];
            d[lane] = (uint32_t)high << 16 | low;
        }
        put_words(w, op.to[j], d, lanes);
    }
}

namespace
{

/*
 * How tensor cores add, as measured (Fasi, Higham, Mikaitis, Pranesh,
 * "Numerical behavior of NVIDIA tensor cores", 2021): products are exact; those
 * of a step and the sum so far are brought to the largest exponent among them,
 * what is below is cut off, and so is the result. Steps of 8, as on A100, with
 * one bit more than a float has: the coarser of what was seen.
 */
float add_cut(float sum, const float *x, const float *y, int stride)
{
    double p[9];
    int top = -1000;
    double all = 0;

    p[8] = sum;
    for (int k = 0; k < 8; ++k)
        p[k] = (double)x[k] * y[k * stride];
    for (int k = 0; k < 9; ++k) {
        int e;
        if (!(fabs(p[k]) < INFINITY))
            return (float)(all + p[k]);
        if (p[k] == 0)
            continue;
        frexp(p[k], &e);
        top = e > top ? e : top;
    }
    const double unit = ldexp(1.0, top - 25);
    for (int k = 0; k < 9; ++k)
        all += trunc(p[k] / unit) * unit;
    const float r = (float)all;
    return fabs(r) > fabs(all) ? nextafterf(r, 0.0f) : r;
}

/* exactly, rounded once (but for what double rounds) */
void multiply(float d[16][8], const float a[16][16], const float b[16][8])
{
    for (int i = 0; i < 16; ++i) {
        double sum[8];
        for (int j = 0; j < 8; ++j)
            sum[j] = d[i][j];
        for (int k = 0; k < 16; ++k)
            for (int j = 0; j < 8; ++j)
                sum[j] += (double)a[i][k] * b[k][j];
        for (int j = 0; j < 8; ++j)
            d[i][j] = (float)sum[j];
    }
}

void multiply_cut(float d[16][8], const float a[16][16], const float b[16][8])
{
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j)
            for (int k = 0; k < 16; k += 8)
                d[i][j] = add_cut(d[i][j], &a[i][k], &b[k][j], 8);
}

/* the lower or upper bfloat16 of a register */
float half(uint32_t pair, int which)
{
    return value(which ? pair & 0xffff0000u : pair << 16);
}

} // namespace

/*
 * "Matrix Fragments for mma.m16n8k16", with groupID = lane >> 2 and
 * threadID_in_group = lane % 4:
 *   a0 .. a7  row groupID for i < 2 and 4 <= i < 6, else groupID + 8;
 *             column 2 threadID_in_group + (i & 1), + 8 for i >= 4
 *   b0 .. b3  row 2 threadID_in_group + (i & 1), + 8 for i >= 2;
 *             column groupID
 *   c0 .. c3  row groupID, + 8 for i >= 2; column 2 threadID_in_group + (i & 1)
 * A register holds two elements, the one of the lower number in its lower half.
 */
void run_product(Warp &w, const Op &op, uint32_t lanes)
{
    float a[16][16], b[16][8], c[16][8];
    uint32_t d[4][LANES];

    for (int lane = 0; lane < LANES; ++lane) {
        const int group = lane >> 2, thread = lane % 4;
        for (int i = 0; i < 8; ++i) {
            const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
            const int column = 2 * thread + (i & 1) + (i >= 4 ? 8 : 0);
            a[row][column] = half(w.words(op.from[i / 2])[lane], i & 1);
        }
        for (int i = 0; i < 4; ++i) {
            const int row = 2 * thread + (i & 1) + (i >= 2 ? 8 : 0);
            b[row][group] = half(w.words(op.from[4 + i / 2])[lane], i & 1);
        }
        for (int i = 0; i < 4; ++i)
            c[group + (i >= 2 ? 8 : 0)][2 * thread + (i & 1)] =
                value(w.words(op.from[6 + i])[lane]);
    }
    (w.block->rough ? multiply_cut : multiply)(c, a, b);
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 4; ++i)
            d[i][lane] = bits_of(
                c[(lane >> 2) + (i >= 2 ? 8 : 0)][2 * (lane % 4) + (i & 1)]);
    for (int i = 0; i < 4; ++i)
        put_words(w, op.to[i], d[i], lanes);
}

} // namespace ptx
