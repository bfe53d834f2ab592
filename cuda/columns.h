#ifndef DG_CUDA_COLUMNS_H
#define DG_CUDA_COLUMNS_H
/*
 * Sums over the rows of one sample, column by column, in an order that
 * depends on the number of rows and columns alone: 32 slices of a part take
 * every (32 parts)-th row each and are folded, which leaves one sum per part;
 * the parts are added in the same way. Used for gradients of biases, of norms'
 * weights and of modulations. Internal to cuda.
 */
#include "wide.h"

/* A block: 8 lanes side by side, as 8 pieces are what memory moves at once, and
 * slices of rows. */
enum {
    COLUMN_LANES = 8,
    COLUMN_SLICES = THREADS / COLUMN_LANES,
    ROWS_PER_PART = 128,
    MOST_PARTS = 64,
    FEW_PARTS = 8 /* are one thread's */
};

/* N sums per column; each is added to to[n][column], stored as D; NULL: left
 * out */
template <int N, typename D> struct ColumnSums {
    float *to[N];
};

/* a matrix's own values */
template <typename T> struct RowTerm {
    static const int most = packed<T>;
    const float *x;
    int64_t width;

    template <int V>
    __device__ void add(int64_t r, int64_t c, float (&sum)[1][V]) const
    {
        const Pack<T, V> v = fetch<T, V>(x, r * width + c);
#pragma unroll
        for (int k = 0; k < V; ++k)
            sum[0][k] += v.at(k);
    }
};

/* The sums of all slices, slice y's being mine, to those with y = 0. */
template <int N, int V, typename S>
__device__ inline void column_fold(S (&mine)[N][V])
{
    __shared__ S folded[N][V][COLUMN_SLICES][COLUMN_LANES];
    const int x = (int)threadIdx.x, y = (int)threadIdx.y;

#pragma unroll
    for (int i = 0; i < N * V; ++i)
        folded[i / V][i % V][y][x] = mine[i / V][i % V];
    for (int half = COLUMN_SLICES / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int i = 0; i < N * V && y < half; ++i)
            folded[i / V][i % V][y][x] += folded[i / V][i % V][y + half][x];
    }
#pragma unroll
    for (int i = 0; i < N * V; ++i)
        if (y == 0)
            mine[i / V][i % V] = folded[i / V][i % V][0][x];
}

/* The first column of a thread's pack, and its first row. */
template <int V> __device__ inline int64_t first_column(void)
{
    return ((int64_t)blockIdx.x * COLUMN_LANES + threadIdx.x) * V;
}
__device__ inline int64_t first_row(void)
{
    return (int64_t)blockIdx.y * COLUMN_SLICES + threadIdx.y;
}
__device__ inline int64_t row_step(void)
{
    return (int64_t)gridDim.y * COLUMN_SLICES;
}

/*
 * Block (COLUMN_LANES, COLUMN_SLICES), grid (packs / COLUMN_LANES, parts): a
 * thread adds its rows of a pack of V columns. Term::add(row, column, sum) adds
 * to N sums of V columns, V being Term::most or 1. Shared: a sum of each thread
 * and column, static.
 */
template <int N, int V, typename Term>
__global__ void column_parts_kernel(Term term, int64_t rows, int64_t width,
                                    float *parts)
{
    const int64_t c = first_column<V>();
    float sum[N][V] = {};

#pragma unroll 4
    for (int64_t r = first_row(); c < width && r < rows; r += row_step())
        term.add(r, c, sum);
    column_fold<N, V>(sum);
    for (int n = 0; n < N && threadIdx.y == 0 && c < width; ++n)
        store<float, V>(parts,
                        ((int64_t)n * gridDim.y + blockIdx.y) * width + c,
                        [&](int k) { return sum[n][k]; });
}

/* Block and grid of the same form: slices of parts, folded, then the result. */
template <int N, typename D>
__global__ void column_fold_kernel(const float *parts, int num_parts,
                                   int64_t width, ColumnSums<N, D> sums)
{
    const int64_t c = first_column<1>();
    float sum[N][1] = {};

    for (int n = 0; n < N && c < width; ++n) {
#pragma unroll 4
        for (int p = (int)threadIdx.y; p < num_parts; p += COLUMN_SLICES)
            sum[n][0] += parts[((int64_t)n * num_parts + p) * width + c];
    }
    column_fold<N, 1>(sum);
    for (int n = 0; n < N && threadIdx.y == 0 && c < width; ++n)
        if (sums.to[n] != NULL)
            put<D>(sums.to[n], c, get<D>(sums.to[n], c) + sum[n][0]);
}

/* A thread per column adds few parts, in order, then the result. */
template <int N, typename D>
__global__ void column_few_kernel(const float *parts, int num_parts,
                                  int64_t width, ColumnSums<N, D> sums)
{
    for (int64_t c = first_index(); c < width; c += index_step())
        for (int n = 0; n < N; ++n) {
            float sum = 0.0f;
#pragma unroll 4
            for (int p = 0; p < num_parts; ++p)
                sum += parts[((int64_t)n * num_parts + p) * width + c];
            if (sums.to[n] != NULL)
                put<D>(sums.to[n], c, get<D>(sums.to[n], c) + sum);
        }
}

/* of columns in packs of V; parts of rows */
static inline dim3 column_grid(int64_t width, int V, int64_t parts)
{
    const int64_t wide = (int64_t)COLUMN_LANES * V;

    return dim3((unsigned)((width + wide - 1) / wide), (unsigned)parts);
}

static inline dim3 column_block(void)
{
    return dim3(COLUMN_LANES, COLUMN_SLICES);
}

/* parts of rows, fewer than 'most' */
static inline int64_t column_parts(int64_t rows, int64_t most)
{
    const int64_t wanted = (rows + ROWS_PER_PART - 1) / ROWS_PER_PART;

    most = most < MOST_PARTS ? most : (int64_t)MOST_PARTS;
    return wanted < most ? wanted : most;
}

/** Adds the parts that stand in the workspace, [N, parts, width]. */
template <int N, typename D>
void dg_column_fold(int64_t parts, int64_t width, const ColumnSums<N, D> &sums)
{
    const float *work = dg_cuda_current()->workspace;

    if (parts <= FEW_PARTS)
        DG_LAUNCH((column_few_kernel<N, D>), dg_blocks(width, THREADS), THREADS,
                  0, work, (int)parts, width, sums);
    else
        DG_LAUNCH((column_fold_kernel<N, D>), column_grid(width, 1, 1),
                  column_block(), 0, work, (int)parts, width, sums);
}

/** Adds the sums of one sample; 'wide': what the term reads lets pieces be
 *  moved, but for the width. At most DG_WORKSPACE_FLOATS / N columns. */
template <int N, typename D, typename Term>
void dg_column_sums(const Term &term, int64_t rows, int64_t width, int wide,
                    const ColumnSums<N, D> &sums)
{
    constexpr int V = Term::most;
    const int64_t fit = DG_WORKSPACE_FLOATS / (N * (width > 0 ? width : 1));
    const int64_t parts = column_parts(rows, fit);
    float *work = dg_cuda_current()->workspace;

    if (fit < 1)
        dg_panic("sums over %lld columns, at most %d", (long long)width,
                 DG_WORKSPACE_FLOATS / N);
    if (rows < 1 || width < 1)
        return;
    if (wide && width % V == 0)
        DG_LAUNCH((column_parts_kernel<N, V, Term>),
                  column_grid(width, V, parts), column_block(), 0, term, rows,
                  width, work);
    else
        DG_LAUNCH((column_parts_kernel<N, 1, Term>),
                  column_grid(width, 1, parts), column_block(), 0, term, rows,
                  width, work);
    dg_column_fold(parts, width, sums);
}

#endif
