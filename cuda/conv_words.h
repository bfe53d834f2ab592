#ifndef DG_CUDA_CONV_WORDS_H
#define DG_CUDA_CONV_WORDS_H
/*
 * Weights of 3 x 3 taps as the tensor cores take them, from rows of shared
 * memory that have them as they stand in the files: nine taps of a channel in a
 * row. BACK: for the gradient of the map. Internal to cuda.
 */
#include "conv_mma.h"
#include "mma.h"

enum {
    BLOCK = 128,  /* threads */
    COLUMNS = 64, /* channels of the result, of a warp */
    CHUNK = 16    /* channels summed over that pass by together */
};

/* how weights lie in shared memory: BACK: a row per channel summed over, else
 * per channel of the result */
template <int PATCHES, bool BACK> struct Weights {
    enum {
        BN = BLOCK / WARP / PATCHES * COLUMNS, /* channels of the block */
        ROWS = BACK ? (int)CHUNK : (int)BN,
        WIDTH = TAPS * (BACK ? (int)BN : (int)CHUNK),
        UNITS = WIDTH / 8,
        PITCH = WIDTH / 2 + 4, /* an odd multiple of 4: see Words */
        PAIRS = ROWS * PITCH
    };
};

/* a chunk of the weights, on its way to shared memory */
template <int PATCHES, bool BACK>
__device__ inline void weights_copy(const Windows &v, int first, int chunk,
                                    Pair *to)
{
    enum { UNITS = Weights<PATCHES, BACK>::UNITS };
    const int row = BACK ? chunk * CHUNK : first;
    const int column = TAPS * (BACK ? first : chunk * CHUNK);
    const int rows = (BACK ? v.in : v.out) - row;
    const int width = TAPS * (BACK ? v.out : v.in);
    const int units = (width - column) / 8, pitch = width / 2;
    const Pair *from = reinterpret_cast<const Pair *>(v.weight) +
                       ((int64_t)row * width + column) / 2;
    const unsigned thread = (unsigned)thread_here();

#pragma unroll
    for (int j = 0; j < Weights<PATCHES, BACK>::ROWS * UNITS / BLOCK; ++j) {
        const unsigned i = thread + (unsigned)(j * BLOCK);
        const int r = (int)(i / UNITS), unit = (int)(i % UNITS);
        const int there = r < rows && unit < units;
        mma_copy(to + 4 * ((int)i + r),
                 from + (there ? r * pitch + 4 * unit : 0), there);
    }
}

/*
 * Words of weights that a lane holds: of the halves of 16 places, word t / 2 of
 * nine in 'low' and word (9 + t) / 2 in 'high', of which one is new per tap.
 * A place is a pair of neighbouring channels c; forward, of column 8 n + lane /
 * 4 and channels 2 (lane % 4) + 8 h: low has the first channel's tap, high the
 * second's. Back, of a channel c and a pair of columns, 16 i + 2 (lane / 4):
 * low has the first column's tap, high the second's; the places of two
 * successive c give a pair. The lanes' words lie in different banks: 9 is odd,
 * and PITCH is 4 times an odd number.
 */
typedef struct Words {
    Pair low[16], high[16];
} Words;

template <int PATCHES, bool BACK> __device__ inline int lane_at(int warp_column)
{
    const int lane = (int)threadIdx.x % WARP;
    enum { PITCH = Weights<PATCHES, BACK>::PITCH };

    return BACK
               ? lane % 4 * 2 * PITCH + lane / 4 * TAPS + warp_column * TAPS / 2
               : (warp_column + lane / 4) * PITCH + lane % 4 * TAPS;
}

/* where place i of them begins, from the lane's first */
template <int PATCHES, bool BACK> __device__ inline int place_at(int i)
{
    enum { PITCH = Weights<PATCHES, BACK>::PITCH };

    return BACK ? i / 4 * 8 * TAPS + (i / 2 % 2 * 8 + i % 2) * PITCH
                : i / 2 * 8 * PITCH + i % 2 * 4 * TAPS;
}

/* (What depends on t stays outside of the loops: gcc 12 makes gathers with an
 * empty mask of the other form, in the emulation.) */
template <int PATCHES, bool BACK>
__device__ inline void words_load(Words *w, const Pair *at, int t)
{
    if (t % 2 == 0)
#pragma unroll
        for (int i = 0; i < 16; ++i)
            w->low[i] = at[place_at<PATCHES, BACK>(i) + t / 2];
    if (t % 2 == 1 || t == 0)
#pragma unroll
        for (int i = 0; i < 16; ++i)
            w->high[i] = at[place_at<PATCHES, BACK>(i) + (TAPS + t) / 2];
}

/* halves of x and y, upper or lower, side by side */
__device__ inline Pair halves(Pair x, int x_upper, Pair y, int y_upper)
{
    return (x_upper ? x >> 16 : x & 0xffffu) |
           (y_upper ? y & 0xffff0000u : y << 16);
}

/* B's register h of the n-th eight columns, for tap t */
template <bool BACK>
__device__ inline Pair words_pair(const Words &w, int n, int h, int t)
{
    const int i = BACK ? (n / 2 * 2 + h) * 2 : 2 * n + h;
    const Pair *chain = n % 2 ? w.high : w.low;

    if (!BACK)
        return halves(w.low[i], t % 2 == 1, w.high[i], t % 2 == 0);
    const int upper = t % 2 != n % 2;
    return halves(chain[i], upper, chain[i + 1], upper);
}

#endif
