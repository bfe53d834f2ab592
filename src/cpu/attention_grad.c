#include "kernels.h"

#include "attention.h"

#include <math.h>

/*
 * Backward of attention. Keys are the outer tiles, queries the inner ones:
 *   P = exp(scale q k^T + bias - lse),  dP = dO v^T
 *   dS = P (dP - delta),  delta = sum_d o dO
 *   dv += P^T dO;  dq += scale dS k;  dk += scale dS^T q;  dbias += dS
 * dk, dv of a key tile are finished when its queries are; dq of all queries
 * grows in scratch, key tile after key tile.
 */
enum { KEYS_MOST = 144, ROWS_MOST = 96 };

typedef struct Backward {
    int64_t keys, rows; /* of a tile */
    int64_t d_pad;
    Packed kt, vt;  /* [d, sk] */
    Packed k;       /* [sk, d] */
    Packed q, d_o;  /* [sq, d] */
    float *q_rows;  /* [rows, d] */
    float *do_rows; /* [rows, d] */
    float *p, *ds;  /* [rows, keys] */
    float *dq;      /* [sq, d_pad] */
    float *dk, *dv; /* [keys, d_pad] */
    float *delta;   /* [sq] */
} Backward;

static float *take(Arena *a, int64_t count)
{
    return dg_arena_take(a, (size_t)count * sizeof(float));
}

static Backward backward_take(Arena *a, int64_t sq, int64_t sk, int64_t d)
{
    Backward w = { .keys = att_keys(sk, KEYS_MOST),
                   .rows = att_keys(sq, ROWS_MOST),
                   .d_pad = att_pad(d) };

    w.kt = dg_cpu_packed_take(a, d, sk);
    w.vt = dg_cpu_packed_take(a, d, sk);
    w.k = dg_cpu_packed_take(a, sk, d);
    w.q = dg_cpu_packed_take(a, sq, d);
    w.d_o = dg_cpu_packed_take(a, sq, d);
    w.q_rows = take(a, w.rows * d);
    w.do_rows = take(a, w.rows * d);
    w.p = take(a, w.rows * w.keys);
    w.ds = take(a, w.rows * w.keys);
    w.dq = take(a, sq * w.d_pad);
    w.dk = take(a, w.keys * w.d_pad);
    w.dv = take(a, w.keys * w.d_pad);
    w.delta = take(a, sq);
    return w;
}

void dg_cpu_attention_grad_layout(Arena *a, int64_t sq, int64_t sk, int64_t d)
{
    backward_take(a, sq, sk, d);
}

typedef struct Tile {
    int64_t b, h, i0, m, j0, n;
} Tile;

static void tile_scores(const AttentionArgs *a, const Backward *w,
                        const Tile *t)
{
    PackedProduct x = { .m = t->m,
                        .k = a->d,
                        .column = t->j0,
                        .columns = att_pad(t->n),
                        .a = w->q_rows,
                        .row_a = a->d,
                        .col_a = 1,
                        .c = w->p,
                        .ld_c = w->keys };

    dg_cpu_packed_product(&w->kt, &x);
    x.a = w->do_rows;
    x.c = w->ds;
    dg_cpu_packed_product(&w->vt, &x);
}

/* p: scores -> P; ds: dP -> scale dS; dbias += dS. One query. */
static void tile_row(const AttentionArgs *a, const Backward *w, const Tile *t,
                     int64_t r)
{
    const int64_t i = t->i0 + r, at = (t->h * a->sq + i) * a->sk + t->j0;
    const V lse =
        v_set(-V_LOG2E * a->lse[(t->b * a->heads + t->h) * a->sq + i]);
    const V delta = v_set(w->delta[i]), scale = v_set(a->scale);
    const V scale2 = v_set(a->scale * V_LOG2E);
    const float *bias = a->bias != NULL ? a->bias + at : NULL;
    float *dbias = a->dbias != NULL ? a->dbias + at : NULL;
    float *p = w->p + r * w->keys, *ds = w->ds + r * w->keys;
    int64_t n = t->n;

    if (a->causal && i - t->j0 + 1 < n)
        n = i - t->j0 + 1 > 0 ? i - t->j0 + 1 : 0;
    int64_t j = 0;
    for (; j < n; j += VL) {
        V s = v_fma(v_load(p + j), scale2, lse);
        if (bias != NULL)
            s = v_fma(v_get(bias, j, n), v_set(V_LOG2E), s);
        const V e = v_trim(v_exp2(s), j, n, 0.0f);
        const V g = v_mul(e, v_sub(v_load(ds + j), delta));
        v_store(p + j, e);
        v_store(ds + j, v_mul(g, scale));
        if (dbias != NULL)
            v_put(dbias, j, n, v_add(v_get(dbias, j, n), g));
    }
    for (; j < t->n; j += VL) {
        v_store(p + j, v_zero());
        v_store(ds + j, v_zero());
    }
}

static void tile_products(const Backward *w, const Tile *t, int first)
{
    PackedProduct x = { .m = t->n,
                        .k = t->m,
                        .row = t->i0,
                        .columns = w->d_pad,
                        .a = w->p,
                        .row_a = 1,
                        .col_a = w->keys,
                        .c = w->dv,
                        .ld_c = w->d_pad,
                        .accumulate = !first };

    dg_cpu_packed_product(&w->d_o, &x);
    x.a = w->ds;
    x.c = w->dk;
    dg_cpu_packed_product(&w->q, &x);
    dg_cpu_packed_product(&w->k,
                          &(PackedProduct) { .m = t->m,
                                             .k = t->n,
                                             .row = t->j0,
                                             .columns = w->d_pad,
                                             .a = w->ds,
                                             .row_a = w->keys,
                                             .col_a = 1,
                                             .c = w->dq + t->i0 * w->d_pad,
                                             .ld_c = w->d_pad,
                                             .accumulate = t->j0 > 0 });
}

static void tile_backward(const AttentionArgs *a, const Backward *w,
                          const Tile *t, int first)
{
    const int64_t ld = a->heads * a->d;
    const int64_t at = (t->b * a->sq + t->i0) * ld + t->h * a->d;

    att_copy(w->q_rows, a->d, a->q + at, ld, t->m, a->d);
    att_copy(w->do_rows, a->d, a->d_o + at, ld, t->m, a->d);
    tile_scores(a, w, t);
    for (int64_t r = 0; r < t->m; ++r)
        tile_row(a, w, t, r);
    tile_products(w, t, first);
}

static void head_prepare(const AttentionArgs *a, const Backward *w, int64_t b,
                         int64_t h)
{
    const int64_t ld = a->heads * a->d;
    const int64_t at_q = b * a->sq * ld + h * a->d;
    const int64_t at_k = b * a->sk * ld + h * a->d;

    dg_cpu_pack_columns(&w->kt, a->k + at_k, ld, a->sk);
    dg_cpu_pack_columns(&w->vt, a->v + at_k, ld, a->sk);
    dg_cpu_pack_rows(&w->k, a->k + at_k, ld, a->d);
    dg_cpu_pack_rows(&w->q, a->q + at_q, ld, a->d);
    dg_cpu_pack_rows(&w->d_o, a->d_o + at_q, ld, a->d);
    for (int64_t i = 0; i < a->sq; ++i) {
        V sum = v_zero();
        for (int64_t l = 0; l < a->d; l += VL)
            sum = v_fma(v_get(a->o + at_q + i * ld, l, a->d),
                        v_get(a->d_o + at_q + i * ld, l, a->d), sum);
        w->delta[i] = v_sum(sum);
    }
}

static void head_backward(const AttentionArgs *a, const Backward *w, int64_t b,
                          int64_t h)
{
    const int64_t ld = a->heads * a->d;

    for (int64_t j = 0; j < a->sk; j += w->keys) {
        const int64_t n = a->sk - j < w->keys ? a->sk - j : w->keys;
        const int64_t at = (b * a->sk + j) * ld + h * a->d;
        int first = 1;
        for (int64_t i = 0; i < a->sq; i += w->rows) {
            const int64_t m = a->sq - i < w->rows ? a->sq - i : w->rows;
            if (a->causal && j > i + m - 1)
                continue;
            tile_backward(a, w, &(Tile) { b, h, i, m, j, n }, first);
            first = 0;
        }
        if (first) { /* keys no query sees */
            memset(w->dk, 0, (size_t)(n * w->d_pad) * sizeof *w->dk);
            memset(w->dv, 0, (size_t)(n * w->d_pad) * sizeof *w->dv);
        }
        att_copy(a->dk + at, ld, w->dk, w->d_pad, n, a->d);
        att_copy(a->dv + at, ld, w->dv, w->d_pad, n, a->d);
    }
    att_copy(a->dq + b * a->sq * ld + h * a->d, ld, w->dq, w->d_pad, a->sq,
             a->d);
}

void dg_cpu_attention_grad(const AttentionArgs *a)
{
    Arena arena = { a->scratch, SIZE_MAX, 0, 0, "attention" };
    const Backward w = backward_take(&arena, a->sq, a->sk, a->d);

    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t h = 0; h < a->heads; ++h) {
            head_prepare(a, &w, b, h);
            head_backward(a, &w, b, h);
        }
}
