/*
 * What tests of convolutions of bfloat16 share: places for their arrays, the
 * three kernels over the same stored values, the double loops of ref_conv.c over
 * them, a batch cut otherwise.
 */
#ifndef DG_TESTS_CONV_BED_H
#define DG_TESTS_CONV_BED_H
#include "base/error.h"
#include "cuda/cuda.h"
#include "ref_checks.h"
#include "ref_conv.h"
#include "weights/half.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation; a GPU has its own order */
void cuda_emulation_order(int reversed) __attribute__((weak));

enum { BATCH = 4, PLACES = 8 };

/* rows and columns of zeros before and after the map, or the zoomed map */
typedef struct Shape {
    int64_t h, w, in, out, stride, before, after, zoom, cut, kernel;
} Shape;

static const Backend *under_test(void)
{
    return dg_backend_cuda()->bf16;
}

static ConvArgs args_of(const Shape *s, int64_t batch)
{
    const int64_t more = s->before + s->after - s->kernel - s->cut;

    return (ConvArgs) {
        .batch = batch,
        .h = s->h,
        .w = s->w,
        .in = s->in,
        .out = s->out,
        .out_h = (s->zoom * s->h + more) / s->stride + 1,
        .out_w = (s->zoom * s->w + more) / s->stride + 1,
        .kernel_h = s->kernel,
        .kernel_w = s->kernel,
        .stride = s->stride,
        .top = s->before,
        .left = s->before,
        .zoom = s->zoom,
        .cut_h = s->cut,
        .cut_w = s->cut,
        .accumulate = s->in % 16 == 0,
    };
}

/* x, weight, bias, y, dy, dx, dweight, dbias */
typedef struct Place {
    int64_t each; /* values of a sample, or of all */
    int64_t count;
    int64_t bytes;
    float *host;
} Place;

static void places_of(Place p[PLACES], const ConvArgs *a)
{
    const int64_t x = a->h * a->w * a->in, y = a->out_h * a->out_w * a->out;
    const int64_t w = a->out * a->in * a->kernel_h * a->kernel_w;
    const int64_t each[PLACES] = { x, w, a->out, y, y, x, w, a->out };

    for (int i = 0; i < PLACES; ++i) {
        const int shared = i == 1 || i == 2 || i >= 6;
        p[i].each = each[i];
        p[i].count = shared ? each[i] : a->batch * each[i];
        p[i].bytes = i >= 6 ? 4 : 2;
    }
}

static void point_at(ConvArgs *a, float *const p[PLACES])
{
    a->x = p[0];
    a->weight = p[1];
    a->bias = p[2];
    a->y = p[3];
    a->dy = p[4];
    a->dx = p[5];
    a->dweight = p[6];
    a->dbias = p[7];
}

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

/* numbers that bfloat16 has */
static void draw(Place *p)
{
    p->host = malloc((size_t)p->count * sizeof(float));
    for (int64_t i = 0; i < p->count; ++i)
        p->host[i] = dg_bfloat_to_float(dg_bfloat_from_float(kernel_draw()));
}

/* Samples first .. of the host's values through the three kernels; results
 * take their places. 'off': bytes by which addresses miss their alignment. */
static void run(const Shape *s, const Place *all, int64_t first, int64_t batch,
                int64_t off)
{
    ConvArgs a = args_of(s, batch);
    uint16_t *narrow = malloc(1 << 20);
    char *device[PLACES];
    float *p[PLACES];
    Place mine[PLACES];

    places_of(mine, &a);
    for (int i = 0; i < PLACES; ++i) {
        float *host = all[i].host +
                      (all[i].count > all[i].each ? first * all[i].each : 0);
        mine[i].host = host;
        dg_bfloat_narrow(narrow, host, mine[i].count);
        device[i] = device_copy(NULL, (size_t)(mine[i].count * 4 + off));
        dg_cuda_upload(device[i] + off,
                       mine[i].bytes == 2 ? (void *)narrow : host,
                       (size_t)(mine[i].count * mine[i].bytes));
        done();
        p[i] = (float *)(device[i] + off);
    }
    point_at(&a, p);
    a.scratch = device_copy(NULL, under_test()->conv_scratch(&a));
    under_test()->conv(&a);
    under_test()->conv_input_grad(&a);
    under_test()->conv_weight_grad(&a);
    for (int i = 3; i < PLACES; ++i) {
        void *to = mine[i].bytes == 2 ? (void *)narrow : mine[i].host;
        dg_cuda_download(to, p[i], (size_t)(mine[i].count * mine[i].bytes));
        done();
        if (mine[i].bytes == 2)
            dg_bfloat_widen(mine[i].host, narrow, mine[i].count);
    }
    for (int i = 0; i < PLACES; ++i)
        dg_cuda_free(device[i]);
    dg_cuda_free(a.scratch);
    free(narrow);
}

/* Half the distance between neighbours of bfloat16, 8 bits, around x. */
static double half_ulp(double x)
{
    return x == 0.0 ? 0.0 : ldexp(1.0, ilogb(x) - 8);
}

/*
 * Sums are float32, off by sqrt(terms) roundings of their size; stored once,
 * where tensor cores take them, else dx after each of a few tiles.
 */
static void compare(const Shape *s, int slot, const Place *got,
                    const Place *want, double roundings)
{
    const ConvArgs a = args_of(s, BATCH);
    const double terms =
        (double)(9 * (a.in + a.out) + BATCH * a.out_h * a.out_w);
    double size = 1.0;

    for (int64_t i = 0; i < got->count; ++i)
        size = fmax(size, fabs(want->host[i]));
    const double sums = 16.0 * FLT_EPSILON * sqrt(terms) * size;
    for (int64_t i = 0; i < got->count; ++i) {
        const double is = got->host[i], due = want->host[i];
        const double ulp = got->bytes == 2
                               ? half_ulp(fabs(due) + sums) +
                                     (roundings - 1.0) * half_ulp(2.0 * size)
                               : 0.0;
        if (!(fabs(is - due) <= sums + ulp))
            fail_msg("%d x %d x %d to %d, place %d at %lld: %.9g is not %.9g",
                     (int)s->h, (int)s->w, (int)s->in, (int)s->out, slot,
                     (long long)i, is, due);
    }
}

static void all_draw(const Shape *s, Place got[PLACES], Place other[PLACES])
{
    const ConvArgs a = args_of(s, BATCH);

    places_of(got, &a);
    places_of(other, &a);
    for (int i = 0; i < PLACES; ++i) {
        draw(&got[i]);
        other[i].host = malloc((size_t)got[i].count * sizeof(float));
        memcpy(other[i].host, got[i].host,
               (size_t)got[i].count * sizeof(float));
    }
}

static void all_free(Place got[PLACES], Place other[PLACES])
{
    for (int i = 0; i < PLACES; ++i) {
        free(got[i].host);
        free(other[i].host);
    }
}

static void check_loops(const Shape *s, int64_t off, double roundings)
{
    ConvArgs a = args_of(s, BATCH);
    Place got[PLACES], want[PLACES];
    float *p[PLACES];

    all_draw(s, got, want);
    run(s, got, 0, BATCH, off);
    for (int i = 0; i < PLACES; ++i)
        p[i] = want[i].host;
    point_at(&a, p);
    ref_conv(&a);
    ref_conv_input_grad(&a);
    ref_conv_weight_grad(&a);
    for (int i = 3; i < PLACES; ++i)
        compare(s, i, &got[i], &want[i], i == 5 ? roundings : 1.0);
    all_free(got, want);
}

/* A batch of 4 in one order of threads is 1 and 3 in the other, bit for bit. */
static void check_batch(const Shape *s)
{
    Place four[PLACES], cut[PLACES];

    all_draw(s, four, cut);
    run(s, four, 0, BATCH, 0);
    if (cuda_emulation_order != NULL)
        cuda_emulation_order(1);
    run(s, cut, 0, 1, 0);
    run(s, cut, 1, BATCH - 1, 0);
    if (cuda_emulation_order != NULL)
        cuda_emulation_order(0);
    for (int p = 3; p < PLACES; ++p)
        if (memcmp(four[p].host, cut[p].host,
                   (size_t)four[p].count * sizeof(float)))
            fail_msg("%d x %d x %d to %d, place %d: 4 samples are not 1 and 3",
                     (int)s->h, (int)s->w, (int)s->in, (int)s->out, p);
    all_free(four, cut);
}

#endif
