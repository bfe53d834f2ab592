#include "kernels.h"

#include "simd.h"

#include "base/error.h"

#include <math.h>

enum { MAX_D = 1024 };

/* Rotation of one token, spread over d lanes: y = n c + swap(n) s with
 * c = (c0, c0, c1, c1, ..), s = (-s0, s0, -s1, s1, ..). */
typedef struct Turn {
    float c[MAX_D], s[MAX_D];
} Turn;

static void turn_set(Turn *t, const QkArgs *a, int64_t token)
{
    const float *c = a->cosines + token * (a->d / 2);
    const float *s = a->sines + token * (a->d / 2);

    for (int64_t k = 0; k < a->d / 2; ++k) {
        t->c[2 * k] = t->c[2 * k + 1] = c[k];
        t->s[2 * k] = -s[k];
        t->s[2 * k + 1] = s[k];
    }
}

typedef struct Place {
    int64_t b, token; /* token of the joint sequence */
    int segment;
    int64_t row;   /* row of x[segment] */
    int64_t joint; /* row of y */
} Place;

static Place place_of(const QkArgs *a, int64_t b, int64_t token)
{
    const int segment = token >= a->tokens[0];
    const int64_t own = segment ? token - a->tokens[0] : token;

    return (Place) { b, token, segment, b * a->tokens[segment] + own,
                     b * (a->tokens[0] + a->tokens[1]) + token };
}

static float head_rstd(const float *x, int64_t d, float eps)
{
    V sum = v_zero();

    for (int64_t i = 0; i < d; i += VL) {
        const V v = v_get(x, i, d);
        sum = v_fma(v, v, sum);
    }
    return 1.0f / sqrtf(v_sum(sum) / (float)d + eps);
}

/* y of one head, from its rstd (not looked at without w) */
V_INLINE void qk_head(float *y, const float *x, const float *w, const Turn *t,
                      int64_t d, float rstd)
{
    for (int64_t i = 0; i < d; i += VL) {
        V n = v_get(x, i, d);
        if (w != NULL)
            n = v_mul(v_mul(n, v_set(rstd)), v_get(w, i, d));
        if (t != NULL)
            n = v_fma(n, v_get(t->c, i, d),
                      v_mul(v_swap(n), v_get(t->s, i, d)));
        v_put(y, i, d, n);
    }
}

/* All heads of a token; a few statistics at a time, so that the chains of
 * one head's overlap with the next one's. */
static void qk_token(const QkArgs *a, const Place *p, const Turn *t)
{
    enum { FEW = 8 };
    const int64_t d = a->d, heads = a->heads;
    const float *x = a->x[p->segment] + p->row * heads * d;
    const float *w = a->w[p->segment];
    float *y = a->y + p->joint * heads * d;
    float *keep = a->rstd != NULL ? a->rstd + p->joint * heads : NULL;

    for (int64_t first = 0; first < heads; first += FEW) {
        const int64_t n = heads - first < FEW ? heads - first : FEW;
        float rstd[FEW];
        for (int64_t h = 0; h < n; ++h) {
            rstd[h] =
                w != NULL ? head_rstd(x + (first + h) * d, d, a->eps) : 1.0f;
            if (keep != NULL)
                keep[first + h] = rstd[h];
        }
        for (int64_t h = 0; h < n; ++h)
            qk_head(y + (first + h) * d, x + (first + h) * d, w, t, d, rstd[h]);
    }
}

static void check_d(int64_t d)
{
    if (d > MAX_D)
        dg_panic("qk: head size %lld, at most %d", (long long)d, MAX_D);
}

void dg_cpu_qk(const QkArgs *a)
{
    const int64_t tokens = a->tokens[0] + a->tokens[1];
    Turn turn;

    check_d(a->d);
    for (int64_t i = 0; i < tokens; ++i) {
        if (a->cosines != NULL)
            turn_set(&turn, a, i);
        for (int64_t b = 0; b < a->batch; ++b) {
            const Place p = place_of(a, b, i);
            qk_token(a, &p, a->cosines != NULL ? &turn : NULL);
        }
    }
}

/* dx of one head; its part of dw is added to sum[d] */
static void qk_head_grad(const QkArgs *a, const Place *p, const Turn *t,
                         int64_t h, float *sum)
{
    const int64_t d = a->d, wide = a->heads * d;
    const int64_t at = p->row * wide + h * d;
    const float *x = a->x[p->segment] + at, *w = a->w[p->segment];
    const float *dy = a->dy + p->joint * wide + h * d;
    float *dx = a->dx[p->segment];
    float dn[MAX_D];
    V dot = v_zero();
    const V rstd = v_set(w != NULL ? a->rstd[p->joint * a->heads + h] : 1.0f);

    for (int64_t i = 0; i < d; i += VL) {
        V g = v_get(dy, i, d);
        if (t != NULL)
            g = v_sub(v_mul(g, v_get(t->c, i, d)),
                      v_mul(v_swap(g), v_get(t->s, i, d)));
        if (w != NULL) {
            const V xhat = v_mul(v_get(x, i, d), rstd);
            v_put(sum, i, d, v_fma(g, xhat, v_get(sum, i, d)));
            g = v_mul(g, v_get(w, i, d));
            dot = v_fma(g, xhat, dot);
        }
        v_put(dn, i, d, g);
    }
    if (dx == NULL)
        return;
    const V mean = v_set(w != NULL ? v_sum(dot) / (float)d : 0.0f);
    for (int64_t i = 0; i < d; i += VL) {
        V g = v_get(dn, i, d);
        if (w != NULL)
            g = v_mul(v_sub(g, v_mul(v_mul(v_get(x, i, d), rstd), mean)), rstd);
        v_put(dx + at, i, d, g);
    }
}

/* The sample's sums of both segments are formed first, then added. */
static void qk_sample_grad(const QkArgs *a, int64_t b)
{
    const int64_t tokens = a->tokens[0] + a->tokens[1];
    float sum[2][MAX_D] = { { 0 } };
    Turn turn;

    for (int64_t i = 0; i < tokens; ++i) {
        const Place p = place_of(a, b, i);
        if (a->cosines != NULL)
            turn_set(&turn, a, i);
        for (int64_t h = 0; h < a->heads; ++h)
            qk_head_grad(a, &p, a->cosines != NULL ? &turn : NULL, h,
                         sum[p.segment]);
    }
    for (int s = 0; s < 2; ++s)
        if (a->dw[s] != NULL)
            dg_cpu_add(a->dw[s], a->dw[s], sum[s], a->d);
}

void dg_cpu_qk_grad(const QkArgs *a)
{
    check_d(a->d);
    for (int64_t b = 0; b < a->batch; ++b)
        qk_sample_grad(a, b);
}
