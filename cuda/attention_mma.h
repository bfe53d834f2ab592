#ifndef DG_CUDA_ATTENTION_MMA_TILES_H
#define DG_CUDA_ATTENTION_MMA_TILES_H
/*
 * What forward and backward of attention on tensor cores share. q, k, v and
 * the rest of the stored values are bfloat16. A block has four warps, each with
 * M times 16 rows of what the block keeps, so that what a warp brings from
 * shared memory of the rows that pass by serves M products. Those come in steps
 * of 32 rows, through two stages of shared memory: one is on its way while the
 * other is multiplied. Heads are padded with zeros to 16 D16.
 * A row's bits depend on its own sample and head alone. Internal to cuda.
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
    MMA_KEPT = 64, /* rows a block keeps, times M */
    MMA_STEP = 32, /* rows that pass by at once, */
    MMA_N = 4,     /* as columns of so many products side by side */
    MMA_MOST_D = 160
};

/* pairs from row to row of a tile in shared memory: rows 16 bytes apart in the
 * banks, so that eight of them are read at once */
template <int D16> __host__ __device__ constexpr int mma_pitch(void)
{
    return 8 * D16 + 4;
}

/* Blocks that a processor of 64 Ki registers is to have at a time, where a warp
 * holds so many tiles [16, 16] of a result. */
__host__ __device__ constexpr int mma_blocks(int tiles)
{
    return tiles > 8 ? 2 : tiles > 4 ? 3 : 4;
}

/* What a block has of a sample's head. */
struct HeadRows {
    int64_t q, k; /* its first element of the first query, the first key */
    int64_t rows; /* its first query among rows [batch, heads, sq] */
    int ld;       /* elements from row to row */
    int first;    /* row the block keeps first */
    int kept;     /* rows it has to keep, at most KEPT */
};

/* Grid (tiles, heads, batch); of s rows a block keeps KEPT. */
template <int KEPT>
__device__ inline HeadRows mma_head(const AttentionArgs &a, int64_t s)
{
    const int64_t ld = a.heads * a.d, b = blockIdx.z, h = blockIdx.y;
    const int first = (int)blockIdx.x * KEPT;

    return HeadRows { b * a.sq * ld + h * a.d,
                      b * a.sk * ld + h * a.d,
                      (b * a.heads + h) * a.sq,
                      (int)ld,
                      first,
                      at_most(s - first, KEPT) };
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

/* the kept row that a thread's warp has first, and the thread itself */
template <int M> __device__ inline int warp_row(int thread)
{
    return thread / WARP * (16 * M);
}
template <int M> __device__ inline int lane_row(int thread)
{
    return warp_row<M>(thread) + thread % WARP / 4;
}
/* a thread's first column in D; see mma.h */
__device__ inline int lane_column(int thread)
{
    return thread % 4 * 2;
}

/* ALL rows of a head on their way to a tile, those from 'rows' on and columns
 * from d on as 0; ld: elements from row to row. Few registers matter more here
 * than few instructions. */
template <int D16, int ALL>
__device__ inline void mma_rows(Pair *tile, const Pair *from, int ld, int rows,
                                int d)
{
    enum { QUADS = 2 * D16, AT_ONCE = MMA_THREADS / QUADS };
    const int thread = thread_here(), c = thread % QUADS;
    const int row = thread / QUADS;

    if (row >= AT_ONCE)
        return;
    rows = 8 * c < d ? rows - row : 0;
    tile += row * mma_pitch<D16>() + 4 * c;
    from += row * (ld / 2) + 4 * c;
#pragma unroll
    for (int i = 0; i < ALL; i += AT_ONCE) {
        if (ALL % AT_ONCE == 0 || row + i < ALL)
            mma_copy(tile + i * mma_pitch<D16>(), from, i < rows);
        from += AT_ONCE * (ld / 2);
    }
}

/* the kept rows of a thread's warp, as A over all of d */
template <int D16, int M>
__device__ inline void mma_keep(Pair a[M][D16][4], const Pair *tile, int thread)
{
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int k = 0; k < D16; ++k)
            mma_load_a(a[m][k], thread % WARP, tile, mma_pitch<D16>(),
                       warp_row<M>(thread) + 16 * m, 16 * k);
}

template <int M, int N> __device__ inline void mma_clear(float d[M][N][4])
{
#pragma unroll
    for (int i = 0; i < M * N * 4; ++i)
        d[i / (4 * N)][i / 4 % N][i % 4] = 0.0f;
}

/* s += kept rows by the rows of a tile, MMA_STEP of them */
template <int D16, int M>
__device__ inline void mma_scores(float s[M][MMA_N][4], const Pair a[M][D16][4],
                                  const Pair *tile, int lane)
{
    Pair b[4];

#pragma unroll
    for (int k = 0; k < D16; ++k)
#pragma unroll
        for (int n = 0; n < MMA_N; n += 2) {
            mma_load_b(b, lane, tile, mma_pitch<D16>(), 8 * n, 16 * k);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma_add(s[m][n], a[m][k], b[0], b[1]);
                mma_add(s[m][n + 1], a[m][k], b[2], b[3]);
            }
        }
}

/* the same with the kept rows in a tile of their own */
template <int D16, int M>
__device__ inline void mma_scores_of(float s[M][MMA_N][4], const Pair *kept,
                                     const Pair *tile)
{
    const int lane = (int)threadIdx.x % WARP;
    Pair a[M][4], b[4];

#pragma unroll
    for (int k = 0; k < D16; ++k) {
#pragma unroll
        for (int m = 0; m < M; ++m)
            mma_load_a(a[m], lane, kept, mma_pitch<D16>(),
                       warp_row<M>((int)threadIdx.x) + 16 * m, 16 * k);
#pragma unroll
        for (int n = 0; n < MMA_N; n += 2) {
            mma_load_b(b, lane, tile, mma_pitch<D16>(), 8 * n, 16 * k);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma_add(s[m][n], a[m], b[0], b[1]);
                mma_add(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* o += w tile: w is [16 M, MMA_STEP], rounded to bfloat16, the tile
 * [MMA_STEP, d]. What is multiplied next is loaded beforehand. */
template <int D16, int M>
__device__ inline void mma_weighted(float o[M][2 * D16][4],
                                    const float w[M][MMA_N][4],
                                    const Pair *tile, int lane)
{
    Pair a[MMA_N / 2][M][4], b[2][4];

    mma_load_b_across(b[0], lane, tile, mma_pitch<D16>(), 0, 0);
#pragma unroll
    for (int k = 0; k < MMA_N / 2; ++k)
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float *two = &w[m][2 * k + i / 2][i % 2 * 2];
                a[k][m][i] = mma_pair(two[0], two[1]);
            }
#pragma unroll
    for (int i = 0; i < MMA_N / 2 * D16; ++i) {
        const int k = i / D16, n = i % D16, next = i + 1;
        if (next < MMA_N / 2 * D16)
            mma_load_b_across(b[next % 2], lane, tile, mma_pitch<D16>(),
                              next / D16 * 16, next % D16 * 16);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            mma_add(o[m][2 * n], a[k][m], b[i % 2][0], b[i % 2][1]);
            mma_add(o[m][2 * n + 1], a[k][m], b[i % 2][2], b[i % 2][3]);
        }
    }
}

/* Scores that are not to be seen become -inf: those with visible(i, j) false
 * for i rows below the first kept one of the lane and j rows below its first
 * passing one. */
template <int M, typename Visible>
__device__ inline void mma_mask(float s[M][MMA_N][4], Visible visible)
{
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < MMA_N; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (!visible(16 * m + e / 2 * 8, 8 * n + e % 2))
                    s[m][n][e] = -INFINITY;
}

/* A step of keys from j on: whether some are beyond the last one, or behind a
 * query that the block keeps. */
__device__ inline bool mma_at_edge(const AttentionArgs &a, const HeadRows &t,
                                   int j)
{
    return j + MMA_STEP > a.sk || (a.causal && j + MMA_STEP - 1 > t.first);
}
/* the mask then */
template <int M>
__device__ inline void mma_mask_keys(float s[M][MMA_N][4],
                                     const AttentionArgs &a, const HeadRows &t,
                                     int j)
{
    const int thread = thread_here();
    const int key = j + lane_column(thread), left = (int)a.sk - key;
    const int below = t.first + lane_row<M>(thread) - key;

    mma_mask<M>(s, [&](int i, int n) {
        return n < left && (!a.causal || n <= below + i);
    });
}
/* of causal attention where the block keeps keys, a step of queries from i on */
template <int M>
__device__ inline void mma_mask_queries(float s[M][MMA_N][4], const HeadRows &t,
                                        int i, int thread)
{
    const int behind = i + lane_column(thread) - t.first - lane_row<M>(thread);

    mma_mask<M>(s, [&](int key, int n) { return key <= behind + n; });
}

/* The rows that threads' warps have of a result, times factor[m][half], by way
 * of a tile; 'to': the head's first row that the block keeps. Begins with a
 * barrier: the tile may be overwritten. */
template <int D16, int M>
__device__ inline void mma_store(Pair *to, Pair *tile, const HeadRows &t,
                                 const float o[M][2 * D16][4], int d,
                                 const float factor[M][2], int thread)
{
    enum { QUADS = 2 * D16 };
    const int first = warp_row<M>(thread);
    Pair *const mine =
        tile + lane_row<M>(thread) * mma_pitch<D16>() + lane_column(thread) / 2;

    __syncthreads();
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < 2 * D16; ++n)
#pragma unroll
            for (int r = 0; r < 2; ++r)
                mine[(16 * m + 8 * r) * mma_pitch<D16>() + 4 * n] =
                    mma_pair(o[m][n][2 * r] * factor[m][r],
                             o[m][n][2 * r + 1] * factor[m][r]);
    __syncwarp();
    for (int i = thread % WARP; i < 16 * M * QUADS; i += WARP) {
        const int row = first + i / QUADS, c = i % QUADS;
        if (row < t.kept && 8 * c < d)
            *reinterpret_cast<Quad *>(to + (int64_t)row * (t.ld / 2) + 4 * c) =
                *reinterpret_cast<const Quad *>(tile + row * mma_pitch<D16>() +
                                                4 * c);
    }
}

/* Whether a sample's shape has enough blocks of M = 2 for a large GPU's 132
 * processors; of M = 1 there are twice as many. */
#ifndef DG_ATTENTION_TALL_BLOCKS
#define DG_ATTENTION_TALL_BLOCKS 132
#endif
static inline int mma_tall(int64_t heads, int64_t rows)
{
    return heads * ((rows + 2 * MMA_KEPT - 1) / (2 * MMA_KEPT)) >=
           DG_ATTENTION_TALL_BLOCKS;
}

/* blocks of a kernel that keeps rows of s, KEPT each */
template <int KEPT>
static inline dim3 mma_grid(const AttentionArgs *a, int64_t s)
{
    return dim3((unsigned)((s + KEPT - 1) / KEPT), (unsigned)a->heads,
                (unsigned)a->batch);
}

/* Calls go with the D16 that heads of d elements are padded to, as a constant
 * of a type of its own; d <= MMA_MOST_D. */
template <typename Go> static inline void mma_by_head(int64_t d, Go go)
{
    if (d <= 48)
        go(std::integral_constant<int, 3>());
    else if (d <= 64)
        go(std::integral_constant<int, 4>());
    else if (d <= 80)
        go(std::integral_constant<int, 5>());
    else if (d <= 128)
        go(std::integral_constant<int, 8>());
    else
        go(std::integral_constant<int, 10>());
}

#endif
