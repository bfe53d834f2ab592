#include "attention_mma.h"

/*
 * Backward on tensor cores, of the form of attention_grad.cu: a kernel for
 * delta, one that keeps queries (dq), one that keeps keys (dk, dv). P and dS
 * are formed in each, rounded to bfloat16 where they are multiplied; every sum
 * has one owner and one order.
 */

/* delta = sum_d o dO of each query row, half a warp a row: delta [batch heads,
 * sq]. Blocks of THREADS; no shared memory. */
__global__ void attention_mma_delta_kernel(float *delta, AttentionArgs a)
{
    enum { LANES = WARP / 2 };
    const int lane = (int)threadIdx.x % LANES;
    const int64_t rows = a.batch * a.heads * a.sq;

    for (int64_t w = warp_index(); 2 * w < rows; w += warp_step()) {
        const int64_t r = 2 * w + (int)threadIdx.x % WARP / LANES;
        const int64_t i = r % a.sq, h = r / a.sq % a.heads;
        const int64_t at =
            (r / a.sq / a.heads * a.sq + i) * a.heads * a.d + h * a.d;
        float sum = 0.0f;
        for (int64_t c = 8 * lane; r < rows && c < a.d; c += 8 * LANES) {
            const Quad o = *reinterpret_cast<const Quad *>(stored(a.o, at + c));
            const Quad g =
                *reinterpret_cast<const Quad *>(stored(a.d_o, at + c));
#pragma unroll
            for (int p = 0; p < 4; ++p) {
                sum = fmaf(pair_first(o.pair[p]), pair_first(g.pair[p]), sum);
                sum = fmaf(pair_second(o.pair[p]), pair_second(g.pair[p]), sum);
            }
        }
        sum = half_warp_sum(sum);
        if (lane == 0 && r < rows)
            delta[r] = sum;
    }
}

/* of a score's query: -lse in units of log2, and delta */
struct alignas(8) OfQuery {
    float less, delta;
};

/* Scores to P, and dP to dS. of(m, n, e): of the query of s[m][n][e]; unit: of
 * a score, in log2. */
template <int M, typename Of>
__device__ inline void mma_grads(float s[M][MMA_N][4], float dp[M][MMA_N][4],
                                 float unit, Of of)
{
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < MMA_N; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const OfQuery q = of(m, n, e);
                const float p = mma_power(fmaf(s[m][n][e], unit, q.less));
                dp[m][n][e] = p * (dp[m][n][e] - q.delta);
                s[m][n][e] = p;
            }
}

/* the queries that a block keeps, to shared memory; of: [MMA_KEPT M] */
template <int M>
__device__ inline void mma_keep_of(OfQuery *of, const float *delta,
                                   const AttentionArgs &a, const HeadRows &t)
{
    const int row = (int)threadIdx.x;
    const int64_t at = t.rows + t.first + row;

    if (row < t.kept)
        of[row] = { -a.lse[at] * ATT_LOG2E, delta[at] };
    else if (row < MMA_KEPT * M)
        of[row] = { 0.0f, 0.0f };
}

/* P and dS of a step's keys */
template <int M>
__device__ inline void mma_query_grads(float s[M][MMA_N][4],
                                       float dp[M][MMA_N][4], const OfQuery *of,
                                       float unit)
{
    const OfQuery *const mine = of + lane_row<M>((int)threadIdx.x);
    OfQuery q[M][2];

#pragma unroll
    for (int i = 0; i < 2 * M; ++i)
        q[i / 2][i % 2] = mine[8 * i];
    mma_grads<M>(s, dp, unit, [&](int m, int, int e) { return q[m][e / 2]; });
}

/* a stage of the kernel that keeps queries: MMA_STEP keys and as many values */
template <int D16>
__device__ inline void mma_bring_keys(Pair *stage, const AttentionArgs &a,
                                      const HeadRows &t, int j)
{
    const int64_t at = t.k + (int64_t)j * t.ld;
    const int rows = (int)a.sk - j;

    mma_rows<D16, MMA_STEP>(stage, stored(a.k, at), t.ld, rows, (int)a.d);
    mma_rows<D16, MMA_STEP>(stage + MMA_STEP * mma_pitch<D16>(),
                            stored(a.v, at), t.ld, rows, (int)a.d);
}

/*
 * Grid (query tiles, heads, batch), block MMA_THREADS. Shared, of bfloat16:
 * queries that are kept and their gradients, [64 M, 16 D16] each, and two
 * stages of MMA_STEP keys and values; then OfQuery [64 M].
 */
template <int D16, int M>
__global__ void __launch_bounds__(MMA_THREADS, (mma_blocks<D16, M>()))
    attention_mma_queries_kernel(const float *delta, AttentionArgs a)
{
    enum {
        KEPT = MMA_KEPT * M * mma_pitch<D16>(),
        HALF = MMA_STEP * mma_pitch<D16>()
    };
    Pair *const queries = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *const grads = queries + KEPT, *const stages = grads + KEPT;
    OfQuery *const of = reinterpret_cast<OfQuery *>(stages + 4 * HALF);
    const HeadRows t = mma_head<M>(a, a.sq);
    const int keys = a.causal ? at_most(a.sk, t.first + t.kept) : (int)a.sk;
    const int64_t first = t.q + (int64_t)t.first * t.ld;
    float dq[M][2 * D16][4], s[M][MMA_N][4], dp[M][MMA_N][4], scale[M][2];
    int stage = 0;

    mma_rows<D16, MMA_KEPT * M>(queries, stored(a.q, first), t.ld, t.kept,
                                (int)a.d);
    mma_rows<D16, MMA_KEPT * M>(grads, stored(a.d_o, first), t.ld, t.kept,
                                (int)a.d);
    mma_bring_keys<D16>(stages, a, t, 0);
    mma_keep_of<M>(of, delta, a, t);
    mma_clear<M, 2 * D16>(dq);
#pragma unroll 1
    for (int j = 0; j < keys; j += MMA_STEP) {
        const Pair *const here = stages + stage;
        stage = 2 * HALF - stage;
        /* this stage has arrived, and nobody is at the other any more */
        mma_copies_wait();
        __syncthreads();
        if (j + MMA_STEP < keys)
            mma_bring_keys<D16>(stages + stage, a, t, j + MMA_STEP);
        mma_clear<M, MMA_N>(s);
        mma_clear<M, MMA_N>(dp);
        mma_scores_of<D16, M>(s, queries, here);
        mma_scores_of<D16, M>(dp, grads, here + HALF);
        if (mma_at_edge(a, t, j))
            mma_mask_keys<M>(s, a, t, j);
        mma_query_grads<M>(s, dp, of, a.scale * ATT_LOG2E);
        mma_weighted<D16, M>(dq, dp, here);
    }
#pragma unroll
    for (int i = 0; i < 2 * M; ++i)
        scale[i / 2][i % 2] = a.scale;
    mma_copies_wait();
    mma_store<D16, M>(stored(a.dq, first), queries, t, dq, (int)a.d, scale);
}

/* rows that a stage of the kernel that keeps keys has of queries */
template <int D16> __host__ __device__ constexpr int mma_passing(void)
{
    return D16 > 8 ? 32 : 64;
}
/* whether it keeps keys and values in registers; else in shared memory */
template <int D16, int M> __host__ __device__ constexpr bool mma_held(void)
{
    return M == 1 && D16 <= 8;
}
/* pairs of a stage: queries, their gradients, -lse and delta */
template <int D16> __host__ __device__ constexpr int mma_query_stage(void)
{
    return 2 * mma_passing<D16>() * (mma_pitch<D16>() + 1);
}

/* such a stage, from query i on */
template <int D16>
__device__ inline void mma_bring_queries(Pair *stage, const float *delta,
                                         const AttentionArgs &a,
                                         const HeadRows &t, int i)
{
    enum { ROWS = mma_passing<D16>() };
    const int64_t at = t.q + (int64_t)i * t.ld;
    const int rows = (int)a.sq - i;
    const int thread = worked_out_here((int)threadIdx.x), row = thread % ROWS;
    float *const last =
        reinterpret_cast<float *>(stage + 2 * ROWS * mma_pitch<D16>());

    mma_rows<D16, ROWS>(stage, stored(a.q, at), t.ld, rows, (int)a.d);
    mma_rows<D16, ROWS>(stage + ROWS * mma_pitch<D16>(), stored(a.d_o, at),
                        t.ld, rows, (int)a.d);
    if (thread < 2 * ROWS)
        mma_copy_float(last + thread,
                       (thread < ROWS ? a.lse : delta) + t.rows + i +
                           (row < rows ? row : 0),
                       row < rows);
}

/* P and dS of a step's queries, transposed: rows are keys. of: lse of the
 * queries, and delta, mma_passing() further on. */
template <int D16, int M>
__device__ inline void mma_key_grads(float s[M][MMA_N][4],
                                     float dp[M][MMA_N][4], const float *of,
                                     float unit)
{
    const float *const mine = of + lane_column((int)threadIdx.x);
    OfQuery q[MMA_N][2];

#pragma unroll
    for (int n = 0; n < MMA_N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
            q[n][e] = { -mine[8 * n + e] * ATT_LOG2E,
                        mine[mma_passing<D16>() + 8 * n + e] };
    mma_grads<M>(s, dp, unit, [&](int, int n, int e) { return q[n][e % 2]; });
}

/* keys and values that a block keeps: in registers, or else in shared memory */
template <int D16, int M> struct KeptKeys {
    Pair k[M][mma_held<D16, M>() ? D16 : 1][4];
    Pair v[M][mma_held<D16, M>() ? D16 : 1][4];
    const Pair *keys, *values;
};

/* a step of MMA_STEP queries that pass by */
struct Passing {
    const Pair *queries, *grads;
    const float *of;
    int first;
};

/* A step's part of the results. */
template <int D16, int M>
__device__ inline void mma_key_step(float dk[M][2 * D16][4],
                                    float dv[M][2 * D16][4],
                                    const KeptKeys<D16, M> &kept,
                                    const Passing &p, const AttentionArgs &a,
                                    const HeadRows &t)
{
    float s[M][MMA_N][4], dp[M][MMA_N][4];

    mma_clear<M, MMA_N>(s);
    mma_clear<M, MMA_N>(dp);
    if constexpr (mma_held<D16, M>()) {
        mma_scores<D16, M>(s, kept.k, p.queries);
        mma_scores<D16, M>(dp, kept.v, p.grads);
    } else {
        mma_scores_of<D16, M>(s, kept.keys, p.queries);
        mma_scores_of<D16, M>(dp, kept.values, p.grads);
    }
    if (a.causal && p.first < t.first + MMA_KEPT * M)
        mma_mask_queries<M>(s, t, p.first);
    mma_key_grads<D16, M>(s, dp, p.of, a.scale * ATT_LOG2E);
    mma_weighted<D16, M>(dv, s, p.grads);
    mma_weighted<D16, M>(dk, dp, p.queries);
}

/* The kept keys and values, on their way to the tiles 'kept' has; held ones are
 * in registers at the end, and the tiles free. */
template <int D16, int M>
__device__ inline void mma_keep_keys(KeptKeys<D16, M> *kept, Pair *tiles,
                                     const AttentionArgs &a, const HeadRows &t)
{
    const int64_t first = t.k + (int64_t)t.first * t.ld;
    Pair *const values = tiles + MMA_KEPT * M * mma_pitch<D16>();

    kept->keys = tiles;
    kept->values = values;
    mma_rows<D16, MMA_KEPT * M>(tiles, stored(a.k, first), t.ld, t.kept,
                                (int)a.d);
    mma_rows<D16, MMA_KEPT * M>(values, stored(a.v, first), t.ld, t.kept,
                                (int)a.d);
    if constexpr (mma_held<D16, M>()) {
        static_assert(MMA_KEPT * mma_pitch<D16>() <= mma_query_stage<D16>(),
                      "keys and values fit the stages");
        mma_copies_wait();
        __syncthreads();
        mma_keep<D16, M>(kept->k, tiles);
        mma_keep<D16, M>(kept->v, values);
        __syncthreads();
    }
}

/* the block's rows of both results; tile: for them to go by */
template <int D16, int M>
__device__ inline void mma_finish_keys(const AttentionArgs &a, Pair *tile,
                                       const HeadRows &t,
                                       const float dk[M][2 * D16][4],
                                       const float dv[M][2 * D16][4])
{
    const int64_t first = t.k + (int64_t)t.first * t.ld;
    float one[M][2], scale[M][2];

#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        one[i / 2][i % 2] = 1.0f;
        scale[i / 2][i % 2] = a.scale;
    }
    mma_store<D16, M>(stored(a.dv, first), tile, t, dv, (int)a.d, one);
    mma_store<D16, M>(stored(a.dk, first), tile, t, dk, (int)a.d, scale);
}

/*
 * Grid (key tiles, heads, batch), block MMA_THREADS. Shared, of bfloat16: two
 * stages of queries and their gradients, [2 mma_passing(), 16 D16] each, with
 * lse and delta; before them keys and values that are kept, [64 M, 16 D16] each,
 * unless they are held in registers: then they come by the stages.
 */
template <int D16, int M>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_keys_kernel(const float *delta, AttentionArgs a)
{
    enum { ROWS = mma_passing<D16>(), STAGE = mma_query_stage<D16>() };
    Pair *const tiles = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *const stages =
        tiles + (mma_held<D16, M>() ? 0 : 2 * MMA_KEPT * M * mma_pitch<D16>());
    const HeadRows t = mma_head<M>(a, a.sk);
    const int start = a.causal ? t.first : 0;
    float dk[M][2 * D16][4], dv[M][2 * D16][4];
    KeptKeys<D16, M> kept;
    int stage = 0;

    mma_keep_keys<D16, M>(&kept, tiles, a, t);
    if (start < a.sq)
        mma_bring_queries<D16>(stages, delta, a, t, start);
    mma_clear<M, 2 * D16>(dk);
    mma_clear<M, 2 * D16>(dv);
#pragma unroll 1
    for (int i = start; i < a.sq; i += ROWS) {
        const Pair *const here = stages + stage;
        const float *const of =
            reinterpret_cast<const float *>(here + 2 * ROWS * mma_pitch<D16>());
        stage = STAGE - stage;
        /* this stage has arrived, and nobody is at the other any more */
        mma_copies_wait();
        __syncthreads();
        if (i + ROWS < a.sq)
            mma_bring_queries<D16>(stages + stage, delta, a, t, i + ROWS);
#pragma unroll 1
        for (int part = 0; part < ROWS && i + part < a.sq; part += MMA_STEP) {
            const Pair *const queries = here + part * mma_pitch<D16>();
            mma_key_step<D16, M>(dk, dv, kept,
                                 { queries, queries + ROWS * mma_pitch<D16>(),
                                   of + part, i + part },
                                 a, t);
        }
    }
    mma_copies_wait();
    mma_finish_keys<D16, M>(a, tiles, t, dk, dv);
}

/* shared memory of the kernel that keeps queries */
template <int D16, int M> static constexpr size_t mma_queries_bytes(void)
{
    return 2 * (MMA_KEPT * M + 2 * MMA_STEP) * mma_pitch<D16>() * sizeof(Pair) +
           MMA_KEPT * M * sizeof(OfQuery);
}

template <int D16, int M>
static void backward_queries(const AttentionArgs *a, const float *delta)
{
    DG_LAUNCH((attention_mma_queries_kernel<D16, M>), mma_grid<M>(a, a->sq),
              MMA_THREADS, (mma_queries_bytes<D16, M>()), delta, *a);
}

template <int D16, int M>
static void backward_keys(const AttentionArgs *a, const float *delta)
{
    const int kept =
        mma_held<D16, M>() ? 0 : 2 * MMA_KEPT * M * mma_pitch<D16>();

    DG_LAUNCH((attention_mma_keys_kernel<D16, M>), mma_grid<M>(a, a->sk),
              MMA_THREADS, (kept + 2 * mma_query_stage<D16>()) * sizeof(Pair),
              delta, *a);
}

/* As many rows a warp as registers have room for and the shape has work for;
 * GPUs that are not made for data centres have no shared memory for 128 rows of
 * 128. */
template <int D16>
static void backward(const AttentionArgs *a, const float *delta)
{
    if constexpr (D16 <= 8) {
        if (mma_tall(a->heads, a->sq) &&
            mma_queries_bytes<D16, 2>() <= dg_cuda_shared_most())
            backward_queries<D16, 2>(a, delta);
        else
            backward_queries<D16, 1>(a, delta);
    } else {
        backward_queries<D16, 1>(a, delta);
    }
    if constexpr (D16 <= 4) {
        if (mma_tall(a->heads, a->sk))
            return backward_keys<D16, 2>(a, delta);
    }
    backward_keys<D16, 1>(a, delta);
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
                  dg_blocks(part.batch * per, 2 * WARPS), THREADS, 0, delta,
                  part);
        mma_by_head(a->d, [&](auto d16) { backward<d16.value>(&part, delta); });
        b += part.batch;
    }
    return 1;
}
