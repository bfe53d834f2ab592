#include "gemm_own.h"

#include "mma.h"

/*
 * c = op(a) op(b) of float32. A block of 256 threads takes a tile of c, 16 R
 * rows by as many columns, each thread R x R of it, four neighbours by four;
 * DEPTH of k pass by at a time, through two stages of shared memory, where k's
 * rows are, however operands are stored.
 */
namespace
{

enum { DEPTH = 16, ACROSS = 16 /* threads of a row */, STAGES = 2, PAD = 4 };

struct alignas(16) Four {
    float x[4];
};

/* read four at a time */
template <int R> struct alignas(16) Tile {
    enum { SIDE = ACROSS * R, PITCH = SIDE + PAD };
    float x[DEPTH][PITCH];
};

/* A tile of SIDE rows (of b: columns of c) from 'outer' on and DEPTH of k,
 * zeros beyond the last; BY_K: rows of k are what is stored. A thread's places are
 * a step apart: one address goes on, eight would not leave registers for sums. */
template <int R, bool BY_K>
__device__ inline void tile_copy(Tile<R> *t, const float *x, int64_t ld,
                                 int64_t outer, int64_t outers, int64_t k,
                                 int64_t ks)
{
    enum {
        SIDE = Tile<R>::SIDE,
        DOWN = BY_K ? THREADS / SIDE : 0, /* along k */
        ON = BY_K ? 0 : THREADS / DEPTH
    };
    const int i = (int)threadIdx.x;
    const int o = BY_K ? i % SIDE : i / DEPTH, l = BY_K ? i / SIDE : i % DEPTH;
    const int num_o = at_most(outers - outer, SIDE),
              num_l = at_most(ks - k, DEPTH);
    const float *from =
        x + (BY_K ? (k + l) * ld + outer + o : (outer + o) * ld + k + l);

#pragma unroll
    for (int n = 0; n < SIDE * DEPTH / THREADS; ++n) {
        mma_copy_float(&t->x[l + n * DOWN][o + n * ON], from,
                       o + n * ON < num_o && l + n * DOWN < num_l);
        from += (DOWN + ON) * ld;
    }
}

/* the place of a thread's r-th of R in a tile's row of 16 R */
__device__ inline int place_of(int thread, int r)
{
    return r / 4 * (4 * ACROSS) + thread * 4 + r % 4;
}

template <int R>
__device__ inline void fetch_row(float to[R], const float *row, int thread)
{
#pragma unroll
    for (int r = 0; r < R; r += 4) {
        const Four f =
            *reinterpret_cast<const Four *>(row + place_of(thread, r));
#pragma unroll
        for (int e = 0; e < 4; ++e)
            to[r + e] = f.x[e];
    }
}

template <int R>
__device__ inline void tile_add(float sum[R][R], const Tile<R> &a,
                                const Tile<R> &b)
{
    const int x = (int)threadIdx.x % ACROSS, y = (int)threadIdx.x / ACROSS;

#pragma unroll
    for (int l = 0; l < DEPTH; ++l) {
        float p[R], q[R];
        fetch_row<R>(p, a.x[l], y);
        fetch_row<R>(q, b.x[l], x);
#pragma unroll
        for (int i = 0; i < R; ++i)
#pragma unroll
            for (int j = 0; j < R; ++j)
                sum[i][j] = fmaf(p[i], q[j], sum[i][j]);
    }
}

/* Grid (rows of tiles, columns, samples), block THREADS. Shared: two stages of
 * a tile of either operand, static. */
template <int R, bool TRANS_A, bool TRANS_B>
__global__ void __launch_bounds__(THREADS, 2) product_plain_kernel(Product p)
{
    __shared__ Tile<R> tiles[STAGES][2];
    const int x = (int)threadIdx.x % ACROSS, y = (int)threadIdx.x / ACROSS;

    each_tile_of(p, Tile<R>::SIDE, [&](int64_t s, int64_t i, int64_t j) {
        const auto copy = [&](int64_t k, Tile<R> *to) {
            tile_copy<R, TRANS_A>(&to[0], p.a + s * p.step_a, p.lda, i, p.m, k,
                                  p.k);
            tile_copy<R, !TRANS_B>(&to[1], p.b + s * p.step_b, p.ldb, j, p.n, k,
                                   p.k);
        };
        float sum[R][R] = {};

        copy(0, tiles[0]);
        for (int64_t k = 0; k < p.k; k += DEPTH) {
            Tile<R> *now = tiles[k / DEPTH % STAGES];
            mma_copies_wait();
            __syncthreads(); /* all have come, the other stage is done with */
            if (k + DEPTH < p.k)
                copy(k + DEPTH, tiles[(k / DEPTH + 1) % STAGES]);
            tile_add<R>(sum, now[0], now[1]);
        }
        float *c = p.c + s * p.step_c;
        Product mine = p;
        mine.c = c;
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int q = 0; q < R; ++q) {
                const int64_t row = i + place_of(y, r), to = j + place_of(x, q);
                if (row < p.m && to < p.n)
                    c[row * p.ldc + to] = product_sum<float>(
                        mine, row * p.ldc + to, to, sum[r][q]);
            }
        __syncthreads(); /* before the next tile's copies */
    });
}

template <int R, bool TRANS_A, bool TRANS_B> void launch(const Product *p)
{
    DG_LAUNCH((product_plain_kernel<R, TRANS_A, TRANS_B>),
              product_grid(p, Tile<R>::SIDE), THREADS, 0, *p);
}

template <bool TRANS_A, bool TRANS_B> void product(const Product *p)
{
    if (product_is_large(p, Tile<8>::SIDE))
        launch<8, TRANS_A, TRANS_B>(p);
    else
        launch<4, TRANS_A, TRANS_B>(p);
}

} // namespace

void dg_cuda_product_plain(const Product *p, int trans_a, int trans_b)
{
    if (trans_a && trans_b)
        product<true, true>(p);
    else if (trans_a)
        product<true, false>(p);
    else if (trans_b)
        product<false, true>(p);
    else
        product<false, false>(p);
}
