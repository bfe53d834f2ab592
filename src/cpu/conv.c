#include "kernels.h"

#include "sgemm.h"
#include "simd.h"

/*
 * A convolution is a matrix product over windows. Tiles of output pixels are
 * taken one after the other, and of the window as many taps at once as make a
 * product deep enough; so no more than a tile's part of the windows ever
 * exists. The library's own convolution of channels-last maps reaches 50 to 60
 * GFLOP/s with AVX2 (its weight gradient 30) where its matrix product does 90.
 * Samples never share a product.
 */
enum { TILE_PIXELS = 512, TILE_DEPTH = 1024 };

/* Taps of the window that go into one product. */
static int64_t taps_at_once(const ConvArgs *a)
{
    const int64_t fit = TILE_DEPTH / a->in, taps = a->kernel_h * a->kernel_w;

    return fit < 1 ? 1 : fit < taps ? fit : taps;
}

static int64_t round_up(int64_t floats)
{
    return (floats + 63) / 64 * 64;
}

static int64_t weight_floats(const ConvArgs *a)
{
    return a->out * a->kernel_h * a->kernel_w * a->in;
}

static int64_t pixels_of(const ConvArgs *a)
{
    return a->out_h * a->out_w;
}

size_t dg_cpu_conv_scratch(const ConvArgs *a)
{
    const int64_t pixels = pixels_of(a);
    const int64_t rows = pixels < TILE_PIXELS ? pixels : TILE_PIXELS;

    return (size_t)(round_up(weight_floats(a)) +
                    rows * taps_at_once(a) * a->in) *
           sizeof(float);
}

/* What one product covers: pixels first.. of a sample, taps tap0.. */
typedef struct Tile {
    int64_t first, rows, tap0, taps;
    int64_t ld; /* taps * in: elements between the tile's rows */
} Tile;

/* One tap of one output pixel: its input pixel, -1 outside of the map. */
V_INLINE int64_t source(const ConvArgs *a, int64_t oy, int64_t ox, int64_t tap)
{
    const int64_t y = oy * a->stride + tap / a->kernel_w - a->top;
    const int64_t x = ox * a->stride + tap % a->kernel_w - a->left;

    if (y < 0 || y >= a->zoom * a->h - a->cut_h || x < 0 ||
        x >= a->zoom * a->w - a->cut_w)
        return -1;
    return a->zoom == 2 ? y / 2 * a->w + x / 2 : y * a->w + x;
}

/* The tile's windows of the sample x, a row each. */
static void gather(const ConvArgs *a, const Tile *t, const float *x, float *out)
{
    int64_t oy = t->first / a->out_w, ox = t->first % a->out_w;

    for (int64_t r = 0; r < t->rows; ++r) {
        float *row = out + r * t->ld;
        for (int64_t i = 0; i < t->taps; ++i) {
            const int64_t from = source(a, oy, ox, t->tap0 + i);
            const size_t bytes = (size_t)a->in * sizeof(float);
            if (from < 0)
                memset(row + i * a->in, 0, bytes);
            else
                memcpy(row + i * a->in, x + from * a->in, bytes);
        }
        if (++ox == a->out_w) {
            ox = 0;
            ++oy;
        }
    }
}

/* Adds the rows back to where gather() took them from. */
static void scatter(const ConvArgs *a, const Tile *t, const float *rows,
                    float *dx)
{
    int64_t oy = t->first / a->out_w, ox = t->first % a->out_w;

    for (int64_t r = 0; r < t->rows; ++r) {
        const float *row = rows + r * t->ld;
        for (int64_t i = 0; i < t->taps; ++i) {
            const int64_t to = source(a, oy, ox, t->tap0 + i);
            float *sum = dx + to * a->in;
            if (to >= 0)
                dg_cpu_add(sum, sum, row + i * a->in, a->in);
        }
        if (++ox == a->out_w) {
            ox = 0;
            ++oy;
        }
    }
}

/* Blocks of 16 channels from i of one output's weights [in, taps] are turned
 * in registers: whole vectors are read, beyond the taps where there are fewer,
 * but never beyond these weights. */
V_INLINE int whole_block(const ConvArgs *a, int64_t i, int64_t taps)
{
    return taps <= VL && (i + VL - 1) * taps + VL <= a->in * taps;
}

static void turn_output(const ConvArgs *a, const float *from, float *turned)
{
    const int64_t taps = a->kernel_h * a->kernel_w;
    float block[VL * VL];
    int64_t i = 0;

    for (; whole_block(a, i, taps); i += VL) {
        dg_cpu_transpose16(block, VL, from + i * taps, taps);
        for (int64_t t = 0; t < taps; ++t)
            v_store(turned + t * a->in + i, v_load(block + t * VL));
    }
    for (; i < a->in; ++i)
        for (int64_t t = 0; t < taps; ++t)
            turned[t * a->in + i] = from[i * taps + t];
}

/* [out, in, taps] to [out, taps, in] */
static void turn_weights(const ConvArgs *a, float *turned)
{
    const int64_t count = a->kernel_h * a->kernel_w * a->in;

    for (int64_t o = 0; o < a->out; ++o)
        turn_output(a, a->weight + o * count, turned + o * count);
}

/* and back, added */
static void add_turned(const ConvArgs *a, const float *turned)
{
    const int64_t taps = a->kernel_h * a->kernel_w;

    for (int64_t o = 0; o < a->out; ++o) {
        float *to = a->dweight + o * taps * a->in;
        for (int64_t t = 0; t < taps; ++t)
            for (int64_t i = 0; i < a->in; ++i)
                to[i * taps + t] += turned[(o * taps + t) * a->in + i];
    }
}

typedef struct Space {
    float *weights, *rows;
} Space;

static Space space_of(const ConvArgs *a)
{
    float *p = a->scratch;

    return (Space) { p, p + round_up(weight_floats(a)) };
}

typedef void TileWork(const ConvArgs *a, const Space *s, const Tile *t,
                      int64_t b);

/* All products of a sample, tile after tile. */
static void each_tile(const ConvArgs *a, const Space *s, int64_t b,
                      TileWork *work)
{
    const int64_t pixels = pixels_of(a), most = taps_at_once(a);
    const int64_t taps = a->kernel_h * a->kernel_w;
    Tile t;

    for (t.first = 0; t.first < pixels; t.first += TILE_PIXELS) {
        const int64_t left = pixels - t.first;
        t.rows = left < TILE_PIXELS ? left : TILE_PIXELS;
        for (t.tap0 = 0; t.tap0 < taps; t.tap0 += most) {
            t.taps = taps - t.tap0 < most ? taps - t.tap0 : most;
            t.ld = t.taps * a->in;
            work(a, s, &t, b);
        }
    }
}

static void forward_tile(const ConvArgs *a, const Space *s, const Tile *t,
                         int64_t b)
{
    float *y = a->y + (b * pixels_of(a) + t->first) * a->out;

    gather(a, t, a->x + b * a->h * a->w * a->in, s->rows);
    for (int64_t r = 0; a->bias != NULL && t->tap0 == 0 && r < t->rows; ++r)
        memcpy(y + r * a->out, a->bias, (size_t)a->out * sizeof *y);
    dg_cpu_sgemm(&(GemmArgs) {
        .trans_b = 1,
        .m = t->rows,
        .n = a->out,
        .k = t->ld,
        .lda = t->ld,
        .ldb = a->kernel_h * a->kernel_w * a->in,
        .ldc = a->out,
        .beta = a->bias != NULL || t->tap0 > 0 ? 1.0f : 0.0f,
        .a = s->rows,
        .b = s->weights + t->tap0 * a->in,
        .c = y,
    });
}

void dg_cpu_conv(const ConvArgs *a)
{
    const Space s = space_of(a);

    turn_weights(a, s.weights);
    for (int64_t b = 0; b < a->batch; ++b)
        each_tile(a, &s, b, forward_tile);
}

static void input_grad_tile(const ConvArgs *a, const Space *s, const Tile *t,
                            int64_t b)
{
    dg_cpu_sgemm(&(GemmArgs) {
        .m = t->rows,
        .n = t->ld,
        .k = a->out,
        .lda = a->out,
        .ldb = a->kernel_h * a->kernel_w * a->in,
        .ldc = t->ld,
        .a = a->dy + (b * pixels_of(a) + t->first) * a->out,
        .b = s->weights + t->tap0 * a->in,
        .c = s->rows,
    });
    scatter(a, t, s->rows, a->dx + b * a->h * a->w * a->in);
}

void dg_cpu_conv_input_grad(const ConvArgs *a)
{
    const Space s = space_of(a);
    const int64_t count = a->h * a->w * a->in;

    turn_weights(a, s.weights);
    for (int64_t b = 0; b < a->batch; ++b) {
        if (!a->accumulate)
            memset(a->dx + b * count, 0, (size_t)count * sizeof *a->dx);
        each_tile(a, &s, b, input_grad_tile);
    }
}

static void weight_grad_tile(const ConvArgs *a, const Space *s, const Tile *t,
                             int64_t b)
{
    gather(a, t, a->x + b * a->h * a->w * a->in, s->rows);
    dg_cpu_sgemm(&(GemmArgs) {
        .trans_a = 1,
        .m = a->out,
        .n = t->ld,
        .k = t->rows,
        .lda = a->out,
        .ldb = t->ld,
        .ldc = a->kernel_h * a->kernel_w * a->in,
        .beta = t->first > 0 ? 1.0f : 0.0f,
        .a = a->dy + (b * pixels_of(a) + t->first) * a->out,
        .b = s->rows,
        .c = s->weights + t->tap0 * a->in,
    });
}

void dg_cpu_conv_weight_grad(const ConvArgs *a)
{
    const Space s = space_of(a);
    const int64_t pixels = pixels_of(a);

    for (int64_t b = 0; b < a->batch; ++b) {
        each_tile(a, &s, b, weight_grad_tile);
        add_turned(a, s.weights);
        if (a->dbias != NULL)
            dg_cpu_add_columns(a->dbias, a->dy + b * pixels * a->out, pixels,
                               a->out);
    }
}
