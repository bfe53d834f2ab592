#include "kernels.h"

#include "gemm.h"
#include "stream.h"

/*
 * Which path a product takes depends on the rows of ONE sample, as in
 * src/cpu/gemm.c: fewer than DG_FEW_ROWS take the kernels below, all samples
 * at once, since every element is a sum of its own; others the library.
 */

enum { ROW_TILE = 4, K_SLICES = 8 };

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
 * ROW_TILE rows of a; its lanes take k = lane, lane + 32 .. and fold by
 * warp_sum(). Block: WARPS columns; grid (columns / WARPS, rows / ROW_TILE).
 * No shared memory.
 */
template <typename T, typename C>
__global__ void few_rows_dot_kernel(GemmArgs g, const float *bias)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t j = warp_index();
    const float *b = past<T>(g.b, j * g.ldb);
    float sum[ROW_TILE] = { 0.0f, 0.0f, 0.0f, 0.0f };

    if (j >= g.n)
        return;
    for (int64_t first = (int64_t)blockIdx.y * ROW_TILE; first < g.m;
         first += (int64_t)gridDim.y * ROW_TILE) {
        for (int r = 0; r < ROW_TILE; ++r)
            sum[r] = 0.0f;
        for (int64_t l = lane; l < g.k; l += WARP) {
            const float w = get<T>(b, l);
            for (int r = 0; r < ROW_TILE; ++r)
                if (first + r < g.m)
                    sum[r] =
                        fmaf(get<T>(g.a, (first + r) * g.lda + l), w, sum[r]);
        }
        for (int r = 0; r < ROW_TILE; ++r) {
            const float all = warp_sum(sum[r]);
            if (lane == 0 && first + r < g.m)
                sum_store<C>(g, bias, first + r, j, all);
        }
    }
}

/*
 * Right side as it is. Block (32, K_SLICES): thread (x, y) takes column x,
 * ROW_TILE rows and k = y, y + K_SLICES ..; the slices are folded by halves.
 * Grid (columns / 32, rows / ROW_TILE). Shared: the slices' sums, static.
 */
template <typename T, typename C>
__global__ void few_rows_kernel(GemmArgs g, const float *bias)
{
    __shared__ float folded[ROW_TILE][K_SLICES][WARP];
    const int x = (int)threadIdx.x, y = (int)threadIdx.y;
    const int64_t j = (int64_t)blockIdx.x * WARP + x;

    for (int64_t first = (int64_t)blockIdx.y * ROW_TILE; first < g.m;
         first += (int64_t)gridDim.y * ROW_TILE) {
        float sum[ROW_TILE] = { 0.0f, 0.0f, 0.0f, 0.0f };
        for (int64_t l = y; j < g.n && l < g.k; l += K_SLICES) {
            const float w = get<T>(g.b, l * g.ldb + j);
            for (int r = 0; r < ROW_TILE; ++r)
                if (first + r < g.m)
                    sum[r] =
                        fmaf(get<T>(g.a, (first + r) * g.lda + l), w, sum[r]);
        }
        for (int r = 0; r < ROW_TILE; ++r)
            folded[r][y][x] = sum[r];
        for (int half = K_SLICES / 2; half > 0; half /= 2) {
            __syncthreads();
            for (int r = 0; r < ROW_TILE && y < half; ++r)
                folded[r][y][x] += folded[r][y + half][x];
        }
        for (int r = 0; r < ROW_TILE && y == 0 && j < g.n; ++r)
            if (first + r < g.m)
                sum_store<C>(g, bias, first + r, j, folded[r][0][x]);
        __syncthreads(); /* before the next rows' sums */
    }
}

static unsigned row_blocks(int64_t m)
{
    const int64_t blocks = (m + ROW_TILE - 1) / ROW_TILE;

    return (unsigned)(blocks < 65535 ? blocks : 65535);
}

template <typename T, typename C>
static void few_rows(const GemmArgs *g, const float *bias)
{
    const unsigned rows = row_blocks(g->m);

    if (g->trans_b)
        DG_LAUNCH((few_rows_dot_kernel<T, C>),
                  dim3((unsigned)((g->n + WARPS - 1) / WARPS), rows), THREADS,
                  0, *g, bias);
    else
        DG_LAUNCH((few_rows_kernel<T, C>),
                  dim3((unsigned)((g->n + WARP - 1) / WARP), rows),
                  dim3(WARP, K_SLICES), 0, *g, bias);
}

template <typename T, typename C>
void dg_cuda_gemm_to(const GemmArgs *g, const float *bias)
{
    const int64_t per = g->rows_per_sample > 0 ? g->rows_per_sample : g->m;

    if (per < 1)
        return;
    if (per < DG_FEW_ROWS && !g->trans_a) {
        few_rows<T, C>(g, bias);
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
