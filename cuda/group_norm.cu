#include "kernels.h"

#include "act.h"
#include "columns.h"

/*
 * A thread keeps a pack of channels and goes through rows, as in columns.h,
 * blockIdx.z being the sample: what belongs to a channel is read once. Sums over
 * a group are double, column by column, parts added in order. Blocks of
 * (COLUMN_LANES, COLUMN_SLICES).
 */

__device__ inline double warp_sum_double(double x)
{
    for (int half = WARP / 2; half > 0; half /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}

/* group of a channel */
__device__ inline int64_t group_of(const GroupNormArgs &a, int64_t c)
{
    return (uint32_t)c / (uint32_t)(a.width / a.groups);
}

/* the first value of a group in sample b */
template <typename T>
__device__ inline float group_pivot(const GroupNormArgs &a, int64_t b,
                                    int64_t group)
{
    return get<T>(a.x, b * a.rows * a.width + group * (a.width / a.groups));
}

/*
 * Sums of x - pivot and of its square over the rows of one part, for each
 * channel; the pivot being its group's first element: what varies little around
 * a large mean keeps its digits. To parts[sample - first][part][2][width].
 * Shared: the doubles of column_fold().
 */
template <typename T, int V>
__global__ void group_parts_kernel(GroupNormArgs a, int64_t first,
                                   double *parts)
{
    const int64_t c = first_column<V>(), b = first + blockIdx.z;
    const int64_t part = (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
    double sum[2][V] = {};
    float pivot[V] = {};

#pragma unroll
    for (int k = 0; k < V; ++k)
        if (c < a.width)
            pivot[k] = group_pivot<T>(a, b, group_of(a, c + k));
#pragma unroll 2
    for (int64_t r = first_row(); c < a.width && r < a.rows; r += row_step()) {
        const Pack<T, V> x = fetch<T, V>(a.x, (b * a.rows + r) * a.width + c);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const double d = x.at(k) - pivot[k];
            sum[0][k] += d;
            sum[1][k] = fma(d, d, sum[1][k]);
        }
    }
    column_fold<2, V>(sum);
    for (int i = 0; i < 2 * V && threadIdx.y == 0 && c < a.width; ++i)
        parts[(part * 2 + i / V) * a.width + c + i % V] = sum[i / V][i % V];
}

/* A warp takes a group and adds its channels of all parts. */
template <typename T>
__global__ void group_stats_kernel(GroupNormArgs a, int64_t first, int64_t num,
                                   int num_parts, const double *parts)
{
    const int64_t n = a.width / a.groups, lane = threadIdx.x % WARP;
    const double count = (double)(a.rows * n);

    for (int64_t i = warp_index(); i < num * a.groups; i += warp_step()) {
        const int64_t s = i / a.groups, g = i % a.groups;
        const double *from = parts + s * num_parts * 2 * a.width + g * n;
        double sum = 0.0, square = 0.0;
        for (int64_t j = lane; j < num_parts * n; j += WARP) {
            const double *at = from + j / n * 2 * a.width + j % n;
            sum += at[0];
            square += at[a.width];
        }
        sum = warp_sum_double(sum) / count;
        square = warp_sum_double(square) / count;
        if (lane != 0)
            continue;
        const int64_t group = first * a.groups + i;
        a.mean[group] = (float)(group_pivot<T>(a, first + s, g) + sum);
        a.rstd[group] = (float)(1.0 / sqrt(square - sum * sum + (double)a.eps));
    }
}

/* What belongs to a pack of channels of one sample. */
template <typename T, int V> struct Channels {
    float mean[V], rstd[V];
    Pack<T, V> w, b;

    __device__ Channels(const GroupNormArgs &a, int64_t sample, int64_t c)
        : w(fetch<T, V>(a.w, c)), b(fetch<T, V>(a.b, c))
    {
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const int64_t group = sample * a.groups + group_of(a, c + k);
            mean[k] = a.mean[group];
            rstd[k] = a.rstd[group];
        }
    }
    __device__ float xhat(const Pack<T, V> &x, int k) const
    {
        return (x.at(k) - mean[k]) * rstd[k];
    }
    __device__ float affine(float xhat, int k) const
    {
        return fmaf(xhat, w.at(k), b.at(k));
    }
    /* dy act'(.), and xhat */
    __device__ float inner_grad(Act act, const Pack<T, V> &x,
                                const Pack<T, V> &dy, int k, float *h) const
    {
        float slope;

        *h = xhat(x, k);
        act_both(act, affine(*h, k), &slope);
        return dy.at(k) * slope;
    }
};

template <typename T, int V>
__global__ void group_norm_kernel(GroupNormArgs a, int64_t first)
{
    const int64_t c = first_column<V>(), b = first + blockIdx.z;

    if (c >= a.width)
        return;
    const Channels<T, V> own(a, b, c);
    for (int64_t r = first_row(); r < a.rows; r += row_step()) {
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> x = fetch<T, V>(a.x, i);
        store<T, V>(a.y, i, [&](int k) {
            return act_value(a.act, own.affine(own.xhat(x, k), k));
        });
    }
}

/* rows in parts that keep a device busy; what is elementwise has no order */
static dim3 group_grid(const GroupNormArgs *a, int V, int64_t num)
{
    const int64_t tall = 4 * COLUMN_SLICES;
    const int64_t parts = (a->rows + tall - 1) / tall;
    dim3 grid = column_grid(a->width, V, dg_side(parts));

    grid.z = (unsigned)num;
    return grid;
}

template <typename T, int V> static void group_norm(const GroupNormArgs *a)
{
    const int64_t room = DG_WORKSPACE_FLOATS / 2 / (2 * a->width); /* doubles */
    const int64_t parts = column_parts(a->rows, room);
    const int64_t fit = room > 0 ? room / parts : 0;
    const int64_t most = dg_side(fit);
    double *work = (double *)dg_cuda_current()->workspace;

    if (fit < 1)
        dg_panic("group norm of %lld channels: too many", (long long)a->width);
    for (int64_t first = 0; first < a->batch; first += most) {
        const int64_t num = a->batch - first < most ? a->batch - first : most;
        dim3 grid = column_grid(a->width, V, parts);
        grid.z = (unsigned)num;
        DG_LAUNCH((group_parts_kernel<T, V>), grid, column_block(), 0, *a,
                  first, work);
        DG_LAUNCH(group_stats_kernel<T>, dg_blocks(num * a->groups, WARPS),
                  THREADS, 0, *a, first, num, (int)parts, (const double *)work);
        DG_LAUNCH((group_norm_kernel<T, V>), group_grid(a, V, num),
                  column_block(), 0, *a, first);
    }
}

template <typename T> static int group_wide(const GroupNormArgs *a)
{
    return a->width % packed<T> == 0 && aligned(a->x, a->w, a->b, a->y) &&
           aligned(a->dy, a->dx);
}

template <typename T> void dg_cuda_group_norm(const GroupNormArgs *a)
{
    if (a->batch < 1 || a->rows < 1 || a->width < 1)
        return;
    if (group_wide<T>(a))
        group_norm<T, packed<T>>(a);
    else
        group_norm<T, 1>(a);
}

/* --- backward ------------------------------------------------------------ */

/* g and g xhat of sample b, summed over rows */
template <typename T> struct GroupTerm {
    static const int most = packed<T>;
    GroupNormArgs a;
    int64_t b;

    template <int V>
    __device__ void add(int64_t r, int64_t c, float (&sum)[2][V]) const
    {
        const Channels<T, V> own(a, b, c);
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> x = fetch<T, V>(a.x, i), dy = fetch<T, V>(a.dy, i);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            float xhat;
            const float g = own.inner_grad(a.act, x, dy, k, &xhat);
            sum[0][k] += g;
            sum[1][k] = fmaf(g, xhat, sum[1][k]);
        }
    }
};

/* per-channel sums of one sample, and per-group means, in scratch */
struct GroupSpace {
    float *sum, *product; /* [width] */
    float *mean, *along;  /* [groups] of g w, g w xhat */
};

/* A warp takes a group: the means of its channels' sums; these go on to the
 * parameters' gradients. */
template <typename T>
__global__ void group_means_kernel(GroupNormArgs a, GroupSpace s)
{
    const int64_t n = a.width / a.groups, lane = threadIdx.x % WARP;
    const double count = (double)n * (double)a.rows;

    for (int64_t g = warp_index(); g < a.groups; g += warp_step()) {
        double mean = 0.0, along = 0.0;
        for (int64_t c = g * n + lane; c < (g + 1) * n; c += WARP) {
            mean += (double)get<T>(a.w, c) * s.sum[c];
            along += (double)get<T>(a.w, c) * s.product[c];
            if (a.dw != NULL)
                put(a.dw, c, get(a.dw, c) + s.product[c]);
            if (a.db != NULL)
                put(a.db, c, get(a.db, c) + s.sum[c]);
        }
        mean = warp_sum_double(mean);
        along = warp_sum_double(along);
        if (lane == 0) {
            s.mean[g] = (float)(mean / count);
            s.along[g] = (float)(along / count);
        }
    }
}

/* dx = rstd (g w - mean(g w) - xhat mean(g w xhat)), means over the group */
template <typename T, int V>
__global__ void group_norm_grad_kernel(GroupNormArgs a, int64_t b, GroupSpace s)
{
    const int64_t c = first_column<V>();
    float mean[V], along[V];

    if (c >= a.width)
        return;
    const Channels<T, V> own(a, b, c);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        mean[k] = s.mean[group_of(a, c + k)];
        along[k] = s.along[group_of(a, c + k)];
    }
    for (int64_t r = first_row(); r < a.rows; r += row_step()) {
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> x = fetch<T, V>(a.x, i), dy = fetch<T, V>(a.dy, i);
        store<T, V>(a.dx, i, [&](int k) {
            float xhat;
            const float g = own.inner_grad(a.act, x, dy, k, &xhat);
            const float d = g * own.w.at(k);
            return (d - mean[k] - xhat * along[k]) * own.rstd[k];
        });
    }
}

size_t dg_cuda_group_norm_scratch(int64_t width)
{
    return 4 * (size_t)width * sizeof(float); /* at most as many groups */
}

template <typename T> void dg_cuda_group_norm_grad(const GroupNormArgs *a)
{
    const int wide = group_wide<T>(a);
    GroupSpace s;

    s.sum = (float *)a->scratch;
    s.product = s.sum + a->width;
    s.mean = s.product + a->width;
    s.along = s.mean + a->width;
    for (int64_t b = 0; b < a->batch; ++b) {
        const GroupTerm<T> term = { *a, b };
        const ColumnSums<2, float> to = { { s.sum, s.product } };
        dg_cuda_fill<float>(s.sum, 0.0f, 2 * a->width);
        dg_column_sums(term, a->rows, a->width, wide, to);
        DG_LAUNCH(group_means_kernel<T>, dg_blocks(a->groups, WARPS), THREADS,
                  0, *a, s);
        if (wide)
            DG_LAUNCH((group_norm_grad_kernel<T, packed<T>>),
                      group_grid(a, packed<T>, 1), column_block(), 0, *a, b, s);
        else
            DG_LAUNCH((group_norm_grad_kernel<T, 1>), group_grid(a, 1, 1),
                      column_block(), 0, *a, b, s);
    }
}

/* --- a vector to all rows ------------------------------------------------ */

template <typename T, int V>
__global__ void add_rows_kernel(AddRowsArgs a, Plane p)
{
    each_of_plane<V>(p, [&](int64_t b, int64_t r, int64_t c) {
        const int64_t i = (b * a.rows + r) * a.width + c;
        const Pack<T, V> x = fetch<T, V>(a.x, i);
        const Pack<T, V> v = fetch<T, V>(a.v, b * a.width + c);
        store<T, V>(a.y, i, [&](int k) { return x.at(k) + v.at(k); });
    });
}

template <typename T> void dg_cuda_add_rows(const AddRowsArgs *a)
{
    DG_LAUNCH_PLANE(add_rows_kernel, T, aligned(a->x, a->v, a->y), a->batch,
                    a->rows, a->width, *a);
}

template <typename T> void dg_cuda_add_rows_grad(const AddRowsArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const RowTerm<T> term = { past<T>(a->dy, b * a->rows * a->width),
                                  a->width };
        const ColumnSums<1, T> to = { { past<T>(a->dv, b * a->width) } };
        dg_column_sums(term, a->rows, a->width, aligned(a->dy), to);
    }
}

DG_BOTH(dg_cuda_group_norm, GroupNormArgs)
DG_BOTH(dg_cuda_group_norm_grad, GroupNormArgs)
DG_BOTH(dg_cuda_add_rows, AddRowsArgs)
DG_BOTH(dg_cuda_add_rows_grad, AddRowsArgs)
