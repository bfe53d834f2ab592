#include "kernels.h"

#include "conv_mma.h"
#include "gemm.h"
#include "wide.h"

extern "C" {
#include "cuda/conv_cudnn.h"
}

/*
 * A convolution is a matrix product over windows, as in src/cpu/conv.c: tiles
 * of output pixels one after the other, each gathered into rows of scratch.
 * A row has the order of the weights as they stand, channel by channel and
 * tap by tap within, so that weights are neither turned nor copied. Windows
 * are gathered as they are stored; the products of the way back are float32. Samples
 * never share a product, and a tile's rows follow from one sample's sizes.
 *
 * One tap at each pixel is a product over the map as it stands. In bfloat16
 * 3 x 3 taps are conv_mma.cu's, or all but that a library's (conv_cudnn.cu).
 */
enum { TILE_UNIT = 64 };

/* What one product covers: output pixels first .. of a sample */
typedef struct Tile {
    int64_t first, rows;
} Tile;

static int64_t width_of(const ConvArgs *a)
{
    return a->in * a->kernel_h * a->kernel_w;
}

static int64_t tile_rows(const ConvArgs *a)
{
    const int64_t pixels = a->out_h * a->out_w;
    const int64_t fit =
        DG_CONV_TILE_FLOATS / width_of(a) / TILE_UNIT * TILE_UNIT;
    const int64_t rows = fit < TILE_UNIT ? (int64_t)TILE_UNIT : fit;

    return rows < pixels ? rows : pixels;
}

size_t dg_cuda_conv_scratch(const ConvArgs *a)
{
    const size_t rows = (size_t)(tile_rows(a) * width_of(a)) * sizeof(float);
    const size_t sums = dg_cuda_conv_mma_scratch(a);

    return rows > sums ? rows : sums;
}

/* where output pixel p looks in the zoomed map with its first tap */
__device__ inline void conv_corner(const ConvArgs &a, int64_t p, int64_t *y,
                                   int64_t *x)
{
    *y = p / a.out_w * a.stride - a.top;
    *x = p % a.out_w * a.stride - a.left;
}

/* the row of x that pixel (y, col) of the zoomed map is, or NULL outside */
template <typename T>
__device__ inline const float *conv_seen(const ConvArgs &a, const float *x,
                                         int64_t y, int64_t col)
{
    const int half = a.zoom == 2;

    if (y < 0 || y >= a.zoom * a.h - a.cut_h || col < 0 ||
        col >= a.zoom * a.w - a.cut_w)
        return NULL;
    return past<T>(x, ((y >> half) * a.w + (col >> half)) * a.in);
}

enum { GATHER_LANES = 64, GATHER_PIXELS = THREADS / GATHER_LANES };

/* values between the pixels of a block, in shared memory */
__host__ __device__ inline int64_t gather_pitch(int64_t chunk, int64_t taps)
{
    return (chunk * taps + PIECE_BYTES - 1) / PIECE_BYTES * PIECE_BYTES;
}

/*
 * rows[r, c taps + t] = what tap t of output pixel first + r sees of channel
 * c, in packs of V. Block (GATHER_LANES, GATHER_PIXELS): a row of threads takes
 * a pixel, and 'chunk' channels from blockIdx.y chunk on. They read a tap's
 * channels one beside the other and turn them in dynamic shared memory,
 * [GATHER_PIXELS][gather_pitch()] stored values.
 */
template <typename T, int V>
__global__ void conv_gather_kernel(ConvArgs a, Tile tile, int chunk,
                                   const float *x, float *rows)
{
    const int taps = (int)(a.kernel_h * a.kernel_w);
    const int64_t r = (int64_t)blockIdx.x * GATHER_PIXELS + threadIdx.y;
    const int64_t c0 = (int64_t)blockIdx.y * chunk;
    const int num = (int)(a.in - c0 < chunk ? a.in - c0 : (int64_t)chunk);
    float *mine = past<T>(dg_cuda_shared,
                          (int64_t)threadIdx.y * gather_pitch(chunk, taps));
    int64_t y, col;

    conv_corner(a, tile.first + r, &y, &col);
    for (int t = 0, u = 0, v = 0; t < taps; ++t) {
        const float *from = NULL;
        if (r < tile.rows)
            from = conv_seen<T>(a, x, y + u, col + v);
#pragma unroll 4
        for (int c = (int)threadIdx.x; c < num; c += GATHER_LANES)
            put<T>(mine, c * taps + t,
                   from != NULL ? get<T>(from, c0 + c) : 0.0f);
        if (++v == a.kernel_w)
            v = 0, ++u;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x * V; r < tile.rows && i < num * taps;
         i += GATHER_LANES * V) {
        const Pack<T, V> p = fetch<T, V>(mine, i);
        store<T, V>(rows, (r * a.in + c0) * taps + i,
                    [&](int k) { return p.at(k); });
    }
}

/* The place along one axis of the output whose tap 'tap' looks at 'at' of the
 * zoomed map; -1: none does. */
__device__ inline int conv_place(int at, int tap, int before, int stride,
                                 int places)
{
    const int off = at + before - tap, place = stride == 1 ? off : off / stride;

    return off < 0 || place * stride != off || place >= places ? -1 : place;
}

/* The rows of output pixels y .. y + tall - 1, x .. x + wide - 1, at a pitch of
 * 'pitch' floats; wide 0: the tile's own. */
struct Window {
    int64_t pitch;
    int y, x, tall, wide;
};

/* What the tile's rows in a window have for pixel (y, x) of the zoomed map, tap
 * after tap; values: of its channel. */
__device__ inline float conv_collect(const ConvArgs &a, const Tile &tile,
                                     const Window &w, const float *values,
                                     int y, int x)
{
    const int out_w = (int)a.out_w, stride = (int)a.stride;
    const int kernel_w = (int)a.kernel_w;
    float sum = 0.0f;

    for (int u = 0; u < (int)a.kernel_h; ++u) {
        const int oy = conv_place(y, u, (int)a.top, stride, (int)a.out_h);
        for (int v = 0; oy >= 0 && v < kernel_w; ++v) {
            const int ox = conv_place(x, v, (int)a.left, stride, out_w);
            const int64_t r = (int64_t)oy * out_w + ox - tile.first;
            const int64_t at =
                w.wide > 0 ? (int64_t)(oy - w.y) * w.wide + ox - w.x : r;
            if (ox >= 0 && r >= 0 && r < tile.rows)
                sum += get(values, at * w.pitch + u * kernel_w + v);
        }
    }
    return sum;
}

/* a square of the zoomed map, a block's; its channels are a row of threads */
enum { PATCH = 4, PATCH_LANES = 32, PATCH_ROWS = THREADS / PATCH_LANES };

/* The output pixels that look at zoomed places 'from' .. of a patch, cut where
 * the map ends: the first, and how many. */
__device__ inline int conv_reach(int64_t from, int64_t before, int64_t taps,
                                 int64_t stride, int64_t places, int *num)
{
    const int64_t least = from + before - taps + 1;
    const int64_t first = least > 0 ? (least + stride - 1) / stride : 0;
    const int64_t last = (from + PATCH - 1 + before) / stride;
    const int64_t end = last + 1 < places ? last + 1 : places;

    *num = end > first ? (int)(end - first) : 0;
    return (int)first;
}

/* brings a window's rows to shared memory: 'num' floats each, from the channel
 * that from begins with on */
template <int V>
__device__ inline void window_fill(const ConvArgs &a, const Tile &tile,
                                   const Window &w, float *to,
                                   const float *from, int num)
{
    const int64_t width = a.in * a.kernel_h * a.kernel_w;
    const int packs = num / V, all = w.tall * w.wide * packs;

    for (int i = (int)threadIdx.x; i < all; i += THREADS) {
        const int p = i / packs, k = (i - p * packs) * V;
        const int oy = w.y + p / w.wide, ox = w.x + p % w.wide;
        const int64_t r = (int64_t)oy * a.out_w + ox - tile.first;
        if (r < 0 || r >= tile.rows)
            continue;
        const Pack<float, V> pack = fetch<float, V>(from, r * width + k);
#pragma unroll
        for (int j = 0; j < V; ++j)
            to[p * w.pitch + k + j] = pack.at(j);
    }
}

/*
 * dx += what the rows hold for it. A block owns a patch of dx and 'chunk'
 * channels, from blockIdx.z chunk on, so that nobody else adds to them; the
 * tiles follow each other on the stream. The rows that look at the patch are
 * brought to dynamic shared memory, most floats at most; most 0: they are read
 * where they are.
 */
template <int V, typename T>
__global__ void conv_scatter_kernel(ConvArgs a, Tile tile, int chunk, int most,
                                    const float *rows, float *dx)
{
    const int64_t taps = a.kernel_h * a.kernel_w,
                  c0 = (int64_t)blockIdx.z * chunk;
    const int num = (int)(a.in - c0 < chunk ? a.in - c0 : (int64_t)chunk);
    const int zoom = (int)a.zoom, side = PATCH / zoom;
    const int lane = (int)threadIdx.x % PATCH_LANES;
    const float *values = rows + c0 * taps;
    Window w = { a.in * taps, 0, 0, 0, 0 };

    if (most > 0) {
        w.y = conv_reach((int64_t)blockIdx.y * PATCH, a.top, a.kernel_h,
                         a.stride, a.out_h, &w.tall);
        w.x = conv_reach((int64_t)blockIdx.x * PATCH, a.left, a.kernel_w,
                         a.stride, a.out_w, &w.wide);
        w.pitch = chunk * taps;
        if (w.tall < 1 || w.wide < 1)
            return; /* nobody looks here */
        window_fill<V>(a, tile, w, dg_cuda_shared, values, (int)(num * taps));
        values = dg_cuda_shared;
        __syncthreads();
    }
    for (int i = (int)threadIdx.x / PATCH_LANES; i < side * side;
         i += PATCH_ROWS) {
        const int y = (int)blockIdx.y * side + i / side;
        const int x = (int)blockIdx.x * side + i % side;
        for (int c = lane; y < a.h && x < a.w && c < num; c += PATCH_LANES) {
            const int64_t at = ((int64_t)y * a.w + x) * a.in + c0 + c;
            float sum = 0.0f;
            for (int z = 0; z < zoom * zoom; ++z) {
                const int zy = y * zoom + z / zoom, zx = x * zoom + z % zoom;
                if (zy < zoom * a.h - a.cut_h && zx < zoom * a.w - a.cut_w)
                    sum += conv_collect(a, tile, w, values + c * taps, zy, zx);
            }
            put<T>(dx, at, get<T>(dx, at) + sum);
        }
    }
}

/* channels of a block, and the shared memory of their rows; none where not even
 * one channel's would fit */
static int scatter_chunk(const ConvArgs *a, int *most)
{
    const int64_t tall = (PATCH + a->kernel_h - 2) / a->stride + 1;
    const int64_t wide = (PATCH + a->kernel_w - 2) / a->stride + 1;
    const int64_t one = tall * wide * a->kernel_h * a->kernel_w;
    const int64_t room = DG_SHARED_PLAIN / (int64_t)sizeof(float);
    int64_t chunk = room / one;

    chunk = chunk < PATCH_LANES ? chunk : (int64_t)PATCH_LANES;
    *most = chunk > 0 ? (int)(chunk * one) : 0;
    return chunk > 0 ? (int)chunk : (int)PATCH_LANES;
}

/* The channels that a block of conv_gather_kernel takes: as many as 8 KB of
 * windows hold, shared out evenly among blocks; but for the only block, a
 * multiple of what pieces hold. */
static int gather_chunk(const ConvArgs *a, int64_t value_bytes)
{
    const int64_t unit = PIECE_BYTES;
    const int64_t fit =
        8192 / (width_of(a) / a->in * value_bytes) / unit * unit;
    const int64_t most = fit > unit ? fit : unit;
    const int64_t chunks = (a->in + most - 1) / most;

    return (int)(chunks == 1
                     ? a->in
                     : (a->in + chunks * unit - 1) / (chunks * unit) * unit);
}

typedef void TileWork(const ConvArgs *a, const Tile *t, int64_t b);

static void each_tile(const ConvArgs *a, TileWork *work)
{
    const int64_t pixels = a->out_h * a->out_w, most = tile_rows(a);

    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t first = 0; first < pixels; first += most) {
            const int64_t left = pixels - first;
            const Tile t = { first, left < most ? left : most };
            work(a, &t, b);
        }
}

template <typename T>
static void gather(const ConvArgs *a, const Tile *t, int64_t b)
{
    const int chunk = gather_chunk(a, sizeof(T));
    const int64_t taps = a->kernel_h * a->kernel_w;
    const dim3 grid((unsigned)((t->rows + GATHER_PIXELS - 1) / GATHER_PIXELS),
                    (unsigned)((a->in + chunk - 1) / chunk));
    const dim3 block(GATHER_LANES, GATHER_PIXELS);
    const size_t shared =
        (size_t)(GATHER_PIXELS * gather_pitch(chunk, taps)) * sizeof(T);
    const float *x = past<T>(a->x, b * a->h * a->w * a->in);
    float *rows = (float *)a->scratch;

    if (width_of(a) % packed<T> == 0 && aligned(rows))
        DG_LAUNCH((conv_gather_kernel<T, packed<T>>), grid, block, shared, *a,
                  *t, chunk, x, rows);
    else
        DG_LAUNCH((conv_gather_kernel<T, 1>), grid, block, shared, *a, *t,
                  chunk, x, rows);
}

template <typename T>
static void scatter(const ConvArgs *a, const Tile *t, int64_t b)
{
    int most;
    const int chunk = scatter_chunk(a, &most);
    const int64_t down = (a->zoom * a->h + PATCH - 1) / PATCH;
    const int64_t across = (a->zoom * a->w + PATCH - 1) / PATCH;
    const dim3 grid((unsigned)across, (unsigned)down,
                    (unsigned)((a->in + chunk - 1) / chunk));
    const float *rows = (const float *)a->scratch;
    float *dx = past<T>(a->dx, b * a->h * a->w * a->in);

    if (chunk * a->kernel_h * a->kernel_w % packed<float> == 0 &&
        width_of(a) % packed<float> == 0 && aligned(rows))
        DG_LAUNCH((conv_scatter_kernel<packed<float>, T>), grid, THREADS,
                  (size_t)most * sizeof(float), *a, *t, chunk, most, rows, dx);
    else
        DG_LAUNCH((conv_scatter_kernel<1, T>), grid, THREADS,
                  (size_t)most * sizeof(float), *a, *t, chunk, most, rows, dx);
}

static int64_t out_at(const ConvArgs *a, const Tile *t, int64_t b)
{
    return (b * a->out_h * a->out_w + t->first) * a->out;
}

template <typename T>
static void forward_tile(const ConvArgs *a, const Tile *t, int64_t b)
{
    LinearArgs l = {};

    gather<T>(a, t, b);
    l.rows = l.rows_per_sample = t->rows;
    l.in = l.ldw = width_of(a);
    l.out = a->out;
    l.x = (const float *)a->scratch;
    l.w = a->weight;
    l.bias = a->bias;
    l.y = past<T>(a->y, out_at(a, t, b));
    dg_cuda_linear<T>(&l);
}

/* whether a window is a pixel */
static int pointwise(const ConvArgs *a)
{
    return a->kernel_h == 1 && a->kernel_w == 1 && a->stride == 1 &&
           a->zoom == 1 && a->out_h == a->h && a->out_w == a->w &&
           a->top == 0 && a->left == 0;
}

template <typename T> void dg_cuda_conv(const ConvArgs *a)
{
    const int64_t pixels = a->h * a->w;
    LinearArgs l = {};

    if (sizeof(T) == 2 && !pointwise(a) &&
        (dg_cuda_conv_cudnn(a) || dg_cuda_conv_mma(a)))
        return;
    if (!pointwise(a)) {
        each_tile(a, forward_tile<T>);
        return;
    }
    l.rows = a->batch * pixels, l.rows_per_sample = pixels;
    l.in = l.ldw = a->in, l.out = a->out;
    l.x = a->x, l.w = a->weight, l.bias = a->bias, l.y = a->y;
    dg_cuda_linear<T>(&l);
}

template <typename T>
static void input_grad_tile(const ConvArgs *a, const Tile *t, int64_t b)
{
    float *rows = (float *)a->scratch;
    GemmArgs g = {};

    g.m = g.rows_per_sample = t->rows;
    g.n = g.ldb = g.ldc = width_of(a);
    g.k = g.lda = a->out;
    g.a = past<T>(a->dy, out_at(a, t, b));
    g.b = a->weight;
    g.c = rows;
    dg_cuda_gemm_to<T, float>(&g, NULL);
    scatter<T>(a, t, b);
}

template <typename T> static void input_grad_pointwise(const ConvArgs *a)
{
    GemmArgs g = {};

    g.rows_per_sample = a->h * a->w;
    g.m = a->batch * g.rows_per_sample;
    g.n = g.ldb = g.ldc = a->in;
    g.k = g.lda = a->out;
    g.beta = a->accumulate ? 1.0f : 0.0f;
    g.a = a->dy, g.b = a->weight, g.c = a->dx;
    dg_cuda_gemm_to<T, T>(&g, NULL);
}

template <typename T> void dg_cuda_conv_input_grad(const ConvArgs *a)
{
    if (sizeof(T) == 2 && !pointwise(a) &&
        (dg_cuda_conv_cudnn_input_grad(a) || dg_cuda_conv_mma_input_grad(a)))
        return;
    if (pointwise(a)) {
        input_grad_pointwise<T>(a);
        return;
    }
    if (!a->accumulate)
        dg_cuda_fill<T>(a->dx, 0.0f, a->batch * a->h * a->w * a->in);
    each_tile(a, input_grad_tile<T>);
}

template <typename T>
static void weight_grad_tile(const ConvArgs *a, const Tile *t, int64_t b)
{
    LinearGradArgs l = {};

    gather<T>(a, t, b);
    l.batch = 1;
    l.rows = t->rows;
    l.in = l.ldw = width_of(a);
    l.out = a->out;
    l.x = (const float *)a->scratch;
    l.dy = past<T>(a->dy, out_at(a, t, b));
    l.dw = a->dweight;
    l.dbias = a->dbias;
    dg_cuda_linear_grad<T>(&l);
}

template <typename T> void dg_cuda_conv_weight_grad(const ConvArgs *a)
{
    LinearGradArgs l = {};

    if (sizeof(T) == 2 && !pointwise(a) &&
        (dg_cuda_conv_cudnn_weight_grad(a) ||
         dg_cuda_conv_mma_weight_grad(a))) {
        dg_cuda_bias_grad<T>(a->dbias, a->dy, a->batch, a->out_h * a->out_w,
                             a->out);
        return;
    }
    if (!pointwise(a)) {
        each_tile(a, weight_grad_tile<T>);
        return;
    }
    l.batch = a->batch, l.rows = a->h * a->w;
    l.in = l.ldw = a->in, l.out = a->out;
    l.x = a->x, l.dy = a->dy;
    l.dw = a->dweight, l.dbias = a->dbias;
    dg_cuda_linear_grad<T>(&l);
}

DG_BOTH(dg_cuda_conv, ConvArgs)
DG_BOTH(dg_cuda_conv_input_grad, ConvArgs)
DG_BOTH(dg_cuda_conv_weight_grad, ConvArgs)
