#ifndef DG_CUDA_ATTENTION_MMA_TILES_H
#define DG_CUDA_ATTENTION_MMA_TILES_H
/*
 * What forward and backward of attention on tensor cores share. q, k, v and
 * the rest of the stored values are bfloat16. A block has four warps, each with
 * 16 rows of what the block keeps; heads are padded with zeros to 16 D16.
 * A block's bits depend on its own sample, head and rows alone. Internal to
 * cuda.
 */
#include "attention.h"
#include "mma.h"

#include <type_traits>

extern "C" {
#include "cuda/attention_mma.h"
}

/** Whether the kernels are made for these; see cuda/attention_mma.h. */
int dg_cuda_attention_mma_fits(const AttentionArgs *a);

enum {
    MMA_THREADS = 128,
    MMA_KEPT = 64, /* rows a block keeps */
    MMA_HALF = 32, /* rows that pass by in backward */
    MMA_MOST_D = 160
};

/* pairs from row to row of a tile in shared memory: rows 16 bytes apart in the
 * banks, so that eight of them are read at once */
template <int D16> __host__ __device__ constexpr int mma_pitch(void)
{
    return 8 * D16 + 4;
}

/* 16 bytes, loaded and stored at once */
struct alignas(16) Quad {
    Pair pair[4];
};

/* a place among values stored as bfloat16, declared float */
__device__ inline const Pair *stored(const float *p, int64_t element)
{
    return reinterpret_cast<const Pair *>(p) + element / 2;
}
__device__ inline Pair *stored(float *p, int64_t element)
{
    return reinterpret_cast<Pair *>(p) + element / 2;
}

__device__ inline int mma_warp_row(void)
{
    return (int)threadIdx.x / WARP * 16;
}
/* row and first column of a lane in D; see mma.h */
__device__ inline int lane_row(void)
{
    return (int)threadIdx.x % WARP / 4;
}
__device__ inline int lane_column(void)
{
    return (int)threadIdx.x % 4 * 2;
}

/* 'all' rows of a head to a tile, those from 'rows' on and columns from d on
 * as 0; ld: elements from row to row */
template <int D16>
__device__ inline void mma_rows(Pair *tile, const Pair *from, int64_t ld,
                                int rows, int all, int64_t d)
{
    enum { QUADS = 2 * D16 };

    for (int i = (int)threadIdx.x; i < all * QUADS; i += MMA_THREADS) {
        const int row = i / QUADS, c = i % QUADS;
        Quad x = { { 0, 0, 0, 0 } };

        if (row < rows && 8 * c < d)
            x = *reinterpret_cast<const Quad *>(from + row * (ld / 2) + 4 * c);
        *reinterpret_cast<Quad *>(tile + row * mma_pitch<D16>() + 4 * c) = x;
    }
}

/* The block's queries, no keys yet. Grid (query tiles, heads, batch). */
__device__ inline Tile mma_queries(const AttentionArgs &a)
{
    Tile t = {};

    t.b = blockIdx.z;
    t.h = blockIdx.y;
    t.i0 = (int64_t)blockIdx.x * MMA_KEPT;
    t.m = at_most(a.sq - t.i0, MMA_KEPT);
    return t;
}

/* 16 kept rows of this warp, as A over all of d */
template <int D16>
__device__ inline void mma_keep(Pair a[D16][4], const Pair *tile)
{
#pragma unroll
    for (int k = 0; k < D16; ++k)
        mma_load_a(a[k], tile, mma_pitch<D16>(), mma_warp_row(), 16 * k);
}

template <int N> __device__ inline void mma_clear(float d[N][4])
{
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            d[n][i] = 0.0f;
}

/* s += kept rows by the rows of a tile, 8 N of them */
template <int D16, int N>
__device__ inline void mma_scores(float s[N][4], const Pair a[D16][4],
                                  const Pair *tile)
{
    Pair b[4];

#pragma unroll
    for (int k = 0; k < D16; ++k)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            mma_load_b(b, tile, mma_pitch<D16>(), 8 * n, 16 * k);
            mma_add(s[n], a[k], b[0], b[1]);
            mma_add(s[n + 1], a[k], b[2], b[3]);
        }
}

/* the same with the kept rows in a tile of their own */
template <int D16, int N>
__device__ inline void mma_scores_of(float s[N][4], const Pair *kept,
                                     const Pair *tile)
{
    Pair a[4], b[4];

#pragma unroll
    for (int k = 0; k < D16; ++k) {
        mma_load_a(a, kept, mma_pitch<D16>(), mma_warp_row(), 16 * k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            mma_load_b(b, tile, mma_pitch<D16>(), 8 * n, 16 * k);
            mma_add(s[n], a, b[0], b[1]);
            mma_add(s[n + 1], a, b[2], b[3]);
        }
    }
}

/* o += w tile: w is [16, 8 N], rounded to bfloat16, the tile [8 N, d] */
template <int D16, int N>
__device__ inline void mma_weighted(float o[2 * D16][4], const float w[N][4],
                                    const Pair *tile)
{
    Pair a[4], b[4];

#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        const float *lo = w[2 * k], *hi = w[2 * k + 1];
        a[0] = mma_pair(lo[0], lo[1]);
        a[1] = mma_pair(lo[2], lo[3]);
        a[2] = mma_pair(hi[0], hi[1]);
        a[3] = mma_pair(hi[2], hi[3]);
#pragma unroll
        for (int n = 0; n < D16; ++n) {
            mma_load_b_across(b, tile, mma_pitch<D16>(), 16 * k, 16 * n);
            mma_add(o[2 * n], a, b[0], b[1]);
            mma_add(o[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/* The warp's rows of a result, each times its own of two factors; 'first': the
 * head's first element of the block's first row. */
template <int D16>
__device__ inline void mma_store(float *to, int64_t first, int64_t ld,
                                 const float o[2 * D16][4], int rows, int64_t d,
                                 const float factor[2])
{
#pragma unroll
    for (int n = 0; n < 2 * D16; ++n)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = mma_warp_row() + lane_row() + 8 * r;
            if (row < rows && 8 * n < d)
                *stored(to, first + row * ld + 8 * n + lane_column()) =
                    mma_pair(o[n][2 * r] * factor[r],
                             o[n][2 * r + 1] * factor[r]);
        }
}

/* Calls go with the D16 that heads of d elements are padded to, as a constant
 * of a type of its own; d <= MMA_MOST_D. */
template <typename Go> static inline void mma_by_head(int64_t d, Go go)
{
    if (d <= 64)
        go(std::integral_constant<int, 4>());
    else if (d <= 80)
        go(std::integral_constant<int, 5>());
    else if (d <= 128)
        go(std::integral_constant<int, 8>());
    else
        go(std::integral_constant<int, 10>());
}

#endif
