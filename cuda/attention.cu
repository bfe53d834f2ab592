#include "kernels.h"

#include "attention.h"

extern "C" {
#include "cuda/attention_cudnn.h"
#include "cuda/attention_mma.h"
}

/*
 * Online softmax: a block keeps 64 queries, key tiles pass by. Running
 * maximum and sum per row; what was summed under an older maximum is scaled
 * down when the maximum rises.
 */

/* a thread's four rows: maximum so far, sum of weights, result */
typedef struct Rows {
    float top[SIDE], sum[SIDE], o[SIDE][COLUMNS];
} Rows;

/* Scores of a key tile to weights, into p. The 16 threads of a row stand side
 * by side in half a warp. */
template <typename T>
__device__ inline void rows_weights(Rows *w, float *p, const AttentionArgs &a,
                                    const Tile &t, float s[SIDE][SCORES])
{
#pragma unroll
    for (int i = 0; i < SIDE; ++i) {
        const int row = tile_row() + i;
        float top = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int j = 0; j < SCORES; ++j) {
            const int column = tile_x() + j * ACROSS;
            s[i][j] = tile_sees(a, t, row, column)
                          ? tile_score(a, t, row, column, s[i][j])
                          : -INFINITY;
            top = fmaxf(top, s[i][j]);
        }
        top = fmaxf(half_warp_max(top), w->top[i]);
        /* all keys so far at -Inf: any finite number does */
        const float base = top == -INFINITY ? 0.0f : top;
        const float fade = exp2f(w->top[i] - base);
#pragma unroll
        for (int j = 0; j < SCORES; ++j) {
            const float e = exp2f(s[i][j] - base);
            p[row * SCORE_PITCH + tile_x() + j * ACROSS] = e;
            sum += e;
        }
        w->sum[i] = w->sum[i] * fade + half_warp_sum(sum);
        w->top[i] = top;
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c)
            w->o[i][c] *= fade;
    }
}

/*
 * Grid (query tiles x chunks of d, heads, batch), block 256 = THREADS.
 * Shared: queries or keys and values [64, 129] each, weights [64, 65].
 */
template <typename T>
__global__ void __launch_bounds__(THREADS) attention_kernel(AttentionArgs a)
{
    float *x = dg_cuda_shared, *y = x + OPERAND_FLOATS, *p = y + OPERAND_FLOATS;
    const int64_t ld = a.heads * a.d;
    float s[SIDE][SCORES], scale[SIDE];
    Rows w;
    Tile t;

    t.i0 = tile_place(&t, a) * TILE;
    t.m = at_most(a.sq - t.i0, TILE);
    clear_result(w.o);
#pragma unroll
    for (int i = 0; i < SIDE; ++i) {
        w.top[i] = -INFINITY;
        w.sum[i] = 0.0f;
    }
    for (t.j0 = 0; t.j0 < a.sk; t.j0 += TILE) {
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            break;
        t.n = at_most(a.sk - t.j0, TILE);
        const Operands qk = { past<T>(a.q, head_at(a, t, a.sq, t.i0)),
                              past<T>(a.k, head_at(a, t, a.sk, t.j0)), t.m,
                              t.n };
        head_scores<T>(s, a, qk, x, y);
        rows_weights<T>(&w, p, a, t, s);
        __syncthreads();
        tile_load<T>(y, past<T>(a.v, head_at(a, t, a.sk, t.j0) + t.column), ld,
                     t.n, t.width);
        __syncthreads();
        tile_product(w.o, p, SCORE_PITCH, 1, y, t.n, t.width);
    }
#pragma unroll
    for (int i = 0; i < SIDE; ++i)
        scale[i] = w.sum[i] == 0.0f ? 0.0f : 1.0f / w.sum[i];
    tile_store<T>(past<T>(a.o, head_at(a, t, a.sq, t.i0)), ld, t, w.o, t.m,
                  scale);
    for (int i = 0; a.lse != NULL && i < SIDE; ++i)
        if (t.column == 0 && tile_x() == 0 && tile_row() + i < t.m)
            a.lse[(t.b * a.heads + t.h) * a.sq + t.i0 + tile_row() + i] =
                fmaf(w.top[i], ATT_LN2, logf(w.sum[i]));
}

size_t dg_cuda_attention_scratch(int64_t sq, int64_t sk, int64_t d,
                                 int backward)
{
    (void)sq, (void)sk, (void)d, (void)backward;
    return 0;
}

template <typename T> void dg_cuda_attention(const AttentionArgs *a)
{
    if (sizeof(T) == 2 &&
        (dg_cuda_attention_cudnn(a) || dg_cuda_attention_mma(a)))
        return;
    const int64_t tiles = (a->sq + TILE - 1) / TILE;
    const int64_t chunks = (a->d + CHUNK - 1) / CHUNK;

    DG_LAUNCH(attention_kernel<T>,
              dim3((unsigned)(tiles * chunks), (unsigned)a->heads,
                   (unsigned)a->batch),
              THREADS, (2 * OPERAND_FLOATS + SCORE_FLOATS) * sizeof(float), *a);
}

DG_BOTH(dg_cuda_attention, AttentionArgs)
