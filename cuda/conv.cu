#include "kernels.h"

#include "conv_mma.h"
#include "gemm.h"
#include "stream.h"

/*
 * A convolution is a matrix product over windows, as in src/cpu/conv.c: tiles
 * of output pixels one after the other, each gathered into rows of scratch.
 * A row has the order of the weights as they stand, channel by channel and
 * tap by tap within, so that weights are neither turned nor copied. Windows
 * are gathered as they are stored; the products of the way back are float32. Samples
 * never share a product, and a tile's rows follow from one sample's sizes.
 *
 * One tap at each pixel is a product over the map as it stands. In bfloat16
 * 3 x 3 taps are conv_mma.cu's.
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

/*
 * rows[r, c taps + t] = what tap t of output pixel first + r sees of channel
 * c. A thread takes elements first_index(), + index_step() ..; no shared
 * memory, blocks of THREADS.
 */
template <typename T>
__global__ void conv_gather_kernel(ConvArgs a, Tile tile, const float *x,
                                   float *rows)
{
    const int64_t taps = a.kernel_h * a.kernel_w, width = a.in * taps;

    for (int64_t i = first_index(); i < tile.rows * width; i += index_step()) {
        const int64_t pixel = tile.first + i / width, t = i % taps;
        const int64_t y = pixel / a.out_w * a.stride + t / a.kernel_w - a.top;
        const int64_t col =
            pixel % a.out_w * a.stride + t % a.kernel_w - a.left;
        float value = 0.0f;
        if (y >= 0 && y < a.zoom * a.h - a.cut_h && col >= 0 &&
            col < a.zoom * a.w - a.cut_w)
            value = get<T>(x, (y / a.zoom * a.w + col / a.zoom) * a.in +
                                  i % width / taps);
        put<T>(rows, i, value);
    }
}

/* The place along one axis of the output whose tap 'tap' looks at 'at' of the
 * zoomed map; -1: none does. */
__device__ inline int64_t conv_place(int64_t at, int64_t tap, int64_t before,
                                     int64_t stride, int64_t places)
{
    const int64_t off = at + before - tap;

    return off < 0 || off % stride || off / stride >= places ? -1
                                                             : off / stride;
}

/* What the tile's rows have for channel c of pixel (y, x) of the zoomed map:
 * tap after tap. */
__device__ inline float conv_collect(const ConvArgs &a, const Tile &tile,
                                     const float *rows, const int64_t place[2],
                                     int64_t c)
{
    const int64_t taps = a.kernel_h * a.kernel_w, width = a.in * taps;
    float sum = 0.0f;

    for (int64_t u = 0; u < a.kernel_h; ++u) {
        const int64_t oy = conv_place(place[0], u, a.top, a.stride, a.out_h);
        for (int64_t v = 0; oy >= 0 && v < a.kernel_w; ++v) {
            const int64_t ox =
                conv_place(place[1], v, a.left, a.stride, a.out_w);
            const int64_t r = oy * a.out_w + ox - tile.first;
            if (ox >= 0 && r >= 0 && r < tile.rows)
                sum += get(rows, r * width + c * taps + u * a.kernel_w + v);
        }
    }
    return sum;
}

/*
 * dx += what the rows hold for it. A thread owns elements of dx, so that
 * nobody else adds to them; the tiles follow each other on the stream.
 */
template <typename T>
__global__ void conv_scatter_kernel(ConvArgs a, Tile tile, const float *rows,
                                    float *dx)
{
    for (int64_t i = first_index(); i < a.h * a.w * a.in; i += index_step()) {
        const int64_t pixel = i / a.in, c = i % a.in;
        float sum = 0.0f;
        for (int64_t z = 0; z < a.zoom * a.zoom; ++z) {
            const int64_t place[2] = { pixel / a.w * a.zoom + z / a.zoom,
                                       pixel % a.w * a.zoom + z % a.zoom };
            if (place[0] < a.zoom * a.h - a.cut_h &&
                place[1] < a.zoom * a.w - a.cut_w)
                sum += conv_collect(a, tile, rows, place, c);
        }
        put<T>(dx, i, get<T>(dx, i) + sum);
    }
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
    DG_LAUNCH(conv_gather_kernel<T>, dg_blocks(t->rows * width_of(a), THREADS),
              THREADS, 0, *a, *t, past<T>(a->x, b * a->h * a->w * a->in),
              (float *)a->scratch);
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

    if (sizeof(T) == 2 && dg_cuda_conv_mma(a))
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
    DG_LAUNCH(conv_scatter_kernel<T>, dg_blocks(a->h * a->w * a->in, THREADS),
              THREADS, 0, *a, *t, (const float *)rows,
              past<T>(a->dx, b * a->h * a->w * a->in));
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
    if (sizeof(T) == 2 && dg_cuda_conv_mma_input_grad(a))
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

    if (sizeof(T) == 2 && dg_cuda_conv_mma_weight_grad(a)) {
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
