#include "kernels.h"

#include "attention.h"

#include <math.h>

/*
 * Online softmax: queries in tiles of ATT_ROWS, keys in tiles of as many as
 * keep the scores in cache. Running maximum and sum per row; what was summed
 * under an older maximum is scaled down when the maximum rises.
 */
enum { KEYS_MOST = 384, ATT_ROWS = 32 };

typedef struct Forward {
    int64_t keys; /* of a tile */
    int64_t d_pad;
    Packed kt, v; /* keys as columns [d, sk]; values [sk, d] */
    float *q;     /* [ATT_ROWS, d] */
    float *s;     /* [ATT_ROWS, keys] scores, then weights */
    float *o;     /* [ATT_ROWS, d_pad] */
    float *top;   /* [ATT_ROWS] running maximum */
    float *sum;   /* [ATT_ROWS] */
} Forward;

static float *take(Arena *a, int64_t count)
{
    return dg_arena_take(a, (size_t)count * sizeof(float));
}

static Forward forward_take(Arena *a, int64_t sk, int64_t d)
{
    Forward f = { .keys = att_keys(sk, KEYS_MOST), .d_pad = att_pad(d) };

    f.kt = dg_cpu_packed_take(a, d, sk);
    f.v = dg_cpu_packed_take(a, sk, d);
    f.q = take(a, ATT_ROWS * d);
    f.s = take(a, ATT_ROWS * f.keys);
    f.o = take(a, ATT_ROWS * f.d_pad);
    f.top = take(a, ATT_ROWS);
    f.sum = take(a, ATT_ROWS);
    return f;
}

size_t dg_cpu_attention_scratch(int64_t sq, int64_t sk, int64_t d, int backward)
{
    Arena count;

    dg_arena_init_count(&count, "attention");
    if (backward)
        dg_cpu_attention_grad_layout(&count, sq, sk, d);
    else
        forward_take(&count, sk, d);
    return count.used;
}

/* A tile: queries i0 .. i0+m-1 against keys j0 .. j0+n-1 of one head. */
typedef struct Tile {
    int64_t b, h, i0, m, j0, n;
} Tile;

/* keys of the tile that query i sees */
static int64_t seen(const AttentionArgs *a, const Tile *t, int64_t i)
{
    if (!a->causal || i - t->j0 + 1 >= t->n)
        return t->n;
    return i >= t->j0 ? i - t->j0 + 1 : 0;
}

/*
 * The largest of top and a row's scores, in units of log2: scale is
 * scale log2(e) there. With a bias the row becomes those scores, else it
 * stays and row_weights() scales. Scratch rows are whole vectors.
 */
static float row_top(float *s, const float *bias, int64_t n, float scale,
                     float top)
{
    V most = v_set(-INFINITY);

    for (int64_t j = 0; j < n; j += VL) {
        V t = v_load(s + j);
        if (bias != NULL) {
            t = v_fma(t, v_set(scale),
                      v_mul(v_get(bias, j, n), v_set(V_LOG2E)));
            v_store(s + j, t);
        }
        most = v_max(most, v_trim(t, j, n, -INFINITY));
    }
    const float m = v_max_lane(most) * (bias != NULL ? 1.0f : scale);
    return m > top ? m : top;
}

/* s = 2^(scale s - top), 0 from n to the end; returns the sum */
static float row_weights(float *s, int64_t n, int64_t end, float scale,
                         float top)
{
    const V factor = v_set(scale), minus = v_set(-top);
    V sum = v_zero();
    int64_t j = 0;

    for (; j < n; j += VL) {
        V t = v_exp2(v_fma(v_load(s + j), factor, minus));
        t = v_trim(t, j, n, 0.0f);
        sum = v_add(sum, t);
        v_store(s + j, t);
    }
    for (; j < end; j += VL)
        v_store(s + j, v_zero());
    return v_sum(sum);
}

static void scale_row(float *o, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i += VL)
        v_store(o + i, v_mul(v_load(o + i), v_set(factor)));
}

/* Scores of the tile to weights. One pass over all rows finds the maxima,
 * the next takes the exponentials: rows then overlap in the processor. */
static void tile_weights(const AttentionArgs *a, const Forward *f,
                         const Tile *t)
{
    const float scale = a->scale * V_LOG2E;
    float old[ATT_ROWS];

    for (int64_t r = 0; r < t->m; ++r) {
        const int64_t i = t->i0 + r, at = (t->h * a->sq + i) * a->sk + t->j0;
        old[r] = f->top[r];
        f->top[r] =
            row_top(f->s + r * f->keys, a->bias != NULL ? a->bias + at : NULL,
                    seen(a, t, i), scale, old[r]);
    }
    for (int64_t r = 0; r < t->m; ++r) {
        /* all keys so far at -Inf: any finite number does */
        const float top = f->top[r] == -INFINITY ? 0.0f : f->top[r];
        const float sum =
            row_weights(f->s + r * f->keys, seen(a, t, t->i0 + r), t->n,
                        a->bias != NULL ? 1.0f : scale, top);
        if (t->j0 > 0 && old[r] != top) {
            const float fade = exp2f(old[r] - top);
            f->sum[r] *= fade;
            scale_row(f->o + r * f->d_pad, f->d_pad, fade);
        }
        f->sum[r] += sum;
    }
}

static void tile_forward(const AttentionArgs *a, const Forward *f,
                         const Tile *t)
{
    dg_cpu_packed_product(&f->kt, &(PackedProduct) { .m = t->m,
                                                     .k = a->d,
                                                     .column = t->j0,
                                                     .columns = att_pad(t->n),
                                                     .a = f->q,
                                                     .row_a = a->d,
                                                     .col_a = 1,
                                                     .c = f->s,
                                                     .ld_c = f->keys });
    tile_weights(a, f, t);
    dg_cpu_packed_product(&f->v, &(PackedProduct) { .m = t->m,
                                                    .k = t->n,
                                                    .row = t->j0,
                                                    .columns = f->d_pad,
                                                    .a = f->s,
                                                    .row_a = f->keys,
                                                    .col_a = 1,
                                                    .c = f->o,
                                                    .ld_c = f->d_pad,
                                                    .accumulate = t->j0 > 0 });
}

static void finish_rows(const AttentionArgs *a, const Forward *f, const Tile *t)
{
    for (int64_t r = 0; r < t->m; ++r) {
        const float inv = f->sum[r] == 0.0f ? 0.0f : 1.0f / f->sum[r];
        float *o = a->o + ((t->b * a->sq + t->i0 + r) * a->heads + t->h) * a->d;
        for (int64_t l = 0; l < a->d; l += VL)
            v_put(o, l, a->d,
                  v_mul(v_load(f->o + r * f->d_pad + l), v_set(inv)));
    }
    if (a->lse == NULL)
        return;
    float *lse = a->lse + (t->b * a->heads + t->h) * a->sq + t->i0;
    for (int64_t r = 0; r < t->m; r += VL)
        v_put(lse, r, t->m,
              v_fma(v_load(f->top + r), v_set(0.693147181f),
                    v_log(v_load(f->sum + r))));
}

static void rows_forward(const AttentionArgs *a, const Forward *f, Tile t)
{
    const int64_t ld = a->heads * a->d;
    const float *q = a->q + (t.b * a->sq + t.i0) * ld + t.h * a->d;

    att_copy(f->q, a->d, q, ld, t.m, a->d);
    for (int64_t r = 0; r < ATT_ROWS; ++r) {
        f->top[r] = -INFINITY;
        f->sum[r] = 0.0f;
    }
    for (t.j0 = 0; t.j0 < a->sk; t.j0 += f->keys) {
        if (a->causal && t.j0 > t.i0 + t.m - 1)
            break;
        t.n = a->sk - t.j0 < f->keys ? a->sk - t.j0 : f->keys;
        tile_forward(a, f, &t);
    }
    finish_rows(a, f, &t);
}

void dg_cpu_attention(const AttentionArgs *a)
{
    const int64_t ld = a->heads * a->d;
    Arena arena = { a->scratch, SIZE_MAX, 0, 0, "attention" };
    const Forward f = forward_take(&arena, a->sk, a->d);

    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t h = 0; h < a->heads; ++h) {
            const int64_t at = b * a->sk * ld + h * a->d;
            dg_cpu_pack_columns(&f.kt, a->k + at, ld, a->sk);
            dg_cpu_pack_rows(&f.v, a->v + at, ld, a->d);
            for (int64_t i = 0; i < a->sq; i += ATT_ROWS) {
                const int64_t m = a->sq - i < ATT_ROWS ? a->sq - i : ATT_ROWS;
                rows_forward(a, &f, (Tile) { b, h, i, m, 0, 0 });
            }
        }
}
