#include "kernels.h"

#include "columns.h"
#include "stream.h"

/*
 * A warp takes a row; its lanes take columns lane, lane + 32 .. and fold
 * their sums by warp_sum(). Rows of a block: WARPS. No shared memory.
 */

/* what multiplies xhat in column i of sample b, and what is added */
template <typename T>
__device__ inline float norm_factor(const NormArgs &a, int64_t b, int64_t i)
{
    if (a.scale != NULL)
        return 1.0f + get<T>(a.scale, b * a.ld_mod + i);
    return a.shift == NULL && a.w != NULL ? get<T>(a.w, i) : 1.0f;
}

template <typename T>
__device__ inline float norm_offset(const NormArgs &a, int64_t b, int64_t i)
{
    if (a.shift != NULL)
        return get<T>(a.shift, b * a.ld_mod + i);
    return a.scale == NULL && a.b != NULL ? get<T>(a.b, i) : 0.0f;
}

/* mean and 1/sqrt(variance + eps); RMS: mean 0 */
template <typename T>
__device__ inline void norm_stats(const NormArgs &a, const float *x, int lane,
                                  float *mean, float *rstd)
{
    float sum = 0.0f, square = 0.0f;

    for (int64_t i = lane; a.kind == DG_NORM_LAYER && i < a.width; i += WARP)
        sum += get<T>(x, i);
    *mean = warp_sum(sum) / (float)a.width;
    for (int64_t i = lane; i < a.width; i += WARP) {
        const float d = get<T>(x, i) - *mean;
        square = fmaf(d, d, square);
    }
    *rstd = 1.0f / sqrtf(warp_sum(square) / (float)a.width + a.eps);
}

template <typename T> __global__ void norm_kernel(NormArgs a)
{
    const int lane = (int)threadIdx.x % WARP;

    for (int64_t row = warp_index(); row < a.batch * a.rows;
         row += warp_step()) {
        const int64_t b = row / a.rows;
        const float *x = past<T>(a.x, row * a.width);
        float *y = past<T>(a.y, row * a.width);
        float mean, rstd;
        norm_stats<T>(a, x, lane, &mean, &rstd);
        for (int64_t i = lane; i < a.width; i += WARP) {
            const float xhat = (get<T>(x, i) - mean) * rstd;
            put<T>(y, i,
                   xhat * norm_factor<T>(a, b, i) + norm_offset<T>(a, b, i));
        }
        if (lane == 0 && a.mean != NULL)
            a.mean[row] = mean;
        if (lane == 0 && a.rstd != NULL)
            a.rstd[row] = rstd;
    }
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy factor; RMS: without
 * mean(g) */
template <typename T> __global__ void norm_grad_kernel(NormArgs a)
{
    const int lane = (int)threadIdx.x % WARP;
    const int layer = a.kind == DG_NORM_LAYER;

    for (int64_t row = warp_index(); row < a.batch * a.rows;
         row += warp_step()) {
        const int64_t b = row / a.rows, at = row * a.width;
        const float mean = layer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
        float g0 = 0.0f, g1 = 0.0f;
        for (int64_t i = lane; i < a.width; i += WARP) {
            const float xhat = (get<T>(a.x, at + i) - mean) * rstd;
            const float g = get<T>(a.dy, at + i) * norm_factor<T>(a, b, i);
            g0 += g;
            g1 = fmaf(g, xhat, g1);
        }
        g0 = layer ? warp_sum(g0) / (float)a.width : 0.0f;
        g1 = warp_sum(g1) / (float)a.width;
        for (int64_t i = lane; i < a.width; i += WARP) {
            const float xhat = (get<T>(a.x, at + i) - mean) * rstd;
            const float g = get<T>(a.dy, at + i) * norm_factor<T>(a, b, i);
            const float dx = (g - g0 - xhat * g1) * rstd;
            put<T>(a.dx, at + i, a.accumulate ? get<T>(a.dx, at + i) + dx : dx);
        }
    }
}

/* dy xhat and dy of one sample, summed over rows */
template <typename T> struct NormTerm {
    const float *x, *dy, *mean, *rstd; /* mean NULL: 0 */
    int64_t width;

    __device__ void add(int64_t r, int64_t c, float *sum) const
    {
        const float g = get<T>(dy, r * width + c);
        const float centre = mean != NULL ? mean[r] : 0.0f;
        const float xhat = (get<T>(x, r * width + c) - centre) * rstd[r];
        sum[0] = fmaf(g, xhat, sum[0]);
        sum[1] += g;
    }
};

/* D: of where the sums go */
template <typename T, typename D>
static void param_grad(const NormArgs *a, int64_t b, float *factor,
                       float *offset)
{
    const int64_t row = b * a->rows, at = row * a->width;
    const NormTerm<T> term = { past<T>(a->x, at), past<T>(a->dy, at),
                               a->kind == DG_NORM_LAYER ? a->mean + row : NULL,
                               a->rstd + row, a->width };
    const ColumnSums<2, D> to = { { factor, offset } };

    if (factor != NULL || offset != NULL)
        dg_column_sums(term, a->rows, a->width, to);
}

template <typename T> void dg_cuda_norm(const NormArgs *a)
{
    DG_LAUNCH(norm_kernel<T>, dg_blocks(a->batch * a->rows, WARPS), THREADS, 0,
              *a);
}

template <typename T> void dg_cuda_norm_grad(const NormArgs *a)
{
    if (a->dx != NULL)
        DG_LAUNCH(norm_grad_kernel<T>, dg_blocks(a->batch * a->rows, WARPS),
                  THREADS, 0, *a);
    for (int64_t b = 0; b < a->batch; ++b) {
        param_grad<T, float>(a, b, a->dw, a->db);
        param_grad<T, T>(a, b, past<T>(a->dscale, b * a->ld_mod),
                         past<T>(a->dshift, b * a->ld_mod));
    }
}

DG_BOTH(dg_cuda_norm, NormArgs)
DG_BOTH(dg_cuda_norm_grad, NormArgs)
