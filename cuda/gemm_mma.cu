#include "gemm_own.h"

#include "mma.h"

/*
 * c = op(a) op(b) of values stored as bfloat16, by tensor cores. A block of
 * four warps takes a tile of c, 128 or 64 rows by as many columns, each warp a
 * quarter of it; DEPTH of k pass by at a time, through two stages of shared
 * memory: one is on its way while the other is multiplied. Operands lie in
 * shared memory as they are stored, and what is stored across the product is
 * turned by the load of its tiles.
 *
 * Beyond the last row, column or k there are zeros. Where widths, pitches or
 * addresses are no multiples of 16 bytes, elements come one by one, into the
 * same places.
 */
namespace
{

enum {
    BLOCK = 128,
    DEPTH = 64, /* of k at once */
    STAGES = 2,
    PAD = 4 /* pairs: rows 16 bytes apart in the banks */
};

/* pairs from row to row of a tile of so many columns, and of a tile of either
 * operand: [T, DEPTH], or across [DEPTH, T], which is no more */
__host__ __device__ constexpr int pitch_of(int columns)
{
    return columns / 2 + PAD;
}
template <int T> __host__ __device__ constexpr int tile_pairs(void)
{
    return T * pitch_of(DEPTH);
}
template <int T> __host__ __device__ constexpr int shared_bytes(void)
{
    return STAGES * 2 * tile_pairs<T>() * (int)sizeof(Pair);
}

/* two elements by themselves; those from 'columns' on are 0 */
__device__ inline Pair pair_of(const float *from, int64_t at, int columns)
{
    const __nv_bfloat16 *p = reinterpret_cast<const __nv_bfloat16 *>(from) + at;
    const float first = columns > 0 ? widened(p[0]) : 0.0f;
    const float second = columns > 1 ? widened(p[1]) : 0.0f;

    return mma_pair(first, second);
}

/* ROWS x COLUMNS on their way to a tile, of which so many are there */
template <int ROWS, int COLUMNS, bool WIDE>
__device__ inline void tile_copy(Pair *tile, const float *from, int64_t ld,
                                 int rows, int columns)
{
    enum { QUADS = COLUMNS / 8, AT_ONCE = BLOCK / QUADS };
    const int c = (int)threadIdx.x % QUADS, row = (int)threadIdx.x / QUADS;

    rows = 8 * c < columns ? rows - row : 0;
    tile += row * pitch_of(COLUMNS) + 4 * c;
    from = past<__nv_bfloat16>(from, row * ld + 8 * c);
#pragma unroll
    for (int i = 0; i < ROWS; i += AT_ONCE) {
        if (WIDE)
            mma_copy(tile + i * pitch_of(COLUMNS),
                     reinterpret_cast<const Pair *>(from), i < rows);
        else
            for (int e = 0; e < 4; ++e)
                tile[i * pitch_of(COLUMNS) + e] = pair_of(
                    from, 2 * e, i < rows ? columns - 8 * c - 2 * e : 0);
        from = past<__nv_bfloat16>(from, AT_ONCE * ld);
    }
}

/* An operand of T rows (of b: columns of c) and DEPTH of k, from 'outer' and
 * 'k' on; ACROSS: rows of k are what is stored. */
template <int T, bool ACROSS, bool WIDE>
__device__ inline void operand_copy(Pair *tile, const float *x, int64_t ld,
                                    int64_t outer, int64_t outers, int64_t k,
                                    int64_t ks)
{
    const int some = at_most(outers - outer, T), deep = at_most(ks - k, DEPTH);

    if (ACROSS)
        tile_copy<DEPTH, T, WIDE>(tile, past<__nv_bfloat16>(x, k * ld + outer),
                                  ld, deep, some);
    else
        tile_copy<T, DEPTH, WIDE>(tile, past<__nv_bfloat16>(x, outer * ld + k),
                                  ld, some, deep);
}

/* A's 16 x 16 of rows row.., k.. */
template <int T, bool ACROSS>
__device__ inline void load_a(Pair a[4], int lane, const Pair *tile, int row,
                              int k)
{
    const int j = lane / 8;

    if (ACROSS)
        mma_load_across(a, tile + (j / 2 * 8 + lane % 8 + k) * pitch_of(T) +
                               j % 2 * 4 + row / 2);
    else
        mma_load_a(a, lane, tile, pitch_of(DEPTH), row, k);
}

/* two B of 16 x 8 side by side, of columns column.., k.. */
template <int T, bool ACROSS>
__device__ inline void load_b(Pair b[4], int lane, const Pair *tile, int column,
                              int k)
{
    if (ACROSS)
        mma_load_b_across(b, lane, tile, pitch_of(T), k, column);
    else
        mma_load_b(b, lane, tile, pitch_of(DEPTH), column, k);
}

/* of a warp: [row of 16, column of 8, element of a lane] */
template <int T> struct Sums {
    enum { M = T / 32, N = T / 16 };
    float x[M][N][4];
};

template <int T, bool TRANS_A, bool TRANS_B>
__device__ inline void stage_add(Sums<T> *sums, const Pair *stage)
{
    enum { M = Sums<T>::M, N = Sums<T>::N };
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int row = warp / 2 * (T / 2), column = warp % 2 * (T / 2);
    Pair a[M][4], b[4];

#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
#pragma unroll
        for (int m = 0; m < M; ++m)
            load_a<T, TRANS_A>(a[m], lane, stage, row + 16 * m, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_b<T, !TRANS_B>(b, lane, stage + tile_pairs<T>(),
                                column + 8 * n, k);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma_add(sums->x[m][n], a[m], b[0], b[1]);
                mma_add(sums->x[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

struct alignas(8) Two {
    float x[2];
};
__device__ inline void store_two(float *c, int64_t at, float x, float y, float)
{
    *reinterpret_cast<Two *>(c + at) = Two { { x, y } };
}
__device__ inline void store_two(float *c, int64_t at, float x, float y,
                                 __nv_bfloat16)
{
    reinterpret_cast<Pair *>(c)[at / 2] = mma_pair(x, y);
}

/* A warp's sums; 'c' of the sample. */
template <int T, typename C>
__device__ inline void sums_store(const Product &p, int64_t i, int64_t j,
                                  const Sums<T> &sums)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;

    i += warp / 2 * (T / 2) + lane / 4;
    j += warp % 2 * (T / 2) + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < Sums<T>::M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int64_t row = i + 16 * m + 8 * half;
            if (row >= p.m)
                continue;
#pragma unroll
            for (int n = 0; n < Sums<T>::N; ++n) {
                const int64_t at = row * p.ldc + j + 8 * n;
                const float *x = sums.x[m][n] + 2 * half;
                if (j + 8 * n >= p.n)
                    continue;
                const float y = product_sum<C>(p, at, j + 8 * n, x[0]);
                if (j + 8 * n + 1 == p.n) {
                    put<C>(p.c, at, y);
                    continue;
                }
                const float z = product_sum<C>(p, at + 1, j + 8 * n + 1, x[1]);
                if (p.pairs) {
                    store_two(p.c, at, y, z, C());
                } else {
                    put<C>(p.c, at, y);
                    put<C>(p.c, at + 1, z);
                }
            }
        }
}

/*
 * Grid (rows of tiles, columns, samples), block BLOCK. Shared: two stages of a
 * tile of either operand.
 */
template <int T, bool TRANS_A, bool TRANS_B, typename C, bool WIDE>
__global__ void __launch_bounds__(BLOCK, 2) product_mma_kernel(Product p)
{
    enum { STAGE = 2 * tile_pairs<T>() };
    Pair *shared = reinterpret_cast<Pair *>(dg_cuda_shared);

    each_tile_of(p, T, [&](int64_t s, int64_t i, int64_t j) {
        const float *a = past<__nv_bfloat16>(p.a, s * p.step_a);
        const float *b = past<__nv_bfloat16>(p.b, s * p.step_b);
        const auto copy = [&](int64_t k, Pair *stage) {
            operand_copy<T, TRANS_A, WIDE>(stage, a, p.lda, i, p.m, k, p.k);
            operand_copy<T, !TRANS_B, WIDE>(stage + tile_pairs<T>(), b, p.ldb,
                                            j, p.n, k, p.k);
        };
        Sums<T> sums = {};

        copy(0, shared);
        for (int64_t k = 0, at = 0; k < p.k; k += DEPTH, at = STAGE - at) {
            mma_copies_wait();
            __syncthreads(); /* all have come, the other stage is done with */
            if (k + DEPTH < p.k)
                copy(k + DEPTH, shared + (STAGE - at));
            stage_add<T, TRANS_A, TRANS_B>(&sums, shared + at);
        }
        Product mine = p;
        mine.c = past<C>(p.c, s * p.step_c);
        sums_store<T, C>(mine, i, j, sums);
        __syncthreads(); /* before the next tile's copies */
    });
}

/* --- the host's side ------------------------------------------------------ */

/* 1 where an operand lies so that 16 bytes of it may be copied: whole rows,
 * 'width' of them, begin and end there */
int quads_fit(const float *p, int64_t ld, int64_t width, int64_t step)
{
    return (ld | width | step) % 8 == 0 && (uintptr_t)p % 16 == 0;
}

template <int T, bool TRANS_A, bool TRANS_B, typename C, bool WIDE>
void launch(const Product *p)
{
    DG_LAUNCH((product_mma_kernel<T, TRANS_A, TRANS_B, C, WIDE>),
              product_grid(p, T), BLOCK, (size_t)shared_bytes<T>(), *p);
}

template <bool TRANS_A, bool TRANS_B, typename C> void product(const Product *p)
{
    const int wide =
        quads_fit(p->a, p->lda, TRANS_A ? p->m : p->k, p->step_a) &&
        quads_fit(p->b, p->ldb, TRANS_B ? p->k : p->n, p->step_b);

    if (!wide)
        launch<64, TRANS_A, TRANS_B, C, false>(p);
    else if (product_is_large(p, 128) &&
             dg_cuda_shared_most() >= (size_t)shared_bytes<128>())
        launch<128, TRANS_A, TRANS_B, C, true>(p);
    else
        launch<64, TRANS_A, TRANS_B, C, true>(p);
}

} // namespace

template <typename C>
void dg_cuda_product_mma(const Product *p, int trans_a, int trans_b)
{
    Product mine = *p;

    mine.pairs =
        (p->ldc | p->step_c) % 2 == 0 && (uintptr_t)p->c % (2 * sizeof(C)) == 0;
    if (trans_a && trans_b)
        product<true, true, C>(&mine);
    else if (trans_a)
        product<true, false, C>(&mine);
    else if (trans_b)
        product<false, true, C>(&mine);
    else
        product<false, false, C>(&mine);
}

template void dg_cuda_product_mma<float>(const Product *p, int trans_a,
                                         int trans_b);
template void dg_cuda_product_mma<__nv_bfloat16>(const Product *p, int trans_a,
                                                 int trans_b);
