#include "attention_mma.h"

/* a lane's two rows: maximum so far, this lane's part of the sum of weights */
typedef struct MmaRows {
    float top[2], sum[2];
} MmaRows;

/* the maximum over the four lanes of a row, and the sum */
__device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* Scores of a key tile to weights; what was summed under an older maximum is
 * scaled down, as in attention.cu. */
template <int D16>
__device__ inline void mma_weights(float s[8][4], float o[2 * D16][4],
                                   MmaRows *w, const AttentionArgs &a,
                                   const Tile &t)
{
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = mma_warp_row() + lane_row() + 8 * r;
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; ++e) {
                const int column = 8 * n + lane_column() + e - 2 * r;
                s[n][e] = tile_sees(a, t, row, column)
                              ? s[n][e] * (a.scale * ATT_LOG2E)
                              : -INFINITY;
                top = fmaxf(top, s[n][e]);
            }
        top = fmaxf(quad_max(top), w->top[r]);
        const float base = top == -INFINITY ? 0.0f : top;
        const float fade = exp2f(w->top[r] - base);
        w->sum[r] *= fade;
        w->top[r] = top;
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; ++e) {
                s[n][e] = exp2f(s[n][e] - base);
                w->sum[r] += s[n][e];
            }
#pragma unroll
        for (int n = 0; n < 2 * D16; ++n) {
            o[n][2 * r] *= fade;
            o[n][2 * r + 1] *= fade;
        }
    }
}

/*
 * Grid (query tiles, heads, batch), block MMA_THREADS. A block keeps 64
 * queries in registers, tiles of 64 keys and values pass by in shared memory:
 * two tiles [64, 16 D16] of bfloat16.
 */
template <int D16>
__global__ void __launch_bounds__(MMA_THREADS)
    attention_mma_kernel(AttentionArgs a)
{
    Pair *keys = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *values = keys + MMA_KEPT * mma_pitch<D16>();
    const int64_t ld = a.heads * a.d;
    Pair q[D16][4];
    float o[2 * D16][4], s[8][4], factor[2];
    MmaRows w = { { -INFINITY, -INFINITY }, { 0.0f, 0.0f } };
    Tile t = mma_queries(a);

    mma_rows<D16>(keys, stored(a.q, head_at(a, t, a.sq, t.i0)), ld, t.m,
                  MMA_KEPT, a.d);
    __syncthreads();
    mma_keep<D16>(q, keys);
    mma_clear<2 * D16>(o);
    for (t.j0 = 0; t.j0 < a.sk; t.j0 += MMA_KEPT) {
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            break;
        t.n = at_most(a.sk - t.j0, MMA_KEPT);
        const int64_t at = head_at(a, t, a.sk, t.j0);
        __syncthreads();
        mma_rows<D16>(keys, stored(a.k, at), ld, t.n, MMA_KEPT, a.d);
        mma_rows<D16>(values, stored(a.v, at), ld, t.n, MMA_KEPT, a.d);
        __syncthreads();
        mma_clear<8>(s);
        mma_scores<D16, 8>(s, q, keys);
        mma_weights<D16>(s, o, &w, a, t);
        mma_weighted<D16, 8>(o, s, values);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = mma_warp_row() + lane_row() + 8 * r;
        const float sum = quad_sum(w.sum[r]);
        factor[r] = sum == 0.0f ? 0.0f : 1.0f / sum;
        if (a.lse != NULL && lane_column() == 0 && row < t.m)
            a.lse[(t.b * a.heads + t.h) * a.sq + t.i0 + row] =
                fmaf(w.top[r], ATT_LN2, logf(sum));
    }
    mma_store<D16>(a.o, head_at(a, t, a.sq, t.i0), ld, o, t.m, a.d, factor);
}

template <int D16> static void forward(const AttentionArgs *a)
{
    const unsigned tiles = (unsigned)((a->sq + MMA_KEPT - 1) / MMA_KEPT);

    DG_LAUNCH(attention_mma_kernel<D16>,
              dim3(tiles, (unsigned)a->heads, (unsigned)a->batch), MMA_THREADS,
              2 * MMA_KEPT * mma_pitch<D16>() * sizeof(Pair), *a);
}

int dg_cuda_attention_mma_fits(const AttentionArgs *a)
{
    const void *all[] = { a->q, a->k, a->v, a->o, a->d_o, a->dq, a->dk, a->dv };

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if ((uintptr_t)all[i] % sizeof(Quad) != 0)
            return 0;
    return a->bias == NULL && a->d % 8 == 0 && a->d <= MMA_MOST_D &&
           a->heads * a->sq <= DG_WORKSPACE_FLOATS;
}

extern "C" int dg_cuda_attention_mma(const AttentionArgs *a)
{
    if (!dg_cuda_attention_mma_fits(a))
        return 0;
    mma_by_head(a->d, [&](auto d16) { forward<d16.value>(a); });
    return 1;
}
