#include "world/detect.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

enum {
    NONE = -1,    /* label: background; owner: nobody */
    GROWTH = 3,   /* pixels by which a component grows for its soft weights */
    FRAGMENT = -2 /* owner: a component too small */
};

static const float max_grey_error = 0.25f;
static const float max_colour_error = 0.20f;
static const float max_share = 1.15f;
static const float least_weight = 0.15f;

/* One picture's working state. */
typedef struct View {
    int side;
    float background[3];
    float v[DG_NUM_COLOURS][3]; /* palette colour minus background */
    float v2[DG_NUM_COLOURS];   /* its squared length */
    int num_fragments, fragment_pixels, unexplained;
    WorldScratch *s;
} View;

static float clamp(float x, float most)
{
    return x < 0.0f ? 0.0f : x > most ? most : x;
}

/* 3x3 binomial filter with the rim repeated, after clamping to [0, 1]. */
static int blur(View *v, const float *rgb)
{
    const int n = v->side, width = 3 * n;
    float *out = v->s->pixel, bad = 0.0f;

    for (int y = 0; y <= n; y++) {
        if (y < n) { /* horizontal pass into a ring of three rows */
            const float *in = rgb + (size_t)y * (size_t)width;
            float *row = v->s->row + y % 3 * 3 * DG_WORLD_MAX_SIDE;

            float left[3];

            memcpy(left, in, sizeof left);
            for (int i = 0; i < 3; i++)
                left[i] = clamp(left[i], 1.0f);
            for (int i = 0; i < width; i++) {
                float c = clamp(in[i], 1.0f);
                float r = clamp(in[i + 3 < width ? i + 3 : i], 1.0f);
                float l = left[i % 3];

                bad += in[i] * 0.0f;
                row[i] = 0.25f * (l + r) + 0.5f * c;
                left[i % 3] = c;
            }
        }
        if (y == 0)
            continue;
        const float *base = v->s->row;
        const float *c = base + (y - 1) % 3 * 3 * DG_WORLD_MAX_SIDE;
        const float *a = y > 1 ? base + (y - 2) % 3 * 3 * DG_WORLD_MAX_SIDE : c;
        const float *b = y < n ? base + y % 3 * 3 * DG_WORLD_MAX_SIDE : c;

        for (int i = 0; i < width; i++)
            out[(y - 1) * width + i] = 0.25f * (a[i] + b[i]) + 0.5f * c[i];
    }
    return bad == 0.0f;
}

static void sort_floats(float *a, int n)
{
    for (int h = n / 2; h > 0; h = h == 2 ? 1 : h * 5 / 11) {
        for (int i = h; i < n; i++) {
            float x = a[i];
            int j = i;

            for (; j >= h && a[j - h] > x; j -= h)
                a[j] = a[j - h];
            a[j] = x;
        }
    }
}

static void find_background(View *v)
{
    const int n = v->side, w = n >= 64 ? n / 32 : 1;
    float *ring = v->s->ring;

    for (int c = 0; c < 3; c++) {
        int num = 0;

        for (int y = 0; y < n; y++) {
            int inner = y >= w && y < n - w;

            for (int x = 0; x < n; x = inner && x == w - 1 ? n - w : x + 1)
                ring[num++] = v->s->pixel[3 * (y * n + x) + c];
        }
        sort_floats(ring, num);
        v->background[c] = 0.5f * (ring[(num - 1) / 2] + ring[num / 2]);
    }
    for (int k = 0; k < DG_NUM_COLOURS; k++) {
        float ink[3];

        dg_world_colour_rgb(ink, k);
        v->v2[k] = 0.0f;
        for (int c = 0; c < 3; c++) {
            v->v[k][c] = ink[c] - v->background[c];
            v->v2[k] += v->v[k][c] * v->v[k][c];
        }
    }
}

static int is_grey(const View *v)
{
    float sum = 0.0f;

    for (int c = 0; c < 3; c++) {
        float d = v->background[c] - 128.0f / 255.0f;

        sum += d * d;
    }
    return sum <= max_grey_error * max_grey_error;
}

/* Share of colour k in a pixel, 0 background, 1 the colour. */
static float share(const View *v, const float *pixel, int k)
{
    float dot = 0.0f;

    for (int c = 0; c < 3; c++)
        dot += (pixel[c] - v->background[c]) * v->v[k][c];
    return clamp(dot / v->v2[k], max_share);
}

static void label_pixels(View *v)
{
    const int num = v->side * v->side;
    float near = max_colour_error;

    for (int k = 0; k < DG_NUM_COLOURS; k++)
        near = fminf(near, 0.49f * sqrtf(v->v2[k]));
    for (int p = 0; p < num; p++) {
        const float *pixel = v->s->pixel + 3 * p;
        float best = INFINITY, best_share = 0.0f, far = 0.0f;
        int label = NONE;

        v->s->label[p] = v->s->owner[p] = NONE;
        for (int c = 0; c < 3; c++) {
            float d = pixel[c] - v->background[c];

            far += d * d;
        }
        if (far < near * near) /* explained, and no share reaches a half */
            continue;
        for (int k = 0; k < DG_NUM_COLOURS; k++) {
            float a = share(v, pixel, k), e = 0.0f;

            for (int c = 0; c < 3; c++) {
                float r = pixel[c] - v->background[c] - a * v->v[k][c];

                e += r * r;
            }
            if (e < best) {
                best = e;
                best_share = a;
                label = k;
            }
        }
        if (best > max_colour_error * max_colour_error) {
            v->unexplained++;
            label = NONE;
        }
        v->s->label[p] = (int8_t)(best_share >= 0.5f ? label : NONE);
    }
}

/* The neighbours of pixel p inside the picture, rows first; their number. */
static int neighbours(int q[8], int p, int side)
{
    int x = p % side, y = p / side, num = 0;

    for (int j = y > 0 ? -1 : 0; j <= (y + 1 < side); j++)
        for (int i = x > 0 ? -1 : 0; i <= (x + 1 < side); i++)
            if (i != 0 || j != 0)
                q[num++] = p + j * side + i;
    return num;
}

/* Floods the component of pixel p with an owner id; returns its pixels,
 * which are left in the queue. */
static int flood(View *v, int p, int owner)
{
    int32_t *queue = v->s->queue;
    int head = 0, tail = 0;

    queue[tail++] = p;
    v->s->owner[p] = (int16_t)owner;
    while (head < tail) {
        int q = queue[head++], near[8], num = neighbours(near, q, v->side);

        for (int i = 0; i < num; i++) {
            int r = near[i];

            if (v->s->owner[r] != NONE || v->s->label[r] != v->s->label[q])
                continue;
            v->s->owner[r] = (int16_t)owner;
            queue[tail++] = r;
        }
    }
    return tail;
}

static void measure_mask(const View *v, WorldSeen *o, int pixels)
{
    const int n = v->side;

    o->pixels = pixels;
    o->colour = v->s->label[v->s->queue[0]];
    o->box[0] = o->box[1] = n;
    o->box[2] = o->box[3] = 0;
    for (int i = 0; i < pixels; i++) {
        int x = v->s->queue[i] % n, y = v->s->queue[i] / n;

        o->box[0] = x < o->box[0] ? x : o->box[0];
        o->box[1] = y < o->box[1] ? y : o->box[1];
        o->box[2] = x >= o->box[2] ? x + 1 : o->box[2];
        o->box[3] = y >= o->box[3] ? y + 1 : o->box[3];
    }
}

/* Mean colour of the pixels whose neighbours belong to the object too;
 * of the whole mask where it is too thin to have such. */
static void measure_colour(const View *v, WorldSeen *o, int id, int pixels)
{
    double sum[2][3] = { { 0 } };
    int num[2] = { 0, 0 };

    for (int i = 0; i < pixels; i++) {
        int p = v->s->queue[i], near[8];
        int inner = neighbours(near, p, v->side) == 8;

        for (int k = 0; k < 8 && inner; k++)
            inner = v->s->owner[near[k]] == id;
        num[inner]++;
        for (int c = 0; c < 3; c++)
            sum[inner][c] += (double)v->s->pixel[3 * p + c];
    }
    for (int c = 0; c < 3; c++)
        o->rgb[c] = (float)(num[1] ? sum[1][c] / num[1] : sum[0][c] / num[0]);
}

static int find_components(View *v, WorldSeen *object)
{
    const int all = v->side * v->side, least = all > 2000 ? all / 250 : 8;
    int num = 0;

    for (int p = 0; p < all; p++) {
        int pixels;

        if (v->s->label[p] == NONE || v->s->owner[p] != NONE)
            continue;
        pixels = flood(v, p, num);
        /* all / 250 rounds 0.4 % down; compare without rounding */
        if (pixels < least || pixels * 250 < all) {
            for (int i = 0; i < pixels; i++)
                v->s->owner[v->s->queue[i]] = FRAGMENT;
            v->num_fragments++;
            v->fragment_pixels += pixels;
            continue;
        }
        measure_mask(v, &object[num], pixels);
        measure_colour(v, &object[num], num, pixels);
        num++;
    }
    return num;
}

/* Layer by layer, rows first inside the first layer: first owner wins. */
static void grow(View *v)
{
    const int all = v->side * v->side;
    int32_t *queue = v->s->queue;
    int head = 0, tail = 0;

    for (int p = 0; p < all; p++) {
        if (v->s->owner[p] == FRAGMENT)
            v->s->owner[p] = NONE;
        else if (v->s->owner[p] != NONE)
            queue[tail++] = p;
    }
    for (int layer = 0; layer < GROWTH; layer++) {
        for (int end = tail; head < end; head++) {
            int near[8], num = neighbours(near, queue[head], v->side);

            for (int i = 0; i < num; i++) {
                if (v->s->owner[near[i]] != NONE)
                    continue;
                v->s->owner[near[i]] = v->s->owner[queue[head]];
                queue[tail++] = near[i];
            }
        }
    }
}

/* Sums of w and of w z^p over the pixels of object 'id'. */
typedef struct Moments {
    double w, wx, wy, z2[2], zz, z3[2], z4[2];
} Moments;

static void add_moments(Moments *m, double w, double x, double y)
{
    double x2 = x * x - y * y, y2 = 2.0 * x * y; /* z^2 */

    m->z2[0] += w * x2;
    m->z2[1] += w * y2;
    m->zz += w * (x * x + y * y);
    m->z3[0] += w * (x2 * x - y2 * y);
    m->z3[1] += w * (x2 * y + y2 * x);
    m->z4[0] += w * (x2 * x2 - y2 * y2);
    m->z4[1] += w * (2.0 * x2 * y2);
}

static void sum_moments(const View *v, Moments *m, const WorldSeen *o, int id,
                        int pass)
{
    const int n = v->side;
    int x0 = o->box[0] > GROWTH ? o->box[0] - GROWTH : 0;
    int y0 = o->box[1] > GROWTH ? o->box[1] - GROWTH : 0;
    int x1 = o->box[2] + GROWTH < n ? o->box[2] + GROWTH : n;
    int y1 = o->box[3] + GROWTH < n ? o->box[3] + GROWTH : n;

    for (int y = y0; y < y1; y++) {
        for (int x = x0; x < x1; x++) {
            int p = y * n + x;
            float w;

            if (v->s->owner[p] != id)
                continue;
            w = share(v, v->s->pixel + 3 * p, o->colour);
            if (w < least_weight)
                continue;
            if (pass == 0) {
                m->w += (double)w;
                m->wx += (double)w * (x + 0.5);
                m->wy += (double)w * (y + 0.5);
            } else {
                add_moments(m, (double)w, x + 0.5 - m->wx / m->w,
                            y + 0.5 - m->wy / m->w);
            }
        }
    }
}

static int classify(const WorldSeen *o)
{
    if (o->e2 > 0.045f || o->s2 > 0.30f)
        return DG_SHAPE_OTHER;
    if (o->s3 > 0.034f)
        return DG_SHAPE_TRIANGLE;
    return o->s4 > 0.008f ? DG_SHAPE_SQUARE : DG_SHAPE_CIRCLE;
}

static void measure_shape(const View *v, WorldSeen *o, int id)
{
    Moments m = { 0 };
    double w2;

    sum_moments(v, &m, o, id, 0);
    sum_moments(v, &m, o, id, 1);
    w2 = m.w * m.w;
    o->mass = (float)m.w;
    o->cx = (float)(m.wx / m.w);
    o->cy = (float)(m.wy / m.w);
    o->e2 = (float)(hypot(m.z2[0], m.z2[1]) / w2);
    o->s2 = (float)(m.zz / w2);
    o->s3 = (float)(hypot(m.z3[0], m.z3[1]) / (w2 * sqrt(m.w)));
    o->s4 = (float)(hypot(m.z4[0], m.z4[1]) / (w2 * m.w));
    o->shape = classify(o);
}

int dg_world_detect(WorldDetection *out, const float *rgb, int side,
                    WorldScratch *scratch)
{
    View v = { .side = side, .s = scratch };
    float all = (float)(side * side);

    if (side < DG_WORLD_MIN_SIDE || side > DG_WORLD_MAX_SIDE)
        return dg_fail(DG_EINVAL,
                       "side of a world picture = %d: must be %d to %d", side,
                       DG_WORLD_MIN_SIDE, DG_WORLD_MAX_SIDE);
    if (!blur(&v, rgb))
        return dg_fail(DG_ENUMERIC, "a pixel of a picture is not finite");
    find_background(&v);
    out->num_objects = out->num_fragments = 0;
    out->unexplained = out->fragments = 0.0f;
    out->clutter = 1.0f;
    memcpy(out->background, v.background, sizeof v.background);
    if (!is_grey(&v))
        return DG_OK;
    label_pixels(&v);
    out->num_objects = find_components(&v, out->object);
    grow(&v);
    for (int i = 0; i < out->num_objects; i++)
        measure_shape(&v, &out->object[i], i);
    out->num_fragments = v.num_fragments;
    out->unexplained = (float)v.unexplained / all;
    out->fragments = (float)v.fragment_pixels / all;
    out->clutter = out->unexplained + out->fragments;
    return DG_OK;
}
