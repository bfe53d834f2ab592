#include "conv_turn.h"

#include "stream.h"

enum { TURN_CHANNELS = 64, QUAD = 4 };

/*
 * [out, in, taps] to [out, taps, in], or back. A block takes one o and
 * TURN_CHANNELS c at a time, which stand in a row in the one, and tap by tap in
 * the other. Shared: their values.
 */
template <bool BACK>
__global__ void conv_turn_kernel(float *to, const float *from, int64_t out,
                                 int in, int taps)
{
    const int chunks = (in + TURN_CHANNELS - 1) / TURN_CHANNELS;

    for (int64_t i = blockIdx.x; i < out * chunks; i += gridDim.x) {
        const int64_t o = i / chunks;
        const int c0 = (int)(i - o * chunks) * TURN_CHANNELS;
        const int num = in - c0 < TURN_CHANNELS ? in - c0 : (int)TURN_CHANNELS;
        const int64_t row = (o * in + c0) * taps; /* as in the files */

        __syncthreads(); /* done with what was there */
        for (int k = (int)threadIdx.x; k < num * taps; k += THREADS) {
            const int t = k / num, c = k - t * num;
            if (BACK)
                dg_cuda_shared[c * taps + t] =
                    get(from, (o * taps + t) * in + c0 + c);
            else
                dg_cuda_shared[k] = get<__nv_bfloat16>(from, row + k);
        }
        __syncthreads();
        for (int k = (int)threadIdx.x; k < num * taps; k += THREADS) {
            const int t = k / num, c = k - t * num;
            if (BACK)
                put(to, row + k, get(to, row + k) + dg_cuda_shared[k]);
            else
                put<__nv_bfloat16>(to, (o * taps + t) * in + c0 + c,
                                   dg_cuda_shared[c * taps + t]);
        }
    }
}

template <bool BACK>
static void turn(float *to, const float *from, const ConvArgs *a)
{
    const int64_t chunks = (a->in + TURN_CHANNELS - 1) / TURN_CHANNELS;
    const int taps = (int)(a->kernel_h * a->kernel_w);

    DG_LAUNCH(conv_turn_kernel<BACK>, dg_blocks(a->out * chunks, 1), THREADS,
              (size_t)(TURN_CHANNELS * taps) * sizeof(float), to, from, a->out,
              (int)a->in, taps);
}

void dg_cuda_conv_turn(float *to, const ConvArgs *a)
{
    turn<false>(to, a->weight, a);
}

void dg_cuda_conv_turn_back(const float *sums, const ConvArgs *a)
{
    turn<true>(a->dweight, sums, a);
}

/* rows and columns that windows see */
__host__ __device__ inline int64_t seen_rows(const ConvArgs &a)
{
    return a.zoom * a.h - a.cut_h;
}
__host__ __device__ inline int64_t seen_columns(const ConvArgs &a)
{
    return a.zoom * a.w - a.cut_w;
}

/* A thread takes QUAD channels of pixels of 'to'; no shared memory. */
__global__ void conv_zoom_kernel(float *to, const float *x, ConvArgs a,
                                 int64_t quads)
{
    const int64_t row = seen_columns(a) * (a.in / QUAD);
    const int half = a.zoom == 2;

    for (int64_t i = first_index(); i < quads; i += index_step()) {
        const int64_t y = i / row, left = i - y * row;
        const int64_t column = left / (a.in / QUAD);
        const int64_t c = (left - column * (a.in / QUAD)) * QUAD;
        const int64_t from = ((y >> half) * a.w + (column >> half)) * a.in + c;

#pragma unroll
        for (int e = 0; e < QUAD; ++e)
            put<__nv_bfloat16>(to, i * QUAD + e,
                               get<__nv_bfloat16>(x, from + e));
    }
}

void dg_cuda_conv_zoom(float *to, const float *x, const ConvArgs *a)
{
    const int64_t quads = seen_rows(*a) * seen_columns(*a) * (a->in / QUAD);

    DG_LAUNCH(conv_zoom_kernel, dg_blocks(quads, THREADS), THREADS, 0, to, x,
              *a, quads);
}

/* A thread takes QUAD channels of pixels of dx; no shared memory. */
__global__ void conv_pool_kernel(float *dx, const float *sums, ConvArgs a,
                                 int64_t quads)
{
    const int64_t row = a.w * (a.in / QUAD);
    const int zoom = (int)a.zoom;

    for (int64_t i = first_index(); i < quads; i += index_step()) {
        const int64_t y = i / row, left = i - y * row;
        const int64_t x = left / (a.in / QUAD);
        const int64_t c = (left - x * (a.in / QUAD)) * QUAD;
        float all[QUAD] = {};

        for (int z = 0; z < zoom * zoom; ++z) {
            const int64_t zy = y * zoom + z / zoom, zx = x * zoom + z % zoom;
            const int64_t at = (zy * seen_columns(a) + zx) * a.in + c;
            if (zy >= seen_rows(a) || zx >= seen_columns(a))
                continue;
#pragma unroll
            for (int e = 0; e < QUAD; ++e)
                all[e] += get(sums, at + e);
        }
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            if (a.accumulate)
                all[e] += get<__nv_bfloat16>(dx, i * QUAD + e);
            put<__nv_bfloat16>(dx, i * QUAD + e, all[e]);
        }
    }
}

void dg_cuda_conv_pool(float *dx, const float *sums, const ConvArgs *a)
{
    const int64_t quads = a->h * a->w * (a->in / QUAD);

    DG_LAUNCH(conv_pool_kernel, dg_blocks(quads, THREADS), THREADS, 0, dx, sums,
              *a, quads);
}
