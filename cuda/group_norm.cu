#include "kernels.h"

#include "act.h"
#include "columns.h"
#include "stream.h"

/*
 * A group of one sample is split into parts by its size alone; sums of a part
 * are double, those of parts are added in order. Elementwise kernels: a thread
 * takes elements first_index(), + index_step() ..; blocks of THREADS.
 */
enum { PART_ELEMENTS = 8192, MOST_GROUP_PARTS = 64 };

static const int64_t workspace_doubles = DG_WORKSPACE_FLOATS / 2;

__device__ inline double warp_sum_double(double x)
{
    for (int half = WARP / 2; half > 0; half /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}

/* element i of a group: row by row */
__device__ inline int64_t group_element(const GroupNormArgs &a, int64_t group,
                                        int64_t i)
{
    const int64_t n = a.width / a.groups;
    const int64_t b = group / a.groups, g = group % a.groups;

    return (b * a.rows + i / n) * a.width + g * n + i % n;
}

/*
 * Sums of x - pivot and of its square over one part, the pivot being the
 * group's first element: what varies little around a large mean keeps its
 * digits. Block: part blockIdx.x of group first + blockIdx.y. Shared: a
 * double per warp of each sum, static.
 */
template <typename T>
__global__ void group_parts_kernel(GroupNormArgs a, int64_t first,
                                   double *parts)
{
    __shared__ double folded[2][WARPS];
    const int64_t group = first + blockIdx.y;
    const int64_t count = a.rows * (a.width / a.groups);
    const int64_t step = (int64_t)gridDim.x * THREADS;
    const double pivot = get<T>(a.x, group_element(a, group, 0));
    const int me = (int)threadIdx.x;
    double sum = 0.0, square = 0.0;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + me; i < count; i += step) {
        const double d = get<T>(a.x, group_element(a, group, i)) - pivot;
        sum += d;
        square += d * d;
    }
    sum = warp_sum_double(sum);
    square = warp_sum_double(square);
    if (me % WARP == 0) {
        folded[0][me / WARP] = sum;
        folded[1][me / WARP] = square;
    }
    __syncthreads();
    if (me < 2) {
        double all = 0.0;
        for (int w = 0; w < WARPS; ++w)
            all += folded[me][w];
        parts[((int64_t)blockIdx.y * gridDim.x + blockIdx.x) * 2 + me] = all;
    }
}

/* A thread per group adds its parts. */
template <typename T>
__global__ void group_stats_kernel(GroupNormArgs a, int64_t first, int64_t num,
                                   int num_parts, const double *parts)
{
    const double count = (double)(a.rows * (a.width / a.groups));

    for (int64_t i = first_index(); i < num; i += index_step()) {
        const double pivot = get<T>(a.x, group_element(a, first + i, 0));
        double sum = 0.0, square = 0.0;
        for (int p = 0; p < num_parts; ++p) {
            sum += parts[(i * num_parts + p) * 2];
            square += parts[(i * num_parts + p) * 2 + 1];
        }
        sum /= count;
        a.mean[first + i] = (float)(pivot + sum);
        a.rstd[first + i] =
            (float)(1.0 / sqrt(square / count - sum * sum + (double)a.eps));
    }
}

template <typename T> __global__ void group_norm_kernel(GroupNormArgs a)
{
    const int64_t n = a.width / a.groups;

    for (int64_t i = first_index(); i < a.batch * a.rows * a.width;
         i += index_step()) {
        const int64_t c = i % a.width;
        const int64_t group = i / (a.rows * a.width) * a.groups + c / n;
        const float xhat = (get<T>(a.x, i) - a.mean[group]) * a.rstd[group];
        put<T>(a.y, i,
               act_value(a.act, fmaf(xhat, get<T>(a.w, c), get<T>(a.b, c))));
    }
}

template <typename T> void dg_cuda_group_norm(const GroupNormArgs *a)
{
    const int64_t count = a->rows * (a->width / a->groups);
    const int64_t wanted = (count + PART_ELEMENTS - 1) / PART_ELEMENTS;
    const int64_t parts =
        wanted < MOST_GROUP_PARTS ? wanted : (int64_t)MOST_GROUP_PARTS;
    const int64_t all = a->batch * a->groups;
    const int64_t fit = workspace_doubles / (2 * parts);
    const int64_t most = fit < 65535 ? fit : 65535; /* what a grid has */
    double *work = (double *)dg_cuda_current()->workspace;

    for (int64_t first = 0; count > 0 && first < all; first += most) {
        const int64_t num = all - first < most ? all - first : most;
        DG_LAUNCH(group_parts_kernel<T>, dim3((unsigned)parts, (unsigned)num),
                  THREADS, 0, *a, first, work);
        DG_LAUNCH(group_stats_kernel<T>, dg_blocks(num, THREADS), THREADS, 0,
                  *a, first, num, (int)parts, (const double *)work);
    }
    DG_LAUNCH(group_norm_kernel<T>,
              dg_blocks(a->batch * a->rows * a->width, THREADS), THREADS, 0,
              *a);
}

/* --- backward ------------------------------------------------------------ */

/* dy act'(.) of one element, and its xhat */
template <typename T>
__device__ inline float inner_grad(const GroupNormArgs &a, int64_t b, int64_t i,
                                   float *xhat)
{
    const int64_t c = i % a.width;
    const int64_t group = b * a.groups + c / (a.width / a.groups);
    float slope;

    *xhat = (get<T>(a.x, i) - a.mean[group]) * a.rstd[group];
    act_both(a.act, fmaf(*xhat, get<T>(a.w, c), get<T>(a.b, c)), &slope);
    return get<T>(a.dy, i) * slope;
}

/* g and g xhat of one sample, summed over rows */
template <typename T> struct GroupTerm {
    GroupNormArgs a;
    int64_t b;

    __device__ void add(int64_t r, int64_t c, float *sum) const
    {
        float xhat;
        const float g =
            inner_grad<T>(a, b, (b * a.rows + r) * a.width + c, &xhat);
        sum[0] += g;
        sum[1] = fmaf(g, xhat, sum[1]);
    }
};

/* per-channel sums of one sample, and per-group means, in scratch */
struct GroupSpace {
    float *sum, *product; /* [width] */
    float *mean, *along;  /* [groups] of g w, g w xhat */
};

/* A thread per group takes the means of its channels' sums, and hands these
 * on to the parameters' gradients. */
template <typename T>
__global__ void group_means_kernel(GroupNormArgs a, GroupSpace s)
{
    const int64_t n = a.width / a.groups;
    const double count = (double)n * (double)a.rows;

    for (int64_t g = first_index(); g < a.groups; g += index_step()) {
        double mean = 0.0, along = 0.0;
        for (int64_t c = g * n; c < (g + 1) * n; ++c) {
            mean += (double)get<T>(a.w, c) * s.sum[c];
            along += (double)get<T>(a.w, c) * s.product[c];
            if (a.dw != NULL)
                put(a.dw, c, get(a.dw, c) + s.product[c]);
            if (a.db != NULL)
                put(a.db, c, get(a.db, c) + s.sum[c]);
        }
        s.mean[g] = (float)(mean / count);
        s.along[g] = (float)(along / count);
    }
}

/* dx = rstd (g w - mean(g w) - xhat mean(g w xhat)), means over the group */
template <typename T>
__global__ void group_norm_grad_kernel(GroupNormArgs a, int64_t b, GroupSpace s)
{
    const int64_t first = b * a.rows * a.width, n = a.width / a.groups;

    for (int64_t i = first_index(); i < a.rows * a.width; i += index_step()) {
        const int64_t c = i % a.width, g = c / n;
        float xhat;
        const float d = inner_grad<T>(a, b, first + i, &xhat) * get<T>(a.w, c);
        put<T>(a.dx, first + i,
               (d - s.mean[g] - xhat * s.along[g]) * a.rstd[b * a.groups + g]);
    }
}

size_t dg_cuda_group_norm_scratch(int64_t width)
{
    return 4 * (size_t)width * sizeof(float); /* at most as many groups */
}

template <typename T> void dg_cuda_group_norm_grad(const GroupNormArgs *a)
{
    GroupSpace s;

    s.sum = (float *)a->scratch;
    s.product = s.sum + a->width;
    s.mean = s.product + a->width;
    s.along = s.mean + a->width;
    for (int64_t b = 0; b < a->batch; ++b) {
        const GroupTerm<T> term = { *a, b };
        const ColumnSums<2, float> to = { { s.sum, s.product } };
        dg_cuda_fill<float>(s.sum, 0.0f, 2 * a->width);
        dg_column_sums(term, a->rows, a->width, to);
        DG_LAUNCH(group_means_kernel<T>, dg_blocks(a->groups, THREADS), THREADS,
                  0, *a, s);
        DG_LAUNCH(group_norm_grad_kernel<T>,
                  dg_blocks(a->rows * a->width, THREADS), THREADS, 0, *a, b, s);
    }
}

/* --- a vector to all rows ------------------------------------------------ */

template <typename T> __global__ void add_rows_kernel(AddRowsArgs a)
{
    const int64_t sample = a.rows * a.width;

    for (int64_t i = first_index(); i < a.batch * sample; i += index_step())
        put<T>(a.y, i,
               get<T>(a.x, i) +
                   get<T>(a.v, i / sample * a.width + i % a.width));
}

/* dy of one sample */
template <typename T> struct RowTerm {
    const float *dy;
    int64_t width;

    __device__ void add(int64_t r, int64_t c, float *sum) const
    {
        sum[0] += get<T>(dy, r * width + c);
    }
};

template <typename T> void dg_cuda_add_rows(const AddRowsArgs *a)
{
    DG_LAUNCH(add_rows_kernel<T>,
              dg_blocks(a->batch * a->rows * a->width, THREADS), THREADS, 0,
              *a);
}

template <typename T> void dg_cuda_add_rows_grad(const AddRowsArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const RowTerm<T> term = { past<T>(a->dy, b * a->rows * a->width),
                                  a->width };
        const ColumnSums<1, T> to = { { past<T>(a->dv, b * a->width) } };
        dg_column_sums(term, a->rows, a->width, to);
    }
}

DG_BOTH(dg_cuda_group_norm, GroupNormArgs)
DG_BOTH(dg_cuda_group_norm_grad, GroupNormArgs)
DG_BOTH(dg_cuda_add_rows, AddRowsArgs)
DG_BOTH(dg_cuda_add_rows_grad, AddRowsArgs)
