#include "conv_mma.h"

#include "mma.h"
#include "stream.h"

/*
 * dw[o, c, t] += sum over pixels of dy[pixel, o] x[pixel + t, c], as it stands
 * in the files: tap within channel. A block takes 64 channels o, 32 channels c
 * and all nine taps; patches of 8 x 8 pixels pass by, what the taps see of x
 * once for all nine. A warp takes all 64 o and 8 c.
 *
 * Where a sample's tiles fill a device the sums begin from dw and go on from
 * patch to patch and sample to sample. (Tensor cores are said to cut what they
 * add where float32 rounds: over k steps of 16 pixels a sum may fall short by
 * 2^-24 k of itself. Rounded additions would read and write dw once a sample.)
 * Else a sample's patches are split into parts, by its sizes alone, all samples'
 * parts are worked on at once, and a second kernel adds them, sample after
 * sample.
 */
#ifndef DG_CONV_MANY_TILES /* of a sample: no parts; tests take less */
#define DG_CONV_MANY_TILES 180
#endif

namespace
{

enum {
    ROWS = 64,     /* o of a block */
    CHANNELS = 32, /* c of a block */
    EIGHT = 8,     /* c of a warp */
    PIXELS = SIDE * SIDE,
    DY_PAIRS = ROWS / 2 + 4, /* of a pixel: rows apart in the banks */
    X_PAIRS = CHANNELS / 2 + 4,
    DY_ALL = PIXELS * DY_PAIRS,
    WIDTH = CHANNELS * TAPS,
    SLAB = 16, /* o whose sums change places at once */
    SLAB_PITCH = WIDTH + 4,
    GRAD_THREADS = CHANNELS / EIGHT * WARP,
    WANTED_TILES = 132
};

/* 'v.to' is dy, 'v.from' x; parts 0: no scratch */
typedef struct Gradient {
    Windows v;
    float *dw;   /* [out, in, 9] */
    float *sums; /* [batch, parts, out, in, 9] */
} Gradient;

template <int STRIDE> struct Stage {
    enum {
        HALO = SIDE * STRIDE - STRIDE + 3,
        SEEN = HALO * HALO,
        PAIRS = DY_ALL + SEEN * X_PAIRS,
        BYTES = 2 * PAIRS * 4
    };
};

typedef float Taps[ROWS / 16][TAPS][4];

/* dy of a patch, on its way to shared memory: a thread has eight channels o of
 * every second row's pixel */
__device__ inline void dy_copy(const Windows &v, const Patch &p, Pair *to)
{
    enum { UNITS = ROWS / 8, STEP = GRAD_THREADS / UNITS / SIDE };
    const int thread = thread_here();
    const int out = worked_out_here(v.out);
    const int row = p.row + thread / UNITS / SIDE, unit = thread % UNITS;
    const int column = p.column + thread / UNITS % SIDE;
    const int o = (int)blockIdx.y * ROWS + unit * 8;
    const int room = column < v.columns && o < out;
    const int at = ((row * v.columns + column) * out + o) / 2;
    const Pair *from = reinterpret_cast<const Pair *>(v.to) +
                       (int64_t)p.n * (v.rows * v.columns * (out / 2));

#pragma unroll
    for (int j = 0; j < SIDE / STEP; ++j) {
        const int there = room && row + j * STEP < v.rows;
        mma_copy(to + (thread / UNITS + j * STEP * SIDE) * DY_PAIRS + unit * 4,
                 from + (there ? at + j * STEP * v.columns * (out / 2) : 0),
                 there);
    }
}

/* what the taps see of x there: a thread has eight channels c of every 32nd
 * pixel */
template <int STRIDE>
__device__ inline void x_copy(const Windows &v, const Patch &p, Pair *to)
{
    enum {
        HALO = Stage<STRIDE>::HALO,
        UNITS = CHANNELS / 8,
        STEP = GRAD_THREADS / UNITS
    };
    const int thread = thread_here();
    const int in = worked_out_here(v.in);
    const int unit = thread % UNITS, c = (int)blockIdx.x * CHANNELS + unit * 8;
    const int first = p.row * STRIDE - v.top, left = p.column * STRIDE - v.left;
    const Pair *from = reinterpret_cast<const Pair *>(v.from) +
                       (int64_t)p.n * (v.h * v.w * (in / 2));
    const int room = c < in, zoomed = v.zoom - 1;

#pragma unroll(STRIDE == 1 ? 4 : 1)
    for (int j = 0; j < (HALO * HALO + STEP - 1) / STEP; ++j) {
        const int pixel = thread / UNITS + j * STEP;
        const int row = first + pixel / HALO, column = left + pixel % HALO;
        const int there = room && (unsigned)row < (unsigned)v.seen_h &&
                          (unsigned)column < (unsigned)v.seen_w;
        const int at =
            ((row >> zoomed) * v.w + (column >> zoomed)) * (in / 2) + c / 2;

        if (pixel < HALO * HALO)
            mma_copy(to + pixel * X_PAIRS + unit * 4, from + (there ? at : 0),
                     there);
    }
}

template <int STRIDE>
__device__ inline void patch_copy(const Windows &v, const Patch &p, Pair *stage)
{
    dy_copy(v, p, stage);
    x_copy<STRIDE>(v, p, stage + DY_ALL);
}

/*
 * A patch's products, 32 pixels at a time: dy across as A, x across as B. dy
 * and x: the lane's places of rows in their tiles.
 */
template <int STRIDE>
__device__ inline void patch_add(Taps sums, const Pair *dy, const Pair *x)
{
    enum { HALO = Stage<STRIDE>::HALO, HALF = SIDE / 2 };
    Pair a[2][ROWS / 16][4], b[4];

#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int k = 0; k < 2; ++k)
#pragma unroll
            for (int m = 0; m < ROWS / 16; ++m)
                mma_load_across(a[k][m],
                                dy + (32 * h + 16 * k) * DY_PAIRS + 8 * m);
#pragma unroll
        for (int t = 0; t < TAPS; ++t) {
            mma_load_across(
                b, x + ((HALF * h * STRIDE + t / 3) * HALO + t % 3) * X_PAIRS);
#pragma unroll
            for (int m = 0; m < ROWS / 16; ++m) {
                mma_add(sums[m][t], a[0][m], b[0], b[1]);
                mma_add(sums[m][t], a[1][m], b[2], b[3]);
            }
        }
    }
}

/* 16 rows o of 32 channels' taps between a gradient and shared memory */
template <bool OUT>
__device__ inline void slab_move(const Windows &v, float *to, int row,
                                 float *slab)
{
    const int first = (int)blockIdx.x * WIDTH, width = v.in * TAPS;

    for (int i = (int)threadIdx.x; i < SLAB * WIDTH / 4; i += GRAD_THREADS) {
        const int r = i / (WIDTH / 4), column = i % (WIDTH / 4) * 4;
        if (row + r >= v.out || first + column >= width)
            continue;
        Four *all = reinterpret_cast<Four *>(to + (int64_t)(row + r) * width +
                                             first + column);
        Four *mine = reinterpret_cast<Four *>(slab + r * SLAB_PITCH + column);
        if (OUT)
            *all = *mine;
        else
            *mine = *all;
    }
}

/* The block's sums from a gradient, or to it, by way of shared memory, so that
 * neighbouring threads move neighbouring values. */
template <bool OUT>
__device__ inline void sums_move(const Windows &v, float *to, float *slab,
                                 Taps sums)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int row = (int)blockIdx.y * ROWS;
    float *mine =
        slab + lane / 4 * SLAB_PITCH + (warp * EIGHT + lane % 4 * 2) * TAPS;

#pragma unroll
    for (int m = 0; m < ROWS / SLAB; ++m) {
        __syncthreads(); /* done with what was there */
        if (!OUT)
            slab_move<false>(v, to, row + SLAB * m, slab);
        if (!OUT)
            __syncthreads();
#pragma unroll
        for (int t = 0; t < TAPS; ++t)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float *at = mine + e / 2 * 8 * SLAB_PITCH + e % 2 * TAPS + t;
                if (OUT)
                    *at = sums[m][t][e];
                else
                    sums[m][t][e] = *at;
            }
        if (OUT)
            __syncthreads();
        if (OUT)
            slab_move<true>(v, to, row + SLAB * m, slab);
    }
}

/* where the block's sums go */
__device__ inline float *place_of(const Gradient &g)
{
    const int at = worked_out_here((int)blockIdx.z);

    return g.v.parts > 0 ? g.sums + (int64_t)at * g.v.out * g.v.in * TAPS
                         : g.dw;
}

/*
 * Grid (32 channels c each, 64 channels o each, parts of all samples; one where
 * there are none), block GRAD_THREADS: a warp per 8 c. Shared: two stages of a
 * patch's dy and of what its taps see; before and after them 16 rows of sums.
 */
template <int STRIDE>
__global__ void __launch_bounds__(GRAD_THREADS, 2)
    conv_weight_grad_mma_kernel(Gradient g)
{
    typedef Stage<STRIDE> S;
    const Windows &v = g.v;
    Pair *shared = reinterpret_cast<Pair *>(dg_cuda_shared);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int each = patches_of(v.rows) * patches_of(v.columns);
    const int split = v.parts > 0 ? v.parts : 1;
    const int sample = (int)blockIdx.z / split, part = (int)blockIdx.z % split;
    const int begin = (int)((int64_t)each * part / split);
    int left = v.parts > 0 ? (int)((int64_t)each * (part + 1) / split) - begin
                           : v.batch * each;
    const Pair *dy =
        shared + (lane / 16 * 8 + lane % 8) * DY_PAIRS + lane / 8 % 2 * 4;
    const Pair *x = shared + DY_ALL +
                    (lane / 8 * S::HALO + lane % 8) * STRIDE * X_PAIRS +
                    warp * EIGHT / 2;
    const bool works = (int)blockIdx.x * CHANNELS + warp * EIGHT < v.in;
    Taps sums = {};

    if (v.parts == 0)
        sums_move<false>(v, g.dw, dg_cuda_shared, sums);
    __syncthreads();
    Patch p = patch_at(v, sample * each + begin);
    if (left > 0)
        patch_copy<STRIDE>(v, p, shared);
    for (int at = 0; left > 0; --left, at = S::PAIRS - at) {
        mma_copies_wait();
        __syncthreads(); /* all have come, and the other stage is done with */
        patch_step(v, &p);
        if (left > 1)
            patch_copy<STRIDE>(v, p, shared + (S::PAIRS - at));
        if (works)
            patch_add<STRIDE>(sums, dy + at, x + at);
    }
    sums_move<true>(v, place_of(g), dg_cuda_shared, sums);
}

/* dw += the samples' sums in their order, each the sum of its parts in theirs.
 * A thread takes four of them; no shared memory. */
__global__ void conv_weight_fold_kernel(Gradient g, int64_t quads)
{
    const Windows &v = g.v;

    for (int64_t i = first_index(); i < quads; i += index_step()) {
        Four *dw = reinterpret_cast<Four *>(g.dw) + i;
        Four all = *dw;
        for (int n = 0; n < v.batch; ++n) {
            Four sum = { { 0.0f, 0.0f, 0.0f, 0.0f } };
            for (int p = 0; p < v.parts; ++p) {
                const Four f = reinterpret_cast<const Four *>(
                    g.sums)[((int64_t)n * v.parts + p) * quads + i];
                for (int e = 0; e < 4; ++e)
                    sum.x[e] += f.x[e];
            }
            for (int e = 0; e < 4; ++e)
                all.x[e] += sum.x[e];
        }
        *dw = all;
    }
}

/* --- the host's side ------------------------------------------------------ */

dim3 tiles_of(const ConvArgs *a)
{
    return dim3((unsigned)((a->in + CHANNELS - 1) / CHANNELS),
                (unsigned)((a->out + ROWS - 1) / ROWS));
}

/* by one sample alone; 0: none */
int parts_of(const ConvArgs *a)
{
    const dim3 tiles = tiles_of(a);
    const int64_t num = (int64_t)tiles.x * tiles.y;
    const int64_t patches =
        (int64_t)patches_of((int)a->out_h) * patches_of((int)a->out_w);
    const int64_t wanted = (WANTED_TILES + num / 2) / num;
    const int64_t parts = wanted < patches ? wanted : patches;

    return num >= DG_CONV_MANY_TILES ? 0 : parts < 1 ? 1 : (int)parts;
}

template <int STRIDE> void launch(const Gradient *g, const ConvArgs *a)
{
    dim3 grid = tiles_of(a);

    grid.z = (unsigned)(g->v.parts > 0 ? g->v.batch * g->v.parts : 1);
    DG_LAUNCH(conv_weight_grad_mma_kernel<STRIDE>, grid, GRAD_THREADS,
              (size_t)Stage<STRIDE>::BYTES, *g);
}

} // namespace

int64_t dg_cuda_conv_weight_sums(const ConvArgs *a)
{
    return parts_of(a) * a->out * a->in * TAPS;
}

int dg_cuda_conv_mma_weight_grad(const ConvArgs *a)
{
    const int64_t sums = dg_cuda_conv_weight_sums(a);
    const int64_t group = sums > 0 ? dg_cuda_conv_room(sums) / sums : a->batch;
    const int64_t quads = a->out * a->in * TAPS / 4;
    Gradient g = {};

    if (!dg_cuda_conv_mma_fits(a))
        return 0;
    g.v = dg_cuda_conv_windows(a);
    g.v.parts = parts_of(a);
    g.dw = a->dweight;
    g.sums = (float *)a->scratch;
    for (int64_t b = 0; b < a->batch; b += group) {
        const int64_t left = a->batch - b;
        g.v.batch = (int)(left < group ? left : group);
        g.v.from = past<__nv_bfloat16>(a->x, b * a->h * a->w * a->in);
        g.v.to = (float *)past<__nv_bfloat16>(a->dy,
                                              b * a->out_h * a->out_w * a->out);
        if (a->stride == 1)
            launch<1>(&g, a);
        else
            launch<2>(&g, a);
        if (g.v.parts > 0)
            DG_LAUNCH(conv_weight_fold_kernel, dg_blocks(quads, THREADS),
                      THREADS, 0, g, quads);
    }
    return 1;
}
