#include "kernels.h"

#include "gemm.h"
#include "stream.h"
#include "wide.h"

/*
 * Which path a product takes depends on the rows of ONE sample, as in
 * src/cpu/gemm.c: fewer than DG_FEW_ROWS take the kernels below, all samples
 * at once, since every element is a sum of its own; others the library.
 */

enum { ROW_TILE = 4 };

/* a sum to its place in c, column j */
template <typename C>
__device__ inline void sum_store(const GemmArgs &g, const float *bias,
                                 int64_t row, int64_t j, float sum)
{
    const int64_t at = row * g.ldc + j;

    if (g.beta != 0.0f)
        sum = get<C>(g.c, at) + sum;
    put<C>(g.c, at, bias != NULL ? sum + get<C>(bias, j) : sum);
}

/*
 * Right side transposed. A warp takes a column of c (a row of b) and
 * ROW_TILE rows of a; its lanes take every 32nd pack of k and fold by
 * warp_sum(). Block: WARPS columns; grid (columns / WARPS, rows / ROW_TILE).
 * No shared memory.
 */
template <typename T, typename C, int WIDE>
__global__ void few_rows_dot_kernel(GemmArgs g, const float *bias)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t j = warp_index();
    const float *b = past<T>(g.b, j * g.ldb);

    if (j >= g.n)
        return;
    for (int64_t first = (int64_t)blockIdx.y * ROW_TILE; first < g.m;
         first += (int64_t)gridDim.y * ROW_TILE) {
        float sum[ROW_TILE] = { 0.0f, 0.0f, 0.0f, 0.0f };
        for (int64_t l = lane * packed<T>; l < g.k; l += WARP * packed<T>) {
            const int n = at_most(g.k - l, packed<T>);
            const Pack<T, packed<T>> w = fetch_some<T, WIDE>(b, l, n);
            for (int r = 0; r < ROW_TILE && first + r < g.m; ++r) {
                const Pack<T, packed<T>> x =
                    fetch_some<T, WIDE>(g.a, (first + r) * g.lda + l, n);
                for (int k = 0; k < packed<T>; ++k)
                    sum[r] = fmaf(x.at(k), w.at(k), sum[r]);
            }
        }
        for (int r = 0; r < ROW_TILE; ++r) {
            const float all = warp_sum(sum[r]);
            if (lane == 0 && first + r < g.m)
                sum_store<C>(g, bias, first + r, j, all);
        }
    }
}

/*
 * Right side as it is. A block takes 32 columns, a pack of them a thread, and
 * ROW_TILE rows; its threads share out k in slices, l = slice, slice + slices
 * .., whose sums are folded by halves. Grid (columns / 32, rows / ROW_TILE).
 * Shared: the slices' sums, static.
 */
template <typename T, typename C, int WIDE>
__global__ void few_rows_kernel(GemmArgs g, const float *bias)
{
    enum { V = packed<T>, ACROSS = WARP / V, SLICES = THREADS / ACROSS };
    __shared__ float folded[ROW_TILE][SLICES][WARP];
    const int x = (int)threadIdx.x % ACROSS * V, y = (int)threadIdx.x / ACROSS;
    const int64_t j = (int64_t)blockIdx.x * WARP + x;
    const int n = at_most(g.n - j, V); /* 0 or less: beyond the last column */

    for (int64_t first = (int64_t)blockIdx.y * ROW_TILE; first < g.m;
         first += (int64_t)gridDim.y * ROW_TILE) {
        float sum[ROW_TILE][V] = {};
#pragma unroll 4
        for (int64_t l = y; n > 0 && l < g.k; l += SLICES) {
            const Pack<T, V> w = fetch_some<T, WIDE>(g.b, l * g.ldb + j, n);
            for (int r = 0; r < ROW_TILE && first + r < g.m; ++r) {
                const float a = get<T>(g.a, (first + r) * g.lda + l);
                for (int k = 0; k < V; ++k)
                    sum[r][k] = fmaf(a, w.at(k), sum[r][k]);
            }
        }
        for (int i = 0; i < ROW_TILE * V; ++i)
            folded[i / V][y][x + i % V] = sum[i / V][i % V];
        for (int half = SLICES / 2; half > 0; half /= 2) {
            __syncthreads();
            for (int i = 0; i < ROW_TILE * V && y < half; ++i)
                folded[i / V][y][x + i % V] +=
                    folded[i / V][y + half][x + i % V];
        }
        for (int i = 0; i < ROW_TILE * V && y == 0; ++i)
            if (first + i / V < g.m && i % V < n)
                sum_store<C>(g, bias, first + i / V, j + i % V,
                             folded[i / V][0][x + i % V]);
        __syncthreads(); /* before the next rows' sums */
    }
}

static unsigned row_blocks(int64_t m)
{
    return dg_side((m + ROW_TILE - 1) / ROW_TILE);
}

template <typename T, typename C, int WIDE>
static void few_rows(const GemmArgs *g, const float *bias)
{
    const unsigned rows = row_blocks(g->m);

    if (g->trans_b)
        DG_LAUNCH((few_rows_dot_kernel<T, C, WIDE>),
                  dim3((unsigned)((g->n + WARPS - 1) / WARPS), rows), THREADS,
                  0, *g, bias);
    else
        DG_LAUNCH((few_rows_kernel<T, C, WIDE>),
                  dim3((unsigned)((g->n + WARP - 1) / WARP), rows), THREADS, 0,
                  *g, bias);
}

/* 1: what is loaded in packs may be: all of k, or all columns of b */
template <typename T> static int wide(const GemmArgs *g)
{
    const int64_t widths = g->ldb | (g->trans_b ? g->k | g->lda : g->n);

    return widths % packed<T> == 0 && aligned(g->b, g->trans_b ? g->a : NULL);
}

template <typename T, typename C>
void dg_cuda_gemm_to(const GemmArgs *g, const float *bias)
{
    const int64_t per = g->rows_per_sample > 0 ? g->rows_per_sample : g->m;

    if (per < 1)
        return;
    if (per < DG_FEW_ROWS && !g->trans_a) {
        if (wide<T>(g))
            few_rows<T, C, 1>(g, bias);
        else
            few_rows<T, C, 0>(g, bias);
        return;
    }
    const int64_t step_a = g->trans_a ? per : per * g->lda;
    const int64_t whole = g->m / per;
    GemmArgs one = *g;
    one.m = per;
    dg_cuda_products<T, C>(&one, bias, whole, step_a, 0, per * g->ldc);
    one.m = g->m - whole * per;
    one.a = past<T>(one.a, whole * step_a);
    one.c = past<C>(one.c, whole * per * g->ldc);
    dg_cuda_products<T, C>(&one, bias, 1, step_a, 0, per * g->ldc);
}

template <typename T> void dg_cuda_gemm(const GemmArgs *g)
{
    dg_cuda_gemm_to<T, T>(g, NULL);
}

DG_BOTH(dg_cuda_gemm, GemmArgs)

#define TO(T, C) \
    template void dg_cuda_gemm_to<T, C>(const GemmArgs *g, const float *bias);

TO(float, float)
TO(__nv_bfloat16, __nv_bfloat16)
TO(__nv_bfloat16, float)
