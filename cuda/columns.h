#ifndef DG_CUDA_COLUMNS_H
#define DG_CUDA_COLUMNS_H
/*
 * Sums over the rows of one sample, column by column, in an order that
 * depends on the number of rows and columns alone: a block of 32 columns and
 * 8 threads each takes every (8 parts)-th row, folds the 8, and leaves one
 * partial sum per part; the parts are then added in order. Used for gradients
 * of biases, of norms' weights and of modulations. Internal to cuda.
 */
#include "device.h"
#include "stream.h"

enum { COLUMN_SLICES = 8, ROWS_PER_PART = 64, MOST_PARTS = 64 };

/* N sums per column; each is added to to[n][column], stored as D; NULL: left
 * out */
template <int N, typename D> struct ColumnSums {
    float *to[N];
};

/*
 * Block (32, COLUMN_SLICES), grid (columns / 32, parts). Thread (x, y) adds
 * rows y, y + 8 parts .. of column x. Term::add(row, column, sum) adds to N
 * sums. Shared: 8 x 32 sums of each of the N, static.
 */
template <int N, typename Term>
__global__ void column_parts_kernel(Term term, int64_t rows, int64_t width,
                                    float *parts)
{
    __shared__ float folded[N][COLUMN_SLICES][WARP];
    const int x = (int)threadIdx.x, y = (int)threadIdx.y;
    const int64_t c = (int64_t)blockIdx.x * WARP + x;
    float sum[N];

    for (int n = 0; n < N; ++n)
        sum[n] = 0.0f;
    for (int64_t r = (int64_t)blockIdx.y * COLUMN_SLICES + y;
         c < width && r < rows; r += (int64_t)gridDim.y * COLUMN_SLICES)
        term.add(r, c, sum);
    for (int n = 0; n < N; ++n)
        folded[n][y][x] = sum[n];
    for (int half = COLUMN_SLICES / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int n = 0; n < N && y < half; ++n)
            folded[n][y][x] += folded[n][y + half][x];
    }
    for (int n = 0; n < N && y == 0 && c < width; ++n)
        parts[((int64_t)n * gridDim.y + blockIdx.y) * width + c] =
            folded[n][0][x];
}

/* A thread per column adds the parts in order, then the result. */
template <int N, typename D>
__global__ void column_fold_kernel(const float *parts, int num_parts,
                                   int64_t width, ColumnSums<N, D> sums)
{
    for (int64_t c = first_index(); c < width; c += index_step())
        for (int n = 0; n < N; ++n) {
            float sum = 0.0f;
            for (int p = 0; p < num_parts; ++p)
                sum += parts[((int64_t)n * num_parts + p) * width + c];
            if (sums.to[n] != NULL)
                put<D>(sums.to[n], c, get<D>(sums.to[n], c) + sum);
        }
}

/** Adds the sums of one sample. At most DG_WORKSPACE_FLOATS / N columns. */
template <int N, typename D, typename Term>
void dg_column_sums(const Term &term, int64_t rows, int64_t width,
                    const ColumnSums<N, D> &sums)
{
    const int64_t fit = DG_WORKSPACE_FLOATS / (N * (width > 0 ? width : 1));
    const int64_t wanted = (rows + ROWS_PER_PART - 1) / ROWS_PER_PART;
    const int64_t most = MOST_PARTS;
    int64_t parts = wanted < most ? wanted : most;
    float *work = dg_cuda_current()->workspace;

    if (fit < 1)
        dg_panic("sums over %lld columns, at most %d", (long long)width,
                 DG_WORKSPACE_FLOATS / N);
    parts = parts < fit ? parts : fit;
    if (rows < 1 || width < 1)
        return;
    DG_LAUNCH((column_parts_kernel<N, Term>),
              dim3((unsigned)((width + WARP - 1) / WARP), (unsigned)parts),
              dim3(WARP, COLUMN_SLICES), 0, term, rows, width, work);
    DG_LAUNCH((column_fold_kernel<N, D>), dg_blocks(width, THREADS), THREADS, 0,
              (const float *)work, (int)parts, width, sums);
}

#endif
