#include "reward/picture.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

PictureColours dg_picture_colours_clip(void)
{
    return (PictureColours) {
        .mean = { 0.48145466f, 0.4578275f, 0.40821073f },
        .deviation = { 0.26862954f, 0.26130258f, 0.27577711f },
    };
}

int dg_picture_quantize(uint8_t *out, const float *rgb, int64_t num,
                        Quantize how)
{
    for (int64_t i = 0; i < num; i++) {
        const float v = 255 * (rgb[i] < 0 ? 0 : rgb[i] > 1 ? 1 : rgb[i]);

        if (!isfinite(rgb[i]))
            return dg_fail(
                DG_ENUMERIC, "picture: channel %lld of pixel %lld is %g",
                (long long)(i % 3), (long long)(i / 3), (double)rgb[i]);
        out[i] = (uint8_t)(how == DG_QUANTIZE_TRUNC ? v : rintf(v));
    }
    return DG_OK;
}

/* --- resampling one axis ------------------------------------------------ */

/* Source positions and weights of each of m output positions. */
typedef struct Taps {
    int64_t n, m; /* from, to */
    int64_t most; /* weights per position */
    int64_t *from, *num;
    double *w; /* [m, most] normalised */
} Taps;

/* Width of the filter's half, in source pixels. */
static double reach(int64_t n, int64_t m)
{
    const double s = (double)n / (double)m;

    return 2 * (s > 1 ? s : 1);
}

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void take_taps(Taps *t, int64_t n, int64_t m, Arena *a)
{
    t->n = n;
    t->m = m;
    t->most = 2 * (int64_t)ceil(reach(n, m)) + 1;
    t->from = dg_arena_take(a, sizeof *t->from * (size_t)m);
    t->num = dg_arena_take(a, sizeof *t->num * (size_t)m);
    t->w = dg_arena_take(a, sizeof *t->w * (size_t)(m * t->most));
}

/* Pillow's positions and weights, in double. */
static void fill_taps(const Taps *t)
{
    const double s = (double)t->n / (double)t->m, r = reach(t->n, t->m);
    const double f = s > 1 ? s : 1;

    for (int64_t i = 0; i < t->m; i++) {
        const double c = ((double)i + 0.5) * s;
        const int64_t low = (int64_t)(c - r + 0.5);
        const int64_t high = (int64_t)(c + r + 0.5);
        double *w = t->w + i * t->most, sum = 0;

        t->from[i] = low > 0 ? low : 0;
        t->num[i] = (high < t->n ? high : t->n) - t->from[i];
        for (int64_t j = 0; j < t->num[i]; j++) {
            w[j] = bicubic(((double)(t->from[i] + j) - c + 0.5) / f);
            sum += w[j];
        }
        for (int64_t j = 0; j < t->num[i]; j++)
            w[j] /= sum;
    }
}

static float bicubic_f32(float x)
{
    const float a = -0.5f;

    x = fabsf(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* torch's: the same in float, in its order. */
static void fill_taps_f32(const Taps *t)
{
    const float s = (float)t->n / (float)t->m, f = s > 1 ? s : 1;
    const float r = 2 * f, inverse = 1 / f;

    for (int64_t i = 0; i < t->m; i++) {
        const float c = s * ((float)i + 0.5f);
        const int64_t low = (int64_t)(c - r + 0.5f);
        const int64_t high = (int64_t)(c + r + 0.5f);
        double *w = t->w + i * t->most;
        float sum = 0;

        t->from[i] = low > 0 ? low : 0;
        t->num[i] = (high < t->n ? high : t->n) - t->from[i];
        for (int64_t j = 0; j < t->num[i]; j++) {
            const float x = ((float)(j + t->from[i]) - c + 0.5f) * inverse;

            w[j] = (double)bicubic_f32(x);
            sum += (float)w[j];
        }
        for (int64_t j = 0; j < t->num[i]; j++)
            w[j] = (double)((float)w[j] / sum);
    }
}

/* A pass over one axis: lines of values 'step' apart, three channels to a
 * pixel. */
typedef struct Pass {
    const Taps *taps;
    int64_t lines;
    int64_t line_in, line_out; /* from line to line */
    int64_t step;              /* from position to position, in and out */
} Pass;

enum { BITS = 22 }; /* of a weight's fraction */

static uint8_t sum_u8(const uint8_t *in, int64_t step, const double *w,
                      int64_t num)
{
    int32_t sum = 1 << (BITS - 1);

    for (int64_t j = 0; j < num; j++) {
        const int32_t q =
            (int32_t)(w[j] * (1 << BITS) + (w[j] < 0 ? -0.5 : 0.5));

        sum += in[j * step] * q;
    }
    sum >>= BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static float sum_f32(const float *in, int64_t step, const double *w,
                     int64_t num)
{
    float sum = 0;

    for (int64_t j = 0; j < num; j++)
        sum += in[j * step] * (float)w[j];
    return sum;
}

static void run_pass(const Pass *p, Resampler kind, void *out, const void *in)
{
    const Taps *t = p->taps;

    if (kind == DG_RESAMPLE_U8)
        fill_taps(t);
    else
        fill_taps_f32(t);
    for (int64_t l = 0; l < p->lines; l++)
        for (int64_t i = 0; i < t->m; i++)
            for (int64_t c = 0; c < 3; c++) {
                const int64_t to = l * p->line_out + i * p->step + c;
                const int64_t from = l * p->line_in + t->from[i] * p->step + c;
                const double *w = t->w + i * t->most;

                if (kind == DG_RESAMPLE_U8)
                    ((uint8_t *)out)[to] = sum_u8((const uint8_t *)in + from,
                                                  p->step, w, t->num[i]);
                else
                    ((float *)out)[to] = sum_f32((const float *)in + from,
                                                 p->step, w, t->num[i]);
            }
}

/* --- the whole way ------------------------------------------------------ */

/* What is between picture and input. */
typedef struct Steps {
    int64_t height, width;         /* of the picture */
    int64_t new_height, new_width; /* resampled */
    uint8_t *bytes;                /* [height, width, 3] */
    void *start, *wide, *whole;    /* of the resampler's type: [height, width],
                                      [height, new_width], [new_height,
                                      new_width], 3 channels each */
    Taps across, down;
} Steps;

/* Sides after the resampling: the longer one is cut to a whole number. */
static void fit(Steps *s, const PictureOpts *o)
{
    const int64_t S = o->side, h = s->height, w = s->width;

    s->new_height = s->new_width = S;
    if (!o->squash && h > w)
        s->new_height = (int64_t)((double)(S * h) / (double)w);
    if (!o->squash && w > h)
        s->new_width = (int64_t)((double)(S * w) / (double)h);
}

static void take_steps(Steps *s, Resampler kind, Arena *a)
{
    const size_t size = kind == DG_RESAMPLE_U8 ? 1 : sizeof(float);
    const int64_t num = 3 * s->height * s->width;

    s->bytes = dg_arena_take(a, (size_t)num);
    s->start = kind == DG_RESAMPLE_U8 ? s->bytes
                                      : dg_arena_take(a, size * (size_t)num);
    s->wide = dg_arena_take(a, size * (size_t)(3 * s->height * s->new_width));
    s->whole =
        dg_arena_take(a, size * (size_t)(3 * s->new_height * s->new_width));
    take_taps(&s->across, s->width, s->new_width, a);
    take_taps(&s->down, s->height, s->new_height, a);
}

/* Across, then down; an axis that keeps its size is left alone. */
static const void *resample(const Steps *s, Resampler kind)
{
    const Pass across = { &s->across, s->height, 3 * s->width, 3 * s->new_width,
                          3 };
    const Pass down = { &s->down, s->new_width, 3, 3, 3 * s->new_width };
    const void *from = s->start;

    if (s->width != s->new_width) {
        run_pass(&across, kind, s->wide, from);
        from = s->wide;
    }
    if (s->height != s->new_height) {
        run_pass(&down, kind, s->whole, from);
        from = s->whole;
    }
    return from;
}

static int64_t crop_offset(int64_t surplus, int low)
{
    return low ? surplus / 2 : (int64_t)rint((double)surplus / 2);
}

/* The middle of the resampled picture, normalised. */
static void finish(float *out, const PictureOpts *o, const Steps *s,
                   const void *from)
{
    const int64_t S = o->side;
    const PictureColours colours =
        o->colours.deviation[0] > 0 ? o->colours : dg_picture_colours_clip();
    const int64_t top = crop_offset(s->new_height - S, o->crop_low);
    const int64_t left = crop_offset(s->new_width - S, o->crop_low);

    for (int64_t y = 0; y < S; y++)
        for (int64_t x = 0; x < S; x++)
            for (int64_t c = 0; c < 3; c++) {
                const int64_t at =
                    ((top + y) * s->new_width + left + x) * 3 + c;
                const float v = o->resampler == DG_RESAMPLE_U8
                                    ? (float)((const uint8_t *)from)[at] / 255
                                    : ((const float *)from)[at];

                out[(y * S + x) * 3 + c] =
                    (v - colours.mean[c]) / colours.deviation[c];
            }
}

int dg_picture_prepare(float *out, const PictureOpts *o, const float *rgb,
                       int64_t height, int64_t width, Arena *scratch)
{
    const size_t mark = dg_arena_mark(scratch);
    const int64_t num = 3 * height * width;
    Steps s = { .height = height, .width = width };
    int err = DG_OK;

    fit(&s, o);
    take_steps(&s, o->resampler, scratch);
    if (dg_arena_full(scratch))
        err = DG_ENOMEM;
    else if (scratch->base != NULL)
        err = dg_picture_quantize(s.bytes, rgb, num, o->quantize);
    if (!err && scratch->base != NULL) {
        for (int64_t i = 0; i < num && o->resampler == DG_RESAMPLE_F32; i++)
            ((float *)s.start)[i] = (float)s.bytes[i] / 255;
        finish(out, o, &s, resample(&s, o->resampler));
    }
    dg_arena_release(scratch, mark);
    return err;
}
