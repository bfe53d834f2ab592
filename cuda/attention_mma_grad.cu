#include "attention_mma.h"

/*
 * Backward on tensor cores, of the form of attention_grad.cu: a kernel for
 * delta, one that keeps 64 queries (dq), one that keeps 64 keys (dk, dv). P and
 * dS are formed in each, rounded to bfloat16 where they are multiplied; every
 * sum has one owner and one order.
 */

/* delta = sum_d o dO of each query row, a warp a row: delta [batch heads, sq].
 * Blocks of THREADS; no shared memory. */
__global__ void attention_mma_delta_kernel(float *delta, AttentionArgs a)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t rows = a.batch * a.heads * a.sq;

    for (int64_t r = warp_index(); r < rows; r += warp_step()) {
        const int64_t i = r % a.sq, h = r / a.sq % a.heads;
        const int64_t at =
            (r / a.sq / a.heads * a.sq + i) * a.heads * a.d + h * a.d;
        const Pair *o = stored(a.o, at), *g = stored(a.d_o, at);
        float sum = 0.0f;
        for (int64_t c = lane; c < a.d / 2; c += WARP) {
            sum = fmaf(pair_first(o[c]), pair_first(g[c]), sum);
            sum = fmaf(pair_second(o[c]), pair_second(g[c]), sum);
        }
        sum = warp_sum(sum);
        if (lane == 0)
            delta[r] = sum;
    }
}

/* of a score's query */
struct OfQuery {
    int sees;
    float lse, delta;
};

/* Scores to P, and dP to dS; both 0 where the query does not see. of(kept,
 * passing, half): of the score of these rows of the block's two tiles; half:
 * which of the lane's two kept rows it is. */
template <typename Of>
__device__ inline void mma_grads(float s[4][4], float dp[4][4], float scale,
                                 Of of)
{
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const OfQuery q = of(mma_warp_row() + lane_row() + e / 2 * 8,
                                 8 * n + lane_column() + e % 2, e / 2);
            const float p =
                q.sees
                    ? exp2f(s[n][e] * (scale * ATT_LOG2E) - q.lse * ATT_LOG2E)
                    : 0.0f;
            dp[n][e] = q.sees ? p * (dp[n][e] - q.delta) : 0.0f;
            s[n][e] = p;
        }
}

/* Grid (query tiles, heads, batch), block MMA_THREADS. Shared: two tiles
 * [32, 16 D16] of keys and values, first one [64, 16 D16] of queries. */
template <int D16>
__global__ void __launch_bounds__(MMA_THREADS)
    attention_mma_queries_kernel(const float *delta, AttentionArgs a)
{
    Pair *keys = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *values = keys + MMA_HALF * mma_pitch<D16>();
    const int64_t ld = a.heads * a.d;
    const float scale[2] = { a.scale, a.scale };
    Pair q[D16][4], g[D16][4];
    float dq[2 * D16][4], s[4][4], dp[4][4], lse[2], mine[2];
    Tile t = mma_queries(a);

    const int64_t first = head_at(a, t, a.sq, t.i0);
    mma_rows<D16>(keys, stored(a.q, first), ld, t.m, MMA_KEPT, a.d);
    __syncthreads();
    mma_keep<D16>(q, keys);
    __syncthreads();
    mma_rows<D16>(keys, stored(a.d_o, first), ld, t.m, MMA_KEPT, a.d);
    __syncthreads();
    mma_keep<D16>(g, keys);
    mma_clear<2 * D16>(dq);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = mma_warp_row() + lane_row() + 8 * r;
        const int64_t at = (t.b * a.heads + t.h) * a.sq + t.i0 + row;
        lse[r] = row < t.m ? a.lse[at] : 0.0f;
        mine[r] = row < t.m ? delta[at] : 0.0f;
    }
    for (t.j0 = 0; t.j0 < a.sk; t.j0 += MMA_HALF) {
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            break;
        t.n = at_most(a.sk - t.j0, MMA_HALF);
        const int64_t at = head_at(a, t, a.sk, t.j0);
        __syncthreads();
        mma_rows<D16>(keys, stored(a.k, at), ld, t.n, MMA_HALF, a.d);
        mma_rows<D16>(values, stored(a.v, at), ld, t.n, MMA_HALF, a.d);
        __syncthreads();
        mma_clear<4>(s);
        mma_clear<4>(dp);
        mma_scores<D16, 4>(s, q, keys);
        mma_scores<D16, 4>(dp, g, values);
        mma_grads(s, dp, a.scale, [&](int query, int key, int half) {
            return OfQuery { tile_sees(a, t, query, key), lse[half],
                             mine[half] };
        });
        mma_weighted<D16, 4>(dq, dp, keys);
    }
    mma_store<D16>(a.dq, first, ld, dq, t.m, a.d, scale);
}

/* Grid (key tiles, heads, batch), block MMA_THREADS. Shared: keys and values
 * that are kept, [64, 16 D16] each, queries and their gradients that pass by,
 * [32, 16 D16] each. Scores stand transposed: rows are keys. */
template <int D16>
__global__ void __launch_bounds__(MMA_THREADS)
    attention_mma_keys_kernel(const float *delta, AttentionArgs a)
{
    Pair *keys = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *values = keys + MMA_KEPT * mma_pitch<D16>();
    Pair *queries = values + MMA_KEPT * mma_pitch<D16>();
    Pair *grads = queries + MMA_HALF * mma_pitch<D16>();
    const int64_t ld = a.heads * a.d;
    const float one[2] = { 1.0f, 1.0f }, scale[2] = { a.scale, a.scale };
    float dk[2 * D16][4], dv[2 * D16][4], s[4][4], dp[4][4];
    Tile t = {};

    t.b = blockIdx.z;
    t.h = blockIdx.y;
    t.j0 = (int64_t)blockIdx.x * MMA_KEPT;
    t.n = at_most(a.sk - t.j0, MMA_KEPT);
    const int64_t first = head_at(a, t, a.sk, t.j0);
    mma_rows<D16>(keys, stored(a.k, first), ld, t.n, MMA_KEPT, a.d);
    mma_rows<D16>(values, stored(a.v, first), ld, t.n, MMA_KEPT, a.d);
    mma_clear<2 * D16>(dk);
    mma_clear<2 * D16>(dv);
    for (t.i0 = 0; t.i0 < a.sq; t.i0 += MMA_HALF) {
        t.m = at_most(a.sq - t.i0, MMA_HALF);
        if (a.causal && t.j0 > t.i0 + t.m - 1)
            continue;
        const int64_t at = head_at(a, t, a.sq, t.i0);
        const int64_t rows = (t.b * a.heads + t.h) * a.sq + t.i0;
        __syncthreads();
        mma_rows<D16>(queries, stored(a.q, at), ld, t.m, MMA_HALF, a.d);
        mma_rows<D16>(grads, stored(a.d_o, at), ld, t.m, MMA_HALF, a.d);
        __syncthreads();
        mma_clear<4>(s);
        mma_clear<4>(dp);
        mma_scores_of<D16, 4>(s, keys, queries);
        mma_scores_of<D16, 4>(dp, values, grads);
        mma_grads(s, dp, a.scale, [&](int key, int query, int) {
            const int there = query < t.m;
            return OfQuery { tile_sees(a, t, query, key),
                             there ? a.lse[rows + query] : 0.0f,
                             there ? delta[rows + query] : 0.0f };
        });
        mma_weighted<D16, 4>(dv, s, grads);
        mma_weighted<D16, 4>(dk, dp, queries);
    }
    mma_store<D16>(a.dv, first, ld, dv, t.n, a.d, one);
    mma_store<D16>(a.dk, first, ld, dk, t.n, a.d, scale);
}

template <int D16>
static void backward(const AttentionArgs *a, const float *delta)
{
    const unsigned tiles_q = (unsigned)((a->sq + MMA_KEPT - 1) / MMA_KEPT);
    const unsigned tiles_k = (unsigned)((a->sk + MMA_KEPT - 1) / MMA_KEPT);
    const unsigned heads = (unsigned)a->heads, batch = (unsigned)a->batch;
    const size_t row = mma_pitch<D16>() * sizeof(Pair);

    DG_LAUNCH(attention_mma_queries_kernel<D16>, dim3(tiles_q, heads, batch),
              MMA_THREADS, MMA_KEPT * row, delta, *a);
    DG_LAUNCH(attention_mma_keys_kernel<D16>, dim3(tiles_k, heads, batch),
              MMA_THREADS, 2 * (MMA_KEPT + MMA_HALF) * row, delta, *a);
}

/* the place of an element, of values declared float */
template <typename F> static F *sample_of(F *p, int64_t element)
{
    return (F *)((char *)p + 2 * element);
}

/* delta stands in the stream's workspace, of as many samples at a time as it
 * holds. */
extern "C" int dg_cuda_attention_mma_grad(const AttentionArgs *a)
{
    const int64_t per = a->heads * a->sq, q = per * a->d;
    const int64_t k = a->heads * a->sk * a->d;
    float *delta = dg_cuda_current()->workspace;

    if (!dg_cuda_attention_mma_fits(a) || a->dbias != NULL)
        return 0;
    for (int64_t b = 0; b < a->batch;) {
        const int64_t most = DG_WORKSPACE_FLOATS / per, left = a->batch - b;
        AttentionArgs part = *a;
        part.batch = left < most ? left : most;
        part.q = sample_of(a->q, b * q), part.dq = sample_of(a->dq, b * q);
        part.o = sample_of(a->o, b * q), part.d_o = sample_of(a->d_o, b * q);
        part.k = sample_of(a->k, b * k), part.dk = sample_of(a->dk, b * k);
        part.v = sample_of(a->v, b * k), part.dv = sample_of(a->dv, b * k);
        part.lse = a->lse + b * per;
        DG_LAUNCH(attention_mma_delta_kernel,
                  dg_blocks(part.batch * per, WARPS), THREADS, 0, delta, part);
        mma_by_head(a->d, [&](auto d16) { backward<d16.value>(&part, delta); });
        b += part.batch;
    }
    return 1;
}
