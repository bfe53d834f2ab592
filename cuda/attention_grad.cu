#include "kernels.h"

#include "attention.h"

extern "C" {
#include "cuda/attention_cudnn.h"
#include "cuda/attention_mma.h"
}

/*
 * Backward of attention, without atomics and without scratch:
 *   P = exp(scale q k^T + bias - lse),  dP = dO v^T
 *   dS = P (dP - delta),  delta = sum_d o dO
 *   dv = P^T dO;  dq = scale dS k;  dk = scale dS^T q;  dbias += dS
 * One kernel keeps 64 keys and lets query tiles pass by (dk, dv), one keeps
 * 64 queries and lets key tiles pass by (dq), one keeps a tile and lets the
 * samples pass by (dbias). Each forms P and dS again: two products more than
 * with a shared dS, but every sum has one owner and one order.
 *
 * Blocks of 256 = THREADS. Shared: two operands [64, 129], P and dS [64, 65].
 */
enum { GRAD_FLOATS = 2 * OPERAND_FLOATS + 2 * SCORE_FLOATS };

typedef struct Shared {
    float *x, *y, *p, *ds;
} Shared;

__device__ inline Shared shared_of(float *base)
{
    Shared m;

    m.x = base;
    m.y = m.x + OPERAND_FLOATS;
    m.p = m.y + OPERAND_FLOATS;
    m.ds = m.p + SCORE_FLOATS;
    return m;
}

/* delta of query row i of the tile, the same in the 16 threads of the row */
template <typename T>
__device__ inline float row_delta(const AttentionArgs &a, const Tile &t, int i)
{
    float sum = 0.0f;

    if (i < t.m) {
        const int64_t at = head_at(a, t, a.sq, t.i0 + i);
        for (int64_t l = tile_x(); l < a.d; l += ACROSS)
            sum = fmaf(get<T>(a.o, at + l), get<T>(a.d_o, at + l), sum);
    }
    return half_warp_sum(sum);
}

/* P and dS of a tile in registers; both 0 where a query does not see a key */
template <typename T>
__device__ inline void tile_grads(float p[SIDE][SCORES], float ds[SIDE][SCORES],
                                  const AttentionArgs &a, const Tile &t,
                                  const Shared &m)
{
    const int64_t at_q = head_at(a, t, a.sq, t.i0);
    const int64_t at_k = head_at(a, t, a.sk, t.j0);
    const Operands qk = { past<T>(a.q, at_q), past<T>(a.k, at_k), t.m, t.n };
    const Operands ov = { past<T>(a.d_o, at_q), past<T>(a.v, at_k), t.m, t.n };

    head_scores<T>(p, a, qk, m.x, m.y);
    head_scores<T>(ds, a, ov, m.x, m.y);
#pragma unroll
    for (int i = 0; i < SIDE; ++i) {
        const int row = tile_row() + i;
        const float delta = row_delta<T>(a, t, row);
        const float lse =
            row < t.m ? a.lse[(t.b * a.heads + t.h) * a.sq + t.i0 + row] : 0.0f;
#pragma unroll
        for (int j = 0; j < SCORES; ++j) {
            const int column = tile_x() + j * ACROSS;
            const int sees = tile_sees(a, t, row, column);
            const float e = sees
                                ? exp2f(tile_score(a, t, row, column, p[i][j]) -
                                        lse * ATT_LOG2E)
                                : 0.0f;
            p[i][j] = e;
            ds[i][j] = sees ? e * (ds[i][j] - delta) : 0.0f;
        }
    }
}

__device__ inline void scores_store(float *to, const float s[SIDE][SCORES])
{
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int j = 0; j < SCORES; ++j)
            to[(tile_row() + i) * SCORE_PITCH + tile_x() + j * ACROSS] =
                s[i][j];
}

/* Grid (key tiles x chunks of d, heads, batch). */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    attention_keys_grad_kernel(AttentionArgs a)
{
    const Shared m = shared_of(dg_cuda_shared);
    const int64_t ld = a.heads * a.d;
    const float one[SIDE] = { 1.0f, 1.0f, 1.0f, 1.0f };
    const float scale[SIDE] = { a.scale, a.scale, a.scale, a.scale };
    float p[SIDE][SCORES], ds[SIDE][SCORES];
    float dk[SIDE][COLUMNS], dv[SIDE][COLUMNS];
    Tile t;

    t.j0 = tile_place(&t, a) * TILE;
    t.n = at_most(a.sk - t.j0, TILE);
    clear_result(dk);
    clear_result(dv);
    for (t.i0 = 0; t.i0 < a.sq; t.i0 += TILE) {
        t.m = at_most(a.sq - t.i0, TILE);
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            continue;
        tile_grads<T>(p, ds, a, t, m);
        scores_store(m.p, p);
        scores_store(m.ds, ds);
        const int64_t at = head_at(a, t, a.sq, t.i0) + t.column;
        __syncthreads();
        tile_load<T>(m.x, past<T>(a.d_o, at), ld, t.m, t.width);
        tile_load<T>(m.y, past<T>(a.q, at), ld, t.m, t.width);
        __syncthreads();
        tile_product(dv, m.p, 1, SCORE_PITCH, m.x, t.m, t.width);
        tile_product(dk, m.ds, 1, SCORE_PITCH, m.y, t.m, t.width);
    }
    const int64_t to = head_at(a, t, a.sk, t.j0);
    tile_store<T>(past<T>(a.dv, to), ld, t, dv, t.n, one);
    tile_store<T>(past<T>(a.dk, to), ld, t, dk, t.n, scale);
}

/* Grid (query tiles x chunks of d, heads, batch). */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    attention_queries_grad_kernel(AttentionArgs a)
{
    const Shared m = shared_of(dg_cuda_shared);
    const int64_t ld = a.heads * a.d;
    const float scale[SIDE] = { a.scale, a.scale, a.scale, a.scale };
    float p[SIDE][SCORES], ds[SIDE][SCORES], dq[SIDE][COLUMNS];
    Tile t;

    t.i0 = tile_place(&t, a) * TILE;
    t.m = at_most(a.sq - t.i0, TILE);
    clear_result(dq);
    for (t.j0 = 0; t.j0 < a.sk; t.j0 += TILE) {
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            break;
        t.n = at_most(a.sk - t.j0, TILE);
        tile_grads<T>(p, ds, a, t, m);
        scores_store(m.ds, ds);
        __syncthreads();
        tile_load<T>(m.y, past<T>(a.k, head_at(a, t, a.sk, t.j0) + t.column),
                     ld, t.n, t.width);
        __syncthreads();
        tile_product(dq, m.ds, SCORE_PITCH, 1, m.y, t.n, t.width);
    }
    tile_store<T>(past<T>(a.dq, head_at(a, t, a.sq, t.i0)), ld, t, dq, t.m,
                  scale);
}

/* Grid (query tiles, key tiles, heads): the samples one after the other. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
    attention_bias_grad_kernel(AttentionArgs a)
{
    const Shared m = shared_of(dg_cuda_shared);
    float p[SIDE][SCORES], ds[SIDE][SCORES], sum[SIDE][SCORES];
    Tile t = {};

    t.h = blockIdx.z;
    t.i0 = (int64_t)blockIdx.x * TILE;
    t.j0 = (int64_t)blockIdx.y * TILE;
    t.m = at_most(a.sq - t.i0, TILE);
    t.n = at_most(a.sk - t.j0, TILE);
    float *dbias = a.dbias + (t.h * a.sq + t.i0) * a.sk + t.j0;
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int j = 0; j < SCORES; ++j) {
            const int row = tile_row() + i, column = tile_x() + j * ACROSS;
            sum[i][j] = row < t.m && column < t.n
                            ? get(dbias, row * a.sk + column)
                            : 0.0f;
        }
    for (t.b = 0; t.b < a.batch; ++t.b) {
        tile_grads<T>(p, ds, a, t, m);
#pragma unroll
        for (int i = 0; i < SIDE; ++i)
#pragma unroll
            for (int j = 0; j < SCORES; ++j)
                sum[i][j] += ds[i][j];
    }
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
#pragma unroll
        for (int j = 0; j < SCORES; ++j) {
            const int row = tile_row() + i, column = tile_x() + j * ACROSS;
            if (row < t.m && column < t.n)
                put(dbias, row * a.sk + column, sum[i][j]);
        }
}

template <typename T> void dg_cuda_attention_grad(const AttentionArgs *a)
{
    if (sizeof(T) == 2 &&
        (dg_cuda_attention_cudnn_grad(a) || dg_cuda_attention_mma_grad(a)))
        return;
    const unsigned tiles_q = (unsigned)((a->sq + TILE - 1) / TILE);
    const unsigned tiles_k = (unsigned)((a->sk + TILE - 1) / TILE);
    const unsigned chunks = (unsigned)((a->d + CHUNK - 1) / CHUNK);
    const unsigned heads = (unsigned)a->heads, batch = (unsigned)a->batch;
    const size_t bytes = GRAD_FLOATS * sizeof(float);

    DG_LAUNCH(attention_keys_grad_kernel<T>,
              dim3(tiles_k * chunks, heads, batch), THREADS, bytes, *a);
    DG_LAUNCH(attention_queries_grad_kernel<T>,
              dim3(tiles_q * chunks, heads, batch), THREADS, bytes, *a);
    if (a->dbias != NULL)
        DG_LAUNCH(attention_bias_grad_kernel<T>, dim3(tiles_q, tiles_k, heads),
                  THREADS, bytes, *a);
}

DG_BOTH(dg_cuda_attention_grad, AttentionArgs)
