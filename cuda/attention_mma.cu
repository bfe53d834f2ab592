#include "attention_mma.h"

/* A weight is 2^(score - base) with a base of the row's own: a score seen so
 * far, and none was above it by more than this. So sums are rarely scaled anew;
 * they may be 2^MMA_ROOM times as large as under the maximum, which float32
 * does not mind. In units of log2. */
static const float MMA_ROOM = 8.0f;

/* of a lane's rows: base, this lane's part of the sum of weights */
template <int M> struct MmaRows {
    float base[M][2], sum[M][2];
};

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

/* Rows whose scores outgrow their base get a new one; what was summed under
 * the old one is scaled down. top: of this lane's scores. All lanes call;
 * what becomes of a row depends on its own scores alone. */
template <int D16, int M>
__device__ inline void mma_raise(float o[M][2 * D16][4], MmaRows<M> *w,
                                 const float top[M][2])
{
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float old = w->base[m][r], most = quad_max(top[m][r]);
            const float base = most > old + MMA_ROOM ? most : old;
            const float fade = base == old ? 1.0f : mma_power(old - base);

            w->base[m][r] = base;
            w->sum[m][r] *= fade;
#pragma unroll
            for (int n = 0; n < 2 * D16; ++n) {
                o[m][n][2 * r] *= fade;
                o[m][n][2 * r + 1] *= fade;
            }
        }
}

/* Scores of a step's keys to weights; unit: of a score, in log2. */
template <int D16, int M>
__device__ inline void mma_weights(float s[M][MMA_N][4], float o[M][2 * D16][4],
                                   MmaRows<M> *w, float unit)
{
    float top[M][2];
    int rises = 0;

#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        const int m = i / 2, r = i % 2;
        float most = -INFINITY;
#pragma unroll
        for (int n = 0; n < MMA_N; ++n)
            most = fmaxf(most, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
        top[m][r] = most * unit;
        rises |= top[m][r] > w->base[m][r] + MMA_ROOM;
    }
    if (__any_sync(0xffffffffu, rises))
        mma_raise<D16, M>(o, w, top);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float base = w->base[m][r];
            const float less = base == -INFINITY ? 0.0f : -base;
#pragma unroll
            for (int n = 0; n < MMA_N; ++n)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; ++e) {
                    s[m][n][e] = mma_power(fmaf(s[m][n][e], unit, less));
                    w->sum[m][r] += s[m][n][e];
                }
        }
}

/* keys and values of a stage */
template <int D16> __host__ __device__ constexpr int mma_keys(void)
{
    return D16 > 8 ? 32 : 64;
}

/* a stage's keys and values on their way, from row 'j' on */
template <int D16>
__device__ inline void mma_bring(Pair *stage, const AttentionArgs &a,
                                 const HeadRows &t, int j)
{
    enum { KEYS = mma_keys<D16>() };
    const int64_t at = t.k + (int64_t)j * t.ld;
    const int rows = (int)a.sk - j;

    mma_rows<D16, KEYS>(stage, stored(a.k, at), t.ld, rows, (int)a.d);
    mma_rows<D16, KEYS>(stage + KEYS * mma_pitch<D16>(), stored(a.v, at), t.ld,
                        rows, (int)a.d);
}

/* A step of MMA_STEP keys from row j on: their part of the result. */
template <int D16, int M>
__device__ inline void mma_step(float o[M][2 * D16][4], MmaRows<M> *w,
                                const Pair q[M][D16][4], const Pair *keys,
                                const AttentionArgs &a, const HeadRows &t,
                                int j)
{
    float s[M][MMA_N][4];

    mma_clear<M, MMA_N>(s);
    mma_scores<D16, M>(s, q, keys, (int)threadIdx.x % WARP);
    if (mma_at_edge(a, t, j))
        mma_mask_keys<M>(s, a, t, j);
    mma_weights<D16, M>(s, o, w, a.scale * ATT_LOG2E);
    mma_weighted<D16, M>(o, s, keys + mma_keys<D16>() * mma_pitch<D16>(),
                         (int)threadIdx.x % WARP);
}

/* the block's rows of the result and of lse */
template <int D16, int M>
__device__ inline void mma_finish(const AttentionArgs &a, Pair *tile,
                                  const HeadRows &t,
                                  const float o[M][2 * D16][4],
                                  const MmaRows<M> &w)
{
    float factor[M][2];

#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = lane_row<M>((int)threadIdx.x) + 16 * m + 8 * r;
            const float sum = quad_sum(w.sum[m][r]);
            factor[m][r] = sum == 0.0f ? 0.0f : 1.0f / sum;
            if (a.lse != NULL && lane_column((int)threadIdx.x) == 0 &&
                row < t.kept)
                a.lse[t.rows + t.first + row] =
                    fmaf(w.base[m][r], ATT_LN2, logf(sum));
        }
    mma_store<D16, M>(stored(a.o, t.q + (int64_t)t.first * t.ld), tile, t, o,
                      (int)a.d, factor, (int)threadIdx.x);
}

/*
 * Grid (query tiles, heads, batch), block MMA_THREADS. A block keeps 64 M
 * queries in registers; two stages of keys and values pass by in shared memory,
 * of bfloat16 [2 mma_keys(), 16 D16] each. The queries come by the second one.
 * Bases and sums of M rows take registers beside the result.
 */
template <int D16, int M>
__global__ void __launch_bounds__(MMA_THREADS, mma_blocks(D16 *M + M - 1))
    attention_mma_kernel(AttentionArgs a)
{
    enum { KEYS = mma_keys<D16>(), STAGE = 2 * KEYS * mma_pitch<D16>() };
    Pair *const shared = reinterpret_cast<Pair *>(dg_cuda_shared);
    const HeadRows t = mma_head<MMA_KEPT * M>(a, a.sq);
    const int keys = a.causal ? at_most(a.sk, t.first + t.kept) : (int)a.sk;
    Pair q[M][D16][4];
    float o[M][2 * D16][4];
    MmaRows<M> w;
    int stage = 0;

    static_assert(64 * M <= 2 * KEYS, "queries fit a stage");
    mma_rows<D16, MMA_KEPT * M>(shared + STAGE,
                                stored(a.q, t.q + (int64_t)t.first * t.ld),
                                t.ld, t.kept, (int)a.d);
    mma_bring<D16>(shared, a, t, 0);
    mma_copies_wait();
    __syncthreads();
    mma_keep<D16, M>(q, shared + STAGE, (int)threadIdx.x);
    mma_clear<M, 2 * D16>(o);
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        w.base[i / 2][i % 2] = -INFINITY;
        w.sum[i / 2][i % 2] = 0.0f;
    }
#pragma unroll 1
    for (int j = 0; j < keys; j += KEYS) {
        const Pair *const here = shared + stage;
        stage = STAGE - stage;
        /* this stage has arrived, and nobody is at the other any more */
        mma_copies_wait();
        __syncthreads();
        if (j + KEYS < keys)
            mma_bring<D16>(shared + stage, a, t, j + KEYS);
#pragma unroll 1
        for (int part = 0; part < KEYS && j + part < keys; part += MMA_STEP)
            mma_step<D16, M>(o, &w, q, here + part * mma_pitch<D16>(), a, t,
                             j + part);
    }
    mma_finish<D16, M>(a, shared, t, o, w);
}

template <int D16, int M> static void forward(const AttentionArgs *a)
{
    DG_LAUNCH((attention_mma_kernel<D16, M>),
              (mma_grid<MMA_KEPT * M>(a, a->sq)), MMA_THREADS,
              4 * mma_keys<D16>() * mma_pitch<D16>() * sizeof(Pair), *a);
}

int dg_cuda_attention_mma_fits(const AttentionArgs *a)
{
    const void *all[] = { a->q, a->k, a->v, a->o, a->d_o, a->dq, a->dk, a->dv };

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if ((uintptr_t)all[i] % 16 != 0)
            return 0;
    return a->bias == NULL && a->d % 8 == 0 && a->d <= MMA_MOST_D &&
           a->heads * a->sq <= DG_WORKSPACE_FLOATS &&
           a->heads * a->sk <= DG_WORKSPACE_FLOATS;
}

extern "C" int dg_cuda_attention_mma(const AttentionArgs *a)
{
    if (!dg_cuda_attention_mma_fits(a))
        return 0;
    mma_by_head(a->d, [&](auto d16) {
        if constexpr (d16.value <= 8) {
            if (mma_tall(a->heads, a->sq))
                return forward<d16.value, 2>(a);
        }
        forward<d16.value, 1>(a);
    });
    return 1;
}
