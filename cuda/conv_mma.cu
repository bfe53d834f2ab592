#include "conv_mma.h"

#include "conv_words.h"
#include "stream.h"

/*
 * y[pixel, o] = sum over channels c and taps t of x[pixel + t, c] w[o, c, t].
 * A warp takes a patch of 8 x 8 pixels and 64 channels o, a block of four warps
 * four patches, or two of maps that have less. 16 channels c at a time pass by:
 * what the nine taps see of the patches, and the weights as they stand, all nine
 * taps of a channel in a row. From nine successive pairs of halves, of two
 * neighbouring channels, a lane puts together what the tensor cores take for
 * each tap.
 *
 * The gradient of x is the same product: of dy, by taps in the other order,
 * with the weights' rows being what is summed over. Strides are dy spread out
 * with zeros between; of a zoomed map, pixels are added two by two before they
 * are stored. Where the tiles of one sample are few, channels c are split into
 * parts, whose sums a second kernel adds.
 */
namespace
{

enum {
    PIXEL_PAIRS = 12, /* of a pixel's chunk: rows apart in the banks */
    STAGES = 2,
    WANTED_BLOCKS = 80, /* of one sample, if its channels can be split so */
    CHUNKS_OF_A_PART = 2
};

struct alignas(8) Two {
    float x[2];
};

template <int PATCHES, int STRIDE, bool BACK> struct Layout {
    enum {
        HALO = SIDE * STRIDE - STRIDE + 3, /* pixels that a row of taps sees */
        SEEN = HALO * HALO,
        MAP_PAIRS = PATCHES * SEEN * PIXEL_PAIRS,
        STAGE_PAIRS = MAP_PAIRS + Weights<PATCHES, BACK>::PAIRS,
        BYTES = (STAGES * STAGE_PAIRS + PATCHES * SEEN) * 4
    };
};

/*
 * seen[i]: the place in the map of pixel i that taps of the block's patches
 * look at, counted from the sample of the first patch; -1: a zero.
 */
template <int PATCHES, int STRIDE, int HALO>
__device__ inline void places_seen(const Windows &v, int first, int *seen)
{
    const int base = patch_at(v, first).n;

    for (int i = (int)threadIdx.x; i < PATCHES * HALO * HALO; i += BLOCK) {
        const Patch p = patch_at(v, first + i / (HALO * HALO));
        const int row = p.row * STRIDE - v.top + i % (HALO * HALO) / HALO;
        const int column = p.column * STRIDE - v.left + i % HALO;
        const bool there = p.n < v.batch && row >= 0 && row < v.seen_h &&
                           column >= 0 && column < v.seen_w &&
                           row % v.spread == 0 && column % v.spread == 0;
        seen[i] = there ? ((p.n - base) * v.h + row / v.zoom / v.spread) * v.w +
                              column / v.zoom / v.spread
                        : -1;
    }
}

/* a chunk of the pixels seen, on its way to shared memory */
template <int SEEN_ALL>
__device__ inline void map_copy(const Windows &v, const Pair *from,
                                const int *seen, int chunk, Pair *map)
{
    const int half = (int)threadIdx.x % 2 * 4;
    const int room = chunk * CHUNK + 2 * half < v.in;
    const int c = room ? chunk * CHUNK / 2 + half : 0;

#pragma unroll 1
    for (int i = (int)threadIdx.x / 2; i < SEEN_ALL; i += BLOCK / 2) {
        const int pixel = seen[i], at = pixel > 0 ? pixel : 0;
        mma_copy(map + i * PIXEL_PAIRS + half,
                 from + (int64_t)at * (v.in / 2) + c, pixel >= 0 && room);
    }
}

template <int PATCHES, int STRIDE, bool BACK>
__device__ inline void stage_copy(const Windows &v, int chunk, const int *seen,
                                  Pair *stage)
{
    typedef Layout<PATCHES, STRIDE, BACK> L;
    const int sample = patch_at(v, (int)blockIdx.x * PATCHES).n;

    map_copy<PATCHES * L::SEEN>(v,
                                reinterpret_cast<const Pair *>(v.from) +
                                    (int64_t)sample * v.h * v.w * (v.in / 2),
                                seen, chunk, stage);
    weights_copy<PATCHES, BACK>(v, (int)blockIdx.y * Weights<PATCHES, BACK>::BN,
                                chunk, stage + L::MAP_PAIRS);
}

typedef float Sums[SIDE / 2][COLUMNS / 8][4];

/* a chunk's products: all taps, 16 channels */
template <int PATCHES, int HALO, int STRIDE, bool BACK>
__device__ inline void chunk_add(Sums sums, const Pair *map,
                                 const Pair *weights)
{
    Words words;
    Pair a[SIDE / 2][4];

#pragma unroll
    for (int t = 0; t < TAPS; ++t) {
        const int tap = BACK ? TAPS - 1 - t : t;
        words_load<PATCHES, BACK>(&words, weights, t);
#pragma unroll
        for (int m = 0; m < SIDE / 2; ++m)
            mma_load(a[m], map + ((2 * m * STRIDE + tap / 3) * HALO + tap % 3) *
                                     PIXEL_PAIRS);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n) {
            const Pair first = words_pair<BACK>(words, n, 0, t);
            const Pair second = words_pair<BACK>(words, n, 1, t);
#pragma unroll
            for (int m = 0; m < SIDE / 2; ++m)
                mma_add(sums[m][n], a[m], first, second);
        }
    }
}

/* two neighbouring sums to where they belong */
__device__ inline void pair_store(const Windows &v, int64_t at, int column,
                                  float first, float second)
{
    if (v.sums != NULL) {
        const Two both = { { first, second } };
        *reinterpret_cast<Two *>(v.sums + at) = both;
        return;
    }
    if (v.bias != NULL) {
        first += get<__nv_bfloat16>(v.bias, column);
        second += get<__nv_bfloat16>(v.bias, column + 1);
    }
    Pair *to = reinterpret_cast<Pair *>(v.to) + at / 2;
    if (v.accumulate) {
        first += pair_first(*to);
        second += pair_second(*to);
    }
    *to = mma_pair(first, second);
}

/* pixels that are stored */
__host__ __device__ inline int stored_of(const Windows &v, int pixels)
{
    return (pixels + v.pool - 1) / v.pool;
}

/* where a pixel that is stored begins */
__device__ inline int64_t stored_at(const Windows &v, int n, int row,
                                    int column)
{
    const int64_t sample = (int64_t)(v.sums ? blockIdx.z : 0) * v.batch + n;

    return ((sample * stored_of(v, v.rows) + row) * stored_of(v, v.columns) +
            column) *
           v.out;
}

/* the lane's j-th pair of columns */
template <bool BACK> __device__ inline int pair_column(int j)
{
    const int quad = (int)threadIdx.x % 4;

    return BACK ? j / 2 * 16 + quad * 4 + j % 2 * 2 : j * 8 + quad * 2;
}

template <bool BACK>
__device__ inline void sums_store(const Windows &v, const Patch &p, int first,
                                  const Sums sums)
{
    const int column = p.column + (int)threadIdx.x % WARP / 4;

#pragma unroll
    for (int m = 0; m < SIDE; ++m) {
        const int row = p.row + m, e = m % 2 * 2;
        const int64_t at = stored_at(v, p.n, row, column);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; ++j) {
            const int o = first + pair_column<BACK>(j);
            const float(*s)[4] = sums[m / 2] + (BACK ? j / 2 * 2 : j);
            if (row < v.rows && column < v.columns && o < v.out)
                pair_store(v, at + o, o, BACK ? s[0][e + j % 2] : s[0][e],
                           BACK ? s[1][e + j % 2] : s[0][e + 1]);
        }
    }
}

/* The same of pixels two by two: rows are a lane's own, the next column is
 * the lane's behind the next four. */
__device__ inline void sums_store_pooled(const Windows &v, const Patch &p,
                                         int first, const Sums sums)
{
    const int place = (int)threadIdx.x % WARP / 4, column = p.column + place;

#pragma unroll
    for (int m = 0; m < SIDE / 2; ++m) {
        const int row = p.row + 2 * m;
        const int64_t at = stored_at(v, p.n, row / 2, column / 2);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; ++j) {
            const int o = first + pair_column<true>(j);
            float sum[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float *s = sums[m][j / 2 * 2 + i] + j % 2;
                sum[i] = row + 1 < v.rows ? s[0] + s[2] : s[0];
                sum[i] = column < v.columns ? sum[i] : 0.0f;
                sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 4);
            }
            if (place % 2 == 0 && row < v.rows && column < v.columns &&
                o < v.out)
                pair_store(v, at + o, o, sum[0], sum[1]);
        }
    }
}

/*
 * Grid (PATCHES each of all samples, channels of a block each, parts), block
 * BLOCK: a warp per patch and 64 channels. Shared: two stages of 16 channels of the
 * pixels seen and of the weights, and where those pixels are.
 */
template <int PATCHES, int STRIDE, bool BACK>
__global__ void __launch_bounds__(BLOCK, 2) conv_mma_kernel(Windows v)
{
    typedef Layout<PATCHES, STRIDE, BACK> L;
    Pair *shared = reinterpret_cast<Pair *>(dg_cuda_shared);
    int *seen = reinterpret_cast<int *>(shared + STAGES * L::STAGE_PAIRS);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int first = (int)blockIdx.x * PATCHES;
    const int column = (int)blockIdx.y * Weights<PATCHES, BACK>::BN,
              mine = warp / PATCHES * COLUMNS;
    const int chunks = (v.in + CHUNK - 1) / CHUNK;
    const int end = (int)((int64_t)chunks * (blockIdx.z + 1) / gridDim.z);
    int chunk = (int)((int64_t)chunks * blockIdx.z / gridDim.z);
    const Patch p = patch_at(v, first + warp % PATCHES);
    const bool works = p.n < v.batch && column + mine < v.out;
    const Pair *map = shared +
                      (warp % PATCHES * L::SEEN +
                       (lane / 8 % 2 * L::HALO + lane % 8) * STRIDE) *
                          PIXEL_PAIRS +
                      lane / 16 * 4;
    const Pair *weights = shared + L::MAP_PAIRS + lane_at<PATCHES, BACK>(mine);
    Sums sums = {};

    places_seen<PATCHES, STRIDE, L::HALO>(v, first, seen);
    __syncthreads();
    stage_copy<PATCHES, STRIDE, BACK>(v, chunk, seen, shared);
    for (int at = 0; chunk < end; ++chunk, at = L::STAGE_PAIRS - at) {
        mma_copies_wait();
        __syncthreads(); /* all have come, and the other stage is done with */
        if (chunk + 1 < end)
            stage_copy<PATCHES, STRIDE, BACK>(v, chunk + 1, seen,
                                              shared + (L::STAGE_PAIRS - at));
        if (works)
            chunk_add<PATCHES, L::HALO, STRIDE, BACK>(sums, map + at,
                                                      weights + at);
    }
    if (works && BACK && v.pool == 2)
        sums_store_pooled(v, p, column + mine, sums);
    else if (works)
        sums_store<BACK>(v, p, column + mine, sums);
}

/* The parts of a sum in their order, then bias, or what was there. A thread
 * takes four of 4 quads channels; no shared memory. */
__global__ void conv_fold_kernel(Windows v, int64_t quads)
{
    for (int64_t i = first_index(); i < quads; i += index_step()) {
        float sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
        for (int p = 0; p < v.parts; ++p) {
            const Four f =
                reinterpret_cast<const Four *>(v.sums)[p * quads + i];
            for (int e = 0; e < 4; ++e)
                sum[e] += f.x[e];
        }
        for (int e = 0; e < 4; ++e) {
            if (v.bias != NULL)
                sum[e] += get<__nv_bfloat16>(v.bias, (4 * i + e) % v.out);
            if (v.accumulate)
                sum[e] += get<__nv_bfloat16>(v.to, 4 * i + e);
            put<__nv_bfloat16>(v.to, 4 * i + e, sum[e]);
        }
    }
}

/* --- the host's side ------------------------------------------------------ */

int64_t patches_in(const Windows *v)
{
    return (int64_t)patches_of(v->rows) * patches_of(v->columns);
}

/* of a block */
int patches_at_once(const Windows *v)
{
    return patches_in(v) < 4 ? 2 : 4;
}

int64_t tiles_of(const Windows *v)
{
    const int patches = patches_at_once(v);
    const int columns = BLOCK / WARP / patches * COLUMNS;

    return (patches_in(v) + patches - 1) / patches *
           ((v->out + columns - 1) / columns);
}

/* by one sample alone */
int parts_of(const Windows *v)
{
    const int64_t most = (v->in + CHUNK - 1) / CHUNK / CHUNKS_OF_A_PART;
    const int64_t wanted = WANTED_BLOCKS / tiles_of(v);
    const int64_t parts = wanted < most ? wanted : most;

    return parts < 1 ? 1 : (int)parts;
}

template <int PATCHES, int STRIDE, bool BACK> void launch(const Windows *v)
{
    enum { BN = Weights<PATCHES, BACK>::BN };

    DG_LAUNCH(
        (conv_mma_kernel<PATCHES, STRIDE, BACK>),
        dim3((unsigned)((v->batch * patches_in(v) + PATCHES - 1) / PATCHES),
             (unsigned)((v->out + BN - 1) / BN), (unsigned)v->parts),
        BLOCK, (size_t)Layout<PATCHES, STRIDE, BACK>::BYTES, *v);
}

template <int STRIDE, bool BACK> void product(const Windows *v)
{
    if (patches_at_once(v) == 2)
        launch<2, STRIDE, BACK>(v);
    else
        launch<4, STRIDE, BACK>(v);
}

int64_t values_of(const Windows *v)
{
    return (int64_t)stored_of(*v, v->rows) * stored_of(*v, v->columns) * v->out;
}

/* float32 that a sample's sums take in the scratch */
int64_t sums_of(const Windows *v)
{
    return v->parts == 1 ? 0 : v->parts * values_of(v);
}

/* a map and a result of it, to be split into parts */
Windows forward_of(const ConvArgs *a)
{
    Windows v = dg_cuda_conv_windows(a);

    v.parts = parts_of(&v);
    v.from = a->x, v.weight = a->weight, v.bias = a->bias, v.to = a->y;
    return v;
}

/* of the zoomed map, whose pixels are pooled */
Windows input_grad_of(const ConvArgs *a)
{
    Windows v = {};

    v.h = (int)a->out_h, v.w = (int)a->out_w, v.in = (int)a->out;
    v.seen_h = (int)((a->out_h - 1) * a->stride + 1);
    v.seen_w = (int)((a->out_w - 1) * a->stride + 1);
    v.zoom = 1, v.spread = (int)a->stride;
    v.rows = (int)(a->zoom * a->h - a->cut_h);
    v.columns = (int)(a->zoom * a->w - a->cut_w), v.out = (int)a->in;
    v.top = (int)(2 - a->top), v.left = (int)(2 - a->left);
    v.pool = (int)a->zoom;
    v.batch = (int)a->batch;
    v.parts = parts_of(&v);
    v.from = a->dy, v.weight = a->weight, v.to = a->dx;
    v.accumulate = a->accumulate;
    return v;
}

/* As many samples at once as the scratch has room for. */
void run(const ConvArgs *a, Windows v, void (*launch)(const Windows *))
{
    const int64_t sums = sums_of(&v), values = values_of(&v);
    const int64_t group = sums > 0 ? dg_cuda_conv_room(sums) / sums : a->batch;
    const Windows all = v;

    for (int64_t b = 0; b < a->batch; b += group) {
        v.batch = (int)(a->batch - b < group ? a->batch - b : group);
        v.from = past<__nv_bfloat16>(all.from, b * v.h * v.w * v.in);
        v.to = past<__nv_bfloat16>(all.to, b * values);
        v.sums = sums > 0 ? (float *)a->scratch : NULL;
        launch(&v);
        if (sums > 0)
            DG_LAUNCH(conv_fold_kernel,
                      dg_blocks(v.batch * values / 4, THREADS), THREADS, 0, v,
                      v.batch * values / 4);
    }
}

} // namespace

/* 'unit': what channels of the result are multiples of */
static int sizes_fit(const ConvArgs *a, int64_t unit)
{
    const int64_t most = 1 << 28; /* a sample's values are counted by int */

    return a->kernel_h == 3 && a->kernel_w == 3 && a->stride <= 2 &&
           a->in % 8 == 0 && a->out % unit == 0 &&
           a->out < most / a->in / TAPS &&
           a->zoom * a->zoom * a->h < most / a->w / a->in &&
           a->out_h < most / a->out_w / a->out;
}

/* whether addresses are aligned and the device's blocks have the memory */
static int places_fit(const ConvArgs *a)
{
    const int most = a->stride == 1 ? (int)Layout<2, 1, false>::BYTES
                                    : (int)Layout<4, 2, false>::BYTES;
    const void *all[] = { a->x,  a->weight, a->bias,   a->y,
                          a->dy, a->dx,     a->dweight };

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if ((uintptr_t)all[i] % sizeof(Four) != 0)
            return 0;
    return dg_cuda_shared_most() >= (size_t)most;
}

int dg_cuda_conv_mma_fits(const ConvArgs *a)
{
    return sizes_fit(a, 8) && places_fit(a);
}

Windows dg_cuda_conv_windows(const ConvArgs *a)
{
    Windows v = {};

    v.h = (int)a->h, v.w = (int)a->w, v.in = (int)a->in;
    v.seen_h = (int)(a->zoom * a->h - a->cut_h);
    v.seen_w = (int)(a->zoom * a->w - a->cut_w);
    v.zoom = (int)a->zoom, v.spread = 1;
    v.rows = (int)a->out_h, v.columns = (int)a->out_w, v.out = (int)a->out;
    v.top = (int)a->top, v.left = (int)a->left;
    v.pool = 1;
    v.batch = (int)a->batch;
    return v;
}

int64_t dg_cuda_conv_room(int64_t sums)
{
    const int64_t all = 2 * (int64_t)DG_CONV_TILE_FLOATS, most = 8;
    const int64_t fit = sums > 0 ? all / sums : 0;
    const int64_t samples = fit < most ? fit : most;

    return (samples < 1 ? 1 : samples) * sums;
}

size_t dg_cuda_conv_mma_scratch(const ConvArgs *a)
{
    if (!sizes_fit(a, 4))
        return 0;
    const Windows there = forward_of(a), back = input_grad_of(a);
    const int64_t x = dg_cuda_conv_room(sums_of(&there));
    const int64_t dx = dg_cuda_conv_room(sums_of(&back));
    const int64_t dw = dg_cuda_conv_room(dg_cuda_conv_weight_sums(a));
    const int64_t maps = x > dx ? x : dx;

    return (size_t)(maps > dw ? maps : dw) * sizeof(float);
}

int dg_cuda_conv_mma(const ConvArgs *a)
{
    if (!sizes_fit(a, 4) || !places_fit(a))
        return 0;
    run(a, forward_of(a),
        a->stride == 1 ? product<1, false> : product<2, false>);
    return 1;
}

int dg_cuda_conv_mma_input_grad(const ConvArgs *a)
{
    if (!dg_cuda_conv_mma_fits(a))
        return 0;
    run(a, input_grad_of(a), product<1, true>);
    return 1;
}
