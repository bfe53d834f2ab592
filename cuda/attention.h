#ifndef DG_CUDA_ATTENTION_H
#define DG_CUDA_ATTENTION_H
/*
 * What forward and backward of attention share. A block has 256 threads and
 * works on tiles of 64 queries and 64 keys; thread (tx, ty) = (t % 16, t / 16)
 * owns scores of rows 4 ty .. 4 ty + 3 and columns tx, tx + 16 .., and
 * likewise 4 rows and up to 8 columns of a result. Heads wider than CHUNK are
 * summed chunk by chunk, and each chunk of a result is a block of its own, so
 * that any head size fits the same registers and shared memory.
 * A tile's bits depend on its own rows and keys alone. Internal to cuda.
 */
#include "device.h"

#include "stream.h"

enum {
    TILE = 64,
    CHUNK = 128,
    PITCH = CHUNK + 1, /* odd: rows fall into different banks */
    SCORE_PITCH = TILE + 1,
    SIDE = 4,                         /* rows of a thread */
    ACROSS = TILE / SIDE,             /* threads side by side */
    SCORES = TILE / ACROSS,           /* columns of scores of a thread */
    COLUMNS = CHUNK / ACROSS,         /* columns of results of a thread */
    OPERAND_FLOATS = TILE * PITCH,    /* of one operand in shared memory */
    SCORE_FLOATS = TILE * SCORE_PITCH /* of one tile of scores */
};

#define ATT_LOG2E 1.44269504f
#define ATT_LN2   0.693147181f

/* Where a block works; rows beyond m, n are empty. */
typedef struct Tile {
    int64_t b, h, i0, j0;
    int m, n;       /* queries, keys */
    int64_t column; /* first column of this block's chunk of the result */
    int width;      /* of the chunk */
} Tile;

__device__ inline int tile_x(void)
{
    return (int)threadIdx.x % ACROSS;
}
__device__ inline int tile_row(void)
{
    return (int)threadIdx.x / ACROSS * SIDE;
}

/* blockIdx = (tile, chunk), head, sample; returns the tile's number */
__device__ inline int64_t tile_place(Tile *t, const AttentionArgs &a)
{
    const int64_t chunks = (a.d + CHUNK - 1) / CHUNK;

    t->b = blockIdx.z;
    t->h = blockIdx.y;
    t->column = blockIdx.x % chunks * CHUNK;
    t->width = at_most(a.d - t->column, CHUNK);
    return blockIdx.x / chunks;
}

/* first element of a row of this head: [batch, s, heads d] */
__device__ inline int64_t head_at(const AttentionArgs &a, const Tile &t,
                                  int64_t s, int64_t row)
{
    return (t.b * s + row) * a.heads * a.d + t.h * a.d;
}

/* rows x width of src to a tile in shared memory, empty rows as 0 */
template <typename T>
__device__ inline void tile_load(float *tile, const float *src, int64_t ld,
                                 int rows, int width)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;

    for (int r = warp; r < TILE; r += WARPS)
        for (int c = lane; c < width; c += WARP)
            tile[r * PITCH + c] = r < rows ? get<T>(src, r * ld + c) : 0.0f;
}

/* s += x y^T over width columns of two tiles in shared memory */
__device__ inline void tile_scores(float s[SIDE][SCORES], const float *x,
                                   const float *y, int width)
{
    const float *xr = x + tile_row() * PITCH, *yr = y + tile_x() * PITCH;

    for (int l = 0; l < width; ++l) {
        float xv[SIDE], yv[SCORES];
#pragma unroll
        for (int i = 0; i < SIDE; ++i)
            xv[i] = xr[i * PITCH + l];
#pragma unroll
        for (int j = 0; j < SCORES; ++j)
            yv[j] = yr[j * ACROSS * PITCH + l];
#pragma unroll
        for (int i = 0; i < SIDE; ++i)
#pragma unroll
            for (int j = 0; j < SCORES; ++j)
                s[i][j] = fmaf(xv[i], yv[j], s[i][j]);
    }
}

/* acc += p x: element (row, l) of p at p[row row_step + l l_step], l < n */
__device__ inline void tile_product(float acc[SIDE][COLUMNS], const float *p,
                                    int row_step, int l_step, const float *x,
                                    int n, int width)
{
    const float *pr = p + tile_row() * row_step, *xr = x + tile_x();

    for (int l = 0; l < n; ++l) {
        float pv[SIDE];
#pragma unroll
        for (int i = 0; i < SIDE; ++i)
            pv[i] = pr[i * row_step + l * l_step];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (c * ACROSS < width) {
                const float xv = xr[l * PITCH + c * ACROSS];
#pragma unroll
                for (int i = 0; i < SIDE; ++i)
                    acc[i][c] = fmaf(pv[i], xv, acc[i][c]);
            }
        }
    }
}

/* rows of a result, scaled, to the block's chunk of columns */
template <typename T>
__device__ inline void tile_store(float *to, int64_t ld, const Tile &t,
                                  const float acc[SIDE][COLUMNS], int rows,
                                  const float scale[SIDE])
{
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            const int row = tile_row() + i, column = tile_x() + c * ACROSS;
            if (row < rows && column < t.width)
                put<T>(to, row * ld + t.column + column, acc[i][c] * scale[i]);
        }
}

__device__ inline void clear_scores(float s[SIDE][SCORES])
{
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int j = 0; j < SCORES; ++j)
            s[i][j] = 0.0f;
}

__device__ inline void clear_result(float acc[SIDE][COLUMNS])
{
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            acc[i][c] = 0.0f;
}

/* Two operands of a product over all columns of a head. */
typedef struct Operands {
    const float *x, *y; /* first rows */
    int rows_x, rows_y;
} Operands;

/* s = x y^T over all of d, through two tiles of shared memory. Begins with a
 * barrier: what was in the tiles may be overwritten. */
template <typename T>
__device__ inline void head_scores(float s[SIDE][SCORES],
                                   const AttentionArgs &a, const Operands &o,
                                   float *x, float *y)
{
    const int64_t ld = a.heads * a.d;

    clear_scores(s);
    for (int64_t l = 0; l < a.d; l += CHUNK) {
        const int width = at_most(a.d - l, CHUNK);
        __syncthreads();
        tile_load<T>(x, past<T>(o.x, l), ld, o.rows_x, width);
        tile_load<T>(y, past<T>(o.y, l), ld, o.rows_y, width);
        __syncthreads();
        tile_scores(s, x, y, width);
    }
}

/* does query i of the tile see key j of the tile? */
__device__ inline int tile_sees(const AttentionArgs &a, const Tile &t, int i,
                                int j)
{
    return i < t.m && j < t.n && (!a.causal || t.j0 + j <= t.i0 + i);
}

__device__ inline float tile_bias(const AttentionArgs &a, const Tile &t, int i,
                                  int j)
{
    return get(a.bias, (t.h * a.sq + t.i0 + i) * a.sk + t.j0 + j);
}

/* a score in units of log2; s: q k */
__device__ inline float tile_score(const AttentionArgs &a, const Tile &t, int i,
                                   int j, float s)
{
    s = s * (a.scale * ATT_LOG2E);
    return a.bias != NULL ? fmaf(tile_bias(a, t, i, j), ATT_LOG2E, s) : s;
}

#endif
