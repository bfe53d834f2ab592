#include "attention_mma.h"

/*
 * Backward on tensor cores, of the form of attention_grad.cu: a kernel for
 * delta, one that keeps queries (dq), one that keeps keys (dk, dv). P and dS
 * are formed in each, rounded to bfloat16 where they are multiplied; every sum
 * has one owner and one order.
 */

#ifndef DG_DELTA_FLOATS /* for delta; tests take less, so that batches have parts */
#define DG_DELTA_FLOATS DG_WORKSPACE_FLOATS
#endif

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
__global__ void __launch_bounds__(MMA_THREADS, mma_blocks(D16 *M))
    attention_mma_queries_kernel(const float *delta, AttentionArgs a)
{
    enum {
        KEPT = MMA_KEPT * M * mma_pitch<D16>(),
        HALF = MMA_STEP * mma_pitch<D16>()
    };
    Pair *const queries = reinterpret_cast<Pair *>(dg_cuda_shared);
    Pair *const grads = queries + KEPT, *const stages = grads + KEPT;
    OfQuery *const of = reinterpret_cast<OfQuery *>(stages + 4 * HALF);
    const HeadRows t = mma_head<MMA_KEPT * M>(a, a.sq);
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
        mma_weighted<D16, M>(dq, dp, here, (int)threadIdx.x % WARP);
    }
#pragma unroll
    for (int i = 0; i < 2 * M; ++i)
        scale[i / 2][i % 2] = a.scale;
    mma_copies_wait();
    mma_store<D16, M>(stored(a.dq, first), queries, t, dq, (int)a.d, scale,
                      (int)threadIdx.x);
}

/*
 * The kernel that keeps keys has its warps in pairs of the same 16 M keys. The
 * first of a pair makes P and sums dv, the second, a step behind, dS and dk; P
 * goes from one to the other as float32. So each has registers for M = 2.
 */
enum {
    MMA_PAIRS = MMA_THREADS / WARP / 2,
    MMA_STAGES = 3 /* of queries: under way, with the first, with the second */
};

/* P of a step for the second warp of a pair: a lane's part [M MMA_N] */
struct alignas(16) Four {
    float x[4];
};

/* which of its pair a thread is in; its number among those of the same kind */
__device__ inline int mma_second(int thread)
{
    return thread / WARP % 2;
}
__device__ inline int mma_in_kind(int thread)
{
    return thread / WARP / 2 * WARP + thread % WARP;
}

/* pairs of a stage: queries, their gradients, lse and delta */
template <int D16> __host__ __device__ constexpr int mma_query_stage(void)
{
    return 2 * MMA_STEP * (mma_pitch<D16>() + 1);
}

/* the stage of a step */
template <int D16> __device__ inline Pair *mma_stage(Pair *stages, int step)
{
    return stages + (unsigned)step % MMA_STAGES * mma_query_stage<D16>();
}

/* such a stage on its way, from query i on */
template <int D16>
__device__ inline void mma_bring_queries(Pair *stage, const float *delta,
                                         const AttentionArgs &a,
                                         const HeadRows &t, int i)
{
    const int64_t at = t.q + (int64_t)i * t.ld;
    const int rows = (int)a.sq - i;
    const int thread = thread_here();
    const int row = thread % MMA_STEP;
    float *const last =
        reinterpret_cast<float *>(stage + 2 * MMA_STEP * mma_pitch<D16>());

    mma_rows<D16, MMA_STEP>(stage, stored(a.q, at), t.ld, rows, (int)a.d);
    mma_rows<D16, MMA_STEP>(stage + MMA_STEP * mma_pitch<D16>(),
                            stored(a.d_o, at), t.ld, rows, (int)a.d);
    if (thread < 2 * MMA_STEP)
        mma_copy_float(last + thread,
                       (thread < MMA_STEP ? a.lse : delta) + t.rows + i +
                           (row < rows ? row : 0),
                       row < rows);
}

/* Scores of keys by queries to P, which goes to the other warp; lse: of this
 * lane's first query. */
template <int M>
__device__ inline void mma_give(float s[M][MMA_N][4], Four *other,
                                const float *lse, float unit)
{
#pragma unroll
    for (int n = 0; n < MMA_N; ++n) {
        const float less[2] = { -lse[8 * n] * ATT_LOG2E,
                                -lse[8 * n + 1] * ATT_LOG2E };
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                s[m][n][e] = mma_power(fmaf(s[m][n][e], unit, less[e % 2]));
            other[(m * MMA_N + n) * WARP] = { { s[m][n][0], s[m][n][1],
                                                s[m][n][2], s[m][n][3] } };
        }
    }
}

/* dP to dS, P being the other warp's; delta: of this lane's first query. */
template <int M>
__device__ inline void mma_take(float dp[M][MMA_N][4], const Four *other,
                                const float *delta)
{
#pragma unroll
    for (int n = 0; n < MMA_N; ++n) {
        const float of[2] = { delta[8 * n], delta[8 * n + 1] };
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const Four p = other[(m * MMA_N + n) * WARP];
#pragma unroll
            for (int e = 0; e < 4; ++e)
                dp[m][n][e] = p.x[e] * (dp[m][n][e] - of[e % 2]);
        }
    }
}

/* A warp's part of its result: of step 'now' in the first of a pair, in the
 * second of the one before; start: the first step's first query. P of all warps
 * is [2, MMA_PAIRS, M MMA_N, WARP], behind the stages. */
template <int D16, int M>
__device__ inline void mma_pair_step(float out[M][2 * D16][4],
                                     const Pair kept[M][D16][4], Pair *stages,
                                     const AttentionArgs &a, const HeadRows &t,
                                     int now, int start)
{
    enum { HALF = MMA_STEP * mma_pitch<D16>(), FOURS = M * MMA_N * WARP };
    Four *const others =
        reinterpret_cast<Four *>(stages + MMA_STAGES * mma_query_stage<D16>());
    float s[M][MMA_N][4];
    int thread = thread_here(), second = mma_second(thread);

    mma_clear<M, MMA_N>(s);
    mma_scores<D16, M>(s, kept,
                       mma_stage<D16>(stages, now - second) + second * HALF,
                       thread % WARP);
    thread = thread_here(), second = mma_second(thread);
    Four *const other = others +
                        (unsigned)(now - second) % 2 * MMA_PAIRS * FOURS +
                        thread / WARP / 2 * FOURS + thread % WARP;
    const float *const of =
        reinterpret_cast<const float *>(mma_stage<D16>(stages, now - second) +
                                        2 * HALF) +
        second * MMA_STEP + lane_column(thread);
    if (second) {
        mma_take<M>(s, other, of);
    } else {
        const int i = start + now * MMA_STEP;
        if (a.causal && i < t.first + 16 * M * MMA_PAIRS)
            mma_mask_queries<M>(s, t, i, mma_in_kind(thread_here()));
        mma_give<M>(s, other, of, a.scale * ATT_LOG2E);
    }
    thread = thread_here(), second = mma_second(thread);
    mma_weighted<D16, M>(
        out, s, mma_stage<D16>(stages, now - second) + (1 - second) * HALF,
        thread % WARP);
}

/* The keys or values that a warp keeps, by way of the stages. Ends with a
 * barrier: these are free. */
template <int D16, int M>
__device__ inline void mma_keep_pair(Pair kept[M][D16][4], Pair *stages,
                                     const AttentionArgs &a, const HeadRows &t)
{
    enum { KEPT = 16 * M * MMA_PAIRS, TILE = KEPT * mma_pitch<D16>() };
    const int64_t first = t.k + (int64_t)t.first * t.ld;
    const int thread = (int)threadIdx.x;

    static_assert(2 * TILE <= MMA_STAGES * mma_query_stage<D16>(),
                  "keys and values fit the stages");
    mma_rows<D16, KEPT>(stages, stored(a.k, first), t.ld, t.kept, (int)a.d);
    mma_rows<D16, KEPT>(stages + TILE, stored(a.v, first), t.ld, t.kept,
                        (int)a.d);
    mma_copies_wait();
    __syncthreads();
    mma_keep<D16, M>(kept, stages + mma_second(thread) * TILE,
                     mma_in_kind(thread));
    __syncthreads();
}

/* dv of the first of a pair, dk of the second, to their rows */
template <int D16, int M>
__device__ inline void mma_finish_pair(const float out[M][2 * D16][4],
                                       Pair *tiles, const AttentionArgs &a,
                                       const HeadRows &t)
{
    const int64_t first = t.k + (int64_t)t.first * t.ld;
    const int thread = thread_here(), second = mma_second(thread);
    float factor[M][2];

#pragma unroll
    for (int i = 0; i < 2 * M; ++i)
        factor[i / 2][i % 2] = second ? a.scale : 1.0f;
    mma_store<D16, M>(stored(second ? a.dk : a.dv, first),
                      tiles + second * 16 * M * MMA_PAIRS * mma_pitch<D16>(), t,
                      out, (int)a.d, factor, mma_in_kind(thread));
}

/*
 * Grid (key tiles, heads, batch), block MMA_THREADS, of 32 M keys, which are
 * held in registers. Shared: MMA_STAGES stages of queries and their gradients,
 * bfloat16 [2 MMA_STEP, 16 D16] each, with lse and delta; P, twice for each pair.
 */
template <int D16, int M>
__global__ void __launch_bounds__(MMA_THREADS, mma_blocks(D16 *M))
    attention_mma_keys_kernel(const float *delta, AttentionArgs a)
{
    Pair *const stages = reinterpret_cast<Pair *>(dg_cuda_shared);
    const HeadRows t = mma_head<16 * M * MMA_PAIRS>(a, a.sk);
    const int start = a.causal ? t.first : 0;
    const int steps =
        start < a.sq ? ((int)a.sq - start + MMA_STEP - 1) / MMA_STEP : 0;
    Pair kept[M][D16][4];
    float out[M][2 * D16][4];

    mma_keep_pair<D16, M>(kept, stages, a, t);
    if (steps > 0)
        mma_bring_queries<D16>(stages, delta, a, t, start);
    mma_clear<M, 2 * D16>(out);
#pragma unroll 1
    for (int next = 1; next <= steps + 1; ++next) {
        /* the stage before the next has arrived, P of the one before that too,
         * and nobody is at the next any more */
        mma_copies_wait();
        __syncthreads();
        if (next < steps)
            mma_bring_queries<D16>(mma_stage<D16>(stages, next), delta, a, t,
                                   start + next * MMA_STEP);
        if (mma_second(thread_here()) ? next > 1 : next <= steps)
            mma_pair_step<D16, M>(out, kept, stages, a, t, next - 1, start);
    }
    mma_finish_pair<D16, M>(out, stages, a, t);
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
    DG_LAUNCH((attention_mma_queries_kernel<D16, M>),
              (mma_grid<MMA_KEPT * M>(a, a->sq)), MMA_THREADS,
              (mma_queries_bytes<D16, M>()), delta, *a);
}

template <int D16, int M>
static void backward_keys(const AttentionArgs *a, const float *delta)
{
    const size_t stages = MMA_STAGES * mma_query_stage<D16>() * sizeof(Pair);

    DG_LAUNCH((attention_mma_keys_kernel<D16, M>),
              (mma_grid<16 * M * MMA_PAIRS>(a, a->sk)), MMA_THREADS,
              stages + 2 * MMA_PAIRS * M * MMA_N * WARP * sizeof(Four), delta,
              *a);
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
    backward_keys<D16, (D16 > 8 ? 1 : 2)>(a, delta);
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
        const int64_t most = DG_DELTA_FLOATS / per, left = a->batch - b;
        AttentionArgs part = *a;
        part.batch = left < most ? left : most > 1 ? most : 1;
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
