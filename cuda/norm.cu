#include "kernels.h"

#include "columns.h"

/*
 * A team of TEAM warps takes a row. A lane keeps the first KEPT of its packs of
 * packed<T> values in registers, so that memory sees them once, and reads those
 * of longer rows again. Sums fold by warp_sum(), then over the team in shared
 * memory. The team's size, and with it the order of sums, follows from the
 * width alone; WIDE: packs are moved as pieces. Blocks of THREADS, each of one
 * sample at a time: blockIdx.y, + gridDim.y ..
 */
enum { KEPT = 4 };

/* A team's row of a sample. */
template <typename T, int TEAM> struct Row {
    static const int V = packed<T>;
    int64_t width; /* 0: there is none, but the team waits with the others */
    int me;        /* lane of the team */

    __device__ Row(const NormArgs &a, int64_t r)
        : width(r < a.rows ? a.width : 0), me((int)threadIdx.x % (TEAM * WARP))
    {
    }
    /* first column of my pack j */
    __device__ int64_t column(int j) const
    {
        return (int64_t)j * (TEAM * WARP * V) + me * V;
    }
    /* how many columns it has */
    __device__ int columns(int j) const
    {
        const int64_t left = width - column(j);

        return left >= V ? V : left > 0 ? (int)left : 0;
    }
    /* f(j, is it kept) for my packs; the second is a type */
    template <typename F> __device__ void each_pack(F f) const
    {
#pragma unroll
        for (int j = 0; j < KEPT; ++j)
            if (columns(j) > 0)
                f(j, std::true_type());
        for (int j = KEPT; columns(j) > 0; ++j)
            f(j, std::false_type());
    }
};

/* What a lane has of one row of values, the first packs in registers. */
template <typename T, int TEAM, int WIDE> struct RowValues {
    typedef Pack<T, packed<T>> P;
    const float *from;
    P kept[KEPT];

    __device__ RowValues(const Row<T, TEAM> &row, const float *from)
        : from(from)
    {
#pragma unroll
        for (int j = 0; j < KEPT; ++j)
            kept[j] = read(row, j);
    }
    __device__ P read(const Row<T, TEAM> &row, int j) const
    {
        return fetch_some<T, WIDE>(from, row.column(j), row.columns(j));
    }
    template <typename K>
    __device__ P pack(const Row<T, TEAM> &row, int j, K) const
    {
        if constexpr (K::value)
            return kept[j];
        else
            return read(row, j);
    }
};

/* the same sum in all lanes of a team; all threads of the block call */
template <int TEAM> __device__ inline float team_sum(float x)
{
    __shared__ float warps[WARPS];
    const int warp = (int)threadIdx.x / WARP, first = warp / TEAM * TEAM;

    x = warp_sum(x);
    if constexpr (TEAM > 1) {
        __syncthreads(); /* the last sum has been read */
        if (threadIdx.x % WARP == 0)
            warps[warp] = x;
        __syncthreads();
        x = warps[first];
#pragma unroll
        for (int w = 1; w < TEAM; ++w)
            x += warps[first + w];
    }
    return x;
}

/* What multiplies xhat in a sample, and what is added: base + factor, offset.
 * NULL: 1 and 0. */
struct NormAffine {
    const float *factor, *offset;
    float base;
};

template <typename T>
__device__ inline NormAffine norm_affine(const NormArgs &a, int64_t b)
{
    const int modulated = a.scale != NULL || a.shift != NULL;
    NormAffine f = { a.w, a.b, 0.0f };

    if (modulated) {
        f.factor = past<T>(a.scale, b * a.ld_mod);
        f.offset = past<T>(a.shift, b * a.ld_mod);
        f.base = 1.0f;
    }
    return f;
}

/* whether all of them, and rows, can be read in pieces */
template <typename T> static int norm_wide(const NormArgs *a)
{
    return a->width % packed<T> == 0 && a->ld_mod % packed<T> == 0 &&
           aligned(a->x, a->y, a->dy, a->dx) &&
           aligned(a->w, a->b, a->shift, a->scale);
}

/* mean and 1/sqrt(variance + eps); RMS: mean 0 */
template <typename T, int TEAM, int WIDE>
__device__ inline void norm_stats(const NormArgs &a, const Row<T, TEAM> &row,
                                  const RowValues<T, TEAM, WIDE> &x,
                                  float *mean, float *rstd)
{
    const float width = (float)a.width;
    float sum = 0.0f, square = 0.0f;

    if (a.kind == DG_NORM_LAYER) {
        row.each_pack([&](int j, auto kept) {
            const Pack<T, packed<T>> p = x.pack(row, j, kept);
#pragma unroll
            for (int k = 0; k < packed<T>; ++k)
                sum += p.at(k); /* zeros beyond the end */
        });
        sum = team_sum<TEAM>(sum) / width;
    }
    row.each_pack([&](int j, auto kept) {
        const Pack<T, packed<T>> p = x.pack(row, j, kept);
        const int n = row.columns(j);
#pragma unroll
        for (int k = 0; k < packed<T>; ++k) {
            const float d = p.at(k) - sum;
            if (WIDE || k < n)
                square = fmaf(d, d, square);
        }
    });
    *mean = sum;
    *rstd = 1.0f / sqrtf(team_sum<TEAM>(square) / width + a.eps);
}

template <typename T, int TEAM, int WIDE>
__device__ inline void norm_row(const NormArgs &a, int64_t b, int64_t r)
{
    const Row<T, TEAM> row(a, r);
    const int64_t at = b * a.rows + r;
    const RowValues<T, TEAM, WIDE> x(row, past<T>(a.x, at * a.width));
    const NormAffine f = norm_affine<T>(a, b);
    float *y = past<T>(a.y, at * a.width);
    float mean, rstd;

    norm_stats<T, TEAM, WIDE>(a, row, x, &mean, &rstd);
    row.each_pack([&](int j, auto kept) {
        const int64_t c = row.column(j);
        const int n = row.columns(j);
        const Pack<T, packed<T>> p = x.pack(row, j, kept);
        Pack<T, packed<T>> factor = {}, offset = {};
        if (f.factor != NULL)
            factor = fetch_some<T, WIDE>(f.factor, c, n);
        if (f.offset != NULL)
            offset = fetch_some<T, WIDE>(f.offset, c, n);
        store_some<T, WIDE>(y, c, n, [&](int k) {
            const float xhat = (p.at(k) - mean) * rstd;
            const float g = f.factor != NULL ? f.base + factor.at(k) : 1.0f;
            return xhat * g + offset.at(k);
        });
    });
    if (row.me == 0 && row.width > 0 && a.mean != NULL)
        a.mean[at] = mean;
    if (row.me == 0 && row.width > 0 && a.rstd != NULL)
        a.rstd[at] = rstd;
}

/* f(b, r) for the rows of all samples, r of a team without one being too
 * large */
template <int TEAM, typename F>
__device__ inline void each_row(const NormArgs &a, F f)
{
    const int64_t tall = WARPS / TEAM;
    const int team = (int)threadIdx.x / (TEAM * WARP);

    for (int64_t b = blockIdx.y; b < a.batch; b += gridDim.y)
        for (int64_t r = blockIdx.x * tall; r < a.rows; r += gridDim.x * tall)
            f(b, r + team);
}

template <typename T, int TEAM, int WIDE>
__global__ void norm_kernel(NormArgs a)
{
    each_row<TEAM>(
        a, [&](int64_t b, int64_t r) { norm_row<T, TEAM, WIDE>(a, b, r); });
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy factor; RMS: without
 * mean(g) */
template <typename T, int TEAM, int WIDE>
__device__ inline void norm_grad_row(const NormArgs &a, int64_t b, int64_t r)
{
    typedef Pack<T, packed<T>> P;
    const Row<T, TEAM> row(a, r);
    const int64_t at = b * a.rows + r;
    const RowValues<T, TEAM, WIDE> x(row, past<T>(a.x, at * a.width));
    const RowValues<T, TEAM, WIDE> dy(row, past<T>(a.dy, at * a.width));
    const float *factor = norm_affine<T>(a, b).factor;
    const float base = norm_affine<T>(a, b).base;
    const int layer = a.kind == DG_NORM_LAYER, has = row.width > 0;
    const float mean = layer && has ? a.mean[at] : 0.0f;
    const float rstd = has ? a.rstd[at] : 0.0f;
    float *dx = past<T>(a.dx, at * a.width);
    float g0 = 0.0f, g1 = 0.0f;

    const auto g = [&](const P &d, const P &w, int k) {
        return factor != NULL ? d.at(k) * (base + w.at(k)) : d.at(k);
    };
    const auto weights = [&](int j) {
        return factor != NULL
                   ? fetch_some<T, WIDE>(factor, row.column(j), row.columns(j))
                   : P {};
    };
    row.each_pack([&](int j, auto kept) {
        const P p = x.pack(row, j, kept), d = dy.pack(row, j, kept);
        const P w = weights(j);
#pragma unroll
        for (int k = 0; k < packed<T>; ++k) { /* dy is 0 beyond the end */
            const float v = g(d, w, k);
            g0 += v;
            g1 = fmaf(v, (p.at(k) - mean) * rstd, g1);
        }
    });
    g0 = layer ? team_sum<TEAM>(g0) / (float)a.width : 0.0f;
    g1 = team_sum<TEAM>(g1) / (float)a.width;
    row.each_pack([&](int j, auto kept) {
        const P p = x.pack(row, j, kept), d = dy.pack(row, j, kept);
        const P w = weights(j);
        const int64_t c = row.column(j);
        const int n = row.columns(j);
        P before = {};
        if (a.accumulate)
            before = fetch_some<T, WIDE>(dx, c, n);
        store_some<T, WIDE>(dx, c, n, [&](int k) {
            const float xhat = (p.at(k) - mean) * rstd;
            const float v = (g(d, w, k) - g0 - xhat * g1) * rstd;
            return a.accumulate ? before.at(k) + v : v;
        });
    });
}

template <typename T, int TEAM, int WIDE>
__global__ void norm_grad_kernel(NormArgs a)
{
    each_row<TEAM>(a, [&](int64_t b, int64_t r) {
        norm_grad_row<T, TEAM, WIDE>(a, b, r);
    });
}

/* --- dx, and the sums of dy xhat and dy over a sample's rows, in one pass ----- */

enum { MOST_SUM_THREADS = 512, MOST_SUM_PARTS = 256, ROWS_PER_SUM = 4 };

/* the same two sums in all threads of a block; turn: 0 and 1 in turns */
__device__ inline void block_sums(float *g0, float *g1, int turn)
{
    __shared__ float warps[2][2][MOST_SUM_THREADS / WARP];
    const int warp = (int)threadIdx.x / WARP, all = (int)blockDim.x / WARP;
    const float mine[2] = { warp_sum(*g0), warp_sum(*g1) };

    for (int i = 0; i < 2 && threadIdx.x % WARP == 0; ++i)
        warps[turn][i][warp] = mine[i];
    __syncthreads(); /* and what the turn before last has left is read */
    *g0 = *g1 = 0.0f;
    for (int w = 0; w < all; ++w) {
        *g0 += warps[turn][0][w];
        *g1 += warps[turn][1][w];
    }
}

/* what a thread has of a row */
template <typename T, int WIDE> struct SumRow {
    Pack<T, packed<T>> x, dy;
    float mean, rstd;

    __device__ void read(const NormArgs &a, int64_t row, int c, int n)
    {
        x = fetch_some<T, WIDE>(a.x, row * a.width + c, n);
        dy = fetch_some<T, WIDE>(a.dy, row * a.width + c, n);
        mean = a.kind == DG_NORM_LAYER ? a.mean[row] : 0.0f;
        rstd = a.rstd[row];
    }
};

/*
 * A block has a thread for each pack of a row, and takes rows blockIdx.x,
 * + gridDim.x .. of sample b; the next one is on its way while a row is worked
 * on. A thread's columns stay its own: it adds what they give to the sums, and
 * leaves them in parts[2][gridDim.x][width]. Shared: two floats a warp, twice.
 */
template <typename T, int WIDE>
__global__ void __launch_bounds__(MOST_SUM_THREADS)
    norm_grad_sums_kernel(NormArgs a, int64_t b, float *parts)
{
    constexpr int V = packed<T>;
    const int c = (int)threadIdx.x * V, layer = a.kind == DG_NORM_LAYER;
    const int left = (int)a.width - c, n = left >= V ? V : left > 0 ? left : 0;
    const NormAffine f = norm_affine<T>(a, b);
    Pack<T, V> w = {};
    float sum[2][V] = {};
    SumRow<T, WIDE> next;

    if (f.factor != NULL)
        w = fetch_some<T, WIDE>(f.factor, c, n);
    if (blockIdx.x < a.rows)
        next.read(a, b * a.rows + blockIdx.x, c, n);
    int turn = 0;
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x, turn ^= 1) {
        const SumRow<T, WIDE> row = next;
        const int64_t at = (b * a.rows + r) * a.width + c;
        float g[V], xhat[V], g0 = 0.0f, g1 = 0.0f;
        Pack<T, V> before = {};
        if (r + gridDim.x < a.rows)
            next.read(a, b * a.rows + r + gridDim.x, c, n);
        if (a.accumulate)
            before = fetch_some<T, WIDE>(a.dx, at, n);
#pragma unroll
        for (int k = 0; k < V; ++k) { /* dy is 0 beyond the end */
            const float d = row.dy.at(k);
            xhat[k] = (row.x.at(k) - row.mean) * row.rstd;
            g[k] = f.factor != NULL ? d * (f.base + w.at(k)) : d;
            g0 += g[k];
            g1 = fmaf(g[k], xhat[k], g1);
            sum[0][k] = fmaf(d, xhat[k], sum[0][k]);
            sum[1][k] += d;
        }
        block_sums(&g0, &g1, turn);
        g0 = layer ? g0 / (float)a.width : 0.0f;
        g1 = g1 / (float)a.width;
        store_some<T, WIDE>(a.dx, at, n, [&](int k) {
            const float dx = (g[k] - g0 - xhat[k] * g1) * row.rstd;
            return a.accumulate ? before.at(k) + dx : dx;
        });
    }
    for (int i = 0; i < 2; ++i) {
        const int64_t to = ((int64_t)i * gridDim.x + blockIdx.x) * a.width + c;
        if constexpr (WIDE) {
            if (n > 0)
                store<float, V>(parts, to, [&](int k) { return sum[i][k]; });
        } else {
#pragma unroll
            for (int k = 0; k < V; ++k)
                if (k < n)
                    put(parts, to + k, sum[i][k]);
        }
    }
}

/* 1: that is how it is done; the row's width and what is wanted decide */
template <typename T> static int in_one_pass(const NormArgs *a)
{
    const int64_t most = (int64_t)MOST_SUM_THREADS * packed<T>;

    return a->dx != NULL && a->width <= most &&
           (a->dw != NULL || a->db != NULL || a->dscale != NULL ||
            a->dshift != NULL);
}

template <typename T> static void grad_and_sums(const NormArgs *a, int64_t b)
{
    const int64_t packs = (a->width + packed<T> - 1) / packed<T>;
    const int threads = (int)((packs + WARP - 1) / WARP * WARP);
    const int64_t wanted = (a->rows + ROWS_PER_SUM - 1) / ROWS_PER_SUM;
    const int64_t parts =
        wanted < MOST_SUM_PARTS ? wanted : (int64_t)MOST_SUM_PARTS;
    float *work = dg_cuda_current()->workspace;
    const ColumnSums<2, float> own = { { a->dw, a->db } };
    const ColumnSums<2, T> mod = { { past<T>(a->dscale, b * a->ld_mod),
                                     past<T>(a->dshift, b * a->ld_mod) } };

    static_assert(2 * MOST_SUM_PARTS * MOST_SUM_THREADS * packed<T> <=
                      DG_WORKSPACE_FLOATS,
                  "the parts fit");
    if (norm_wide<T>(a))
        DG_LAUNCH((norm_grad_sums_kernel<T, 1>), dim3((unsigned)parts), threads,
                  0, *a, b, work);
    else
        DG_LAUNCH((norm_grad_sums_kernel<T, 0>), dim3((unsigned)parts), threads,
                  0, *a, b, work);
    if (a->dw != NULL || a->db != NULL)
        dg_column_fold(parts, a->width, own);
    if (a->dscale != NULL || a->dshift != NULL)
        dg_column_fold(parts, a->width, mod);
}

/* --- the sums alone ------------------------------------------------------- */

/* dy xhat and dy of one sample, summed over rows */
template <typename T> struct NormTerm {
    static const int most = packed<T>;
    const float *x, *dy, *mean, *rstd; /* mean NULL: 0 */
    int64_t width;

    template <int V>
    __device__ void add(int64_t r, int64_t c, float (&sum)[2][V]) const
    {
        const Pack<T, V> p = fetch<T, V>(x, r * width + c);
        const Pack<T, V> d = fetch<T, V>(dy, r * width + c);
        const float centre = mean != NULL ? mean[r] : 0.0f, scale = rstd[r];
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float g = d.at(k);
            sum[0][k] = fmaf(g, (p.at(k) - centre) * scale, sum[0][k]);
            sum[1][k] += g;
        }
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
        dg_column_sums(term, a->rows, a->width, aligned(a->x, a->dy), to);
}

template <int TEAM> static dim3 norm_grid(const NormArgs *a)
{
    return dim3(dg_blocks(a->rows, WARPS / TEAM).x, dg_side(a->batch));
}

#define LAUNCH_TEAM(kernel, T, TEAM, a)                                     \
    do {                                                                    \
        if (norm_wide<T>(a))                                                \
            DG_LAUNCH((kernel<T, TEAM, 1>), norm_grid<TEAM>(a), THREADS, 0, \
                      *(a));                                                \
        else                                                                \
            DG_LAUNCH((kernel<T, TEAM, 0>), norm_grid<TEAM>(a), THREADS, 0, \
                      *(a));                                                \
    } while (0)

/* the smallest team that keeps a row, or a whole block */
#define LAUNCH_NORM(kernel, T, a)                     \
    do {                                              \
        const int64_t kept = KEPT * WARP * packed<T>; \
        if ((a)->width <= kept)                       \
            LAUNCH_TEAM(kernel, T, 1, a);             \
        else if ((a)->width <= 2 * kept)              \
            LAUNCH_TEAM(kernel, T, 2, a);             \
        else if ((a)->width <= 4 * kept)              \
            LAUNCH_TEAM(kernel, T, 4, a);             \
        else                                          \
            LAUNCH_TEAM(kernel, T, WARPS, a);         \
    } while (0)

template <typename T> void dg_cuda_norm(const NormArgs *a)
{
    LAUNCH_NORM(norm_kernel, T, a);
}

template <typename T> void dg_cuda_norm_grad(const NormArgs *a)
{
    const int once = in_one_pass<T>(a);

    if (a->dx != NULL && !once)
        LAUNCH_NORM(norm_grad_kernel, T, a);
    for (int64_t b = 0; once && b < a->batch; ++b)
        grad_and_sums<T>(a, b);
    for (int64_t b = 0; !once && b < a->batch; ++b) {
        param_grad<T, float>(a, b, a->dw, a->db);
        param_grad<T, T>(a, b, past<T>(a->dscale, b * a->ld_mod),
                         past<T>(a->dshift, b * a->ld_mod));
    }
}

DG_BOTH(dg_cuda_norm, NormArgs)
DG_BOTH(dg_cuda_norm_grad, NormArgs)
