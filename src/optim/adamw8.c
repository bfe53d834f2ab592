#include "optim/adamw8.h"

#include <math.h>

#include "optim/moment_code.h"

enum { BLOCK = DG_MOMENT_BLOCK };

int64_t dg_moments8_blocks(int64_t num)
{
    return (num + BLOCK - 1) / BLOCK;
}

Moments8 dg_moments8_at(const Moments8 *all, int64_t first)
{
    return (Moments8) { all->m + first, all->v + first,
                        all->m_scale + first / BLOCK,
                        all->v_scale + first / BLOCK };
}

static int block_at(int64_t num, int64_t at)
{
    return num - at < BLOCK ? (int)(num - at) : BLOCK;
}

/* the largest size of num values, or floor */
static float largest(const float *x, int num, float floor)
{
    float most = floor;

#pragma omp simd reduction(max : most)
    for (int i = 0; i < num; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* A block's moments as they follow from its gradient, m [num], v [num] out,
 * and its weights. */
static void move(float *restrict w, float *restrict m, float *restrict v,
                 const float *restrict grad, const Moments8 *x, int num,
                 const AdamwStep *s)
{
    const float m_scale = *x->m_scale, v_scale = *x->v_scale;
    const uint8_t *restrict codes_m = x->m, *restrict codes_v = x->v;
    const AdamwStep c = *s;

#pragma omp simd
    for (int i = 0; i < num; i++) {
        const float m0 = dg_moment_m(codes_m[i], m_scale);
        const float v0 = dg_moment_v(codes_v[i], v_scale);
        const float g = grad[i] * c.grad_scale;
        const float m1 = m0 + c.take1 * (g - m0);
        const float v1 = c.beta2 * v0 + c.take2 * (g * g);

        m[i] = m1;
        v[i] = v1;
        w[i] = w[i] * c.decay - c.rate * (m1 / (sqrtf(v1) * c.root + c.eps));
    }
}

static void keep(const Moments8 *x, const float *restrict m,
                 const float *restrict v, uint32_t first, int num, uint32_t n)
{
    const float m_scale = largest(m, num, DG_MOMENT_FLOOR_M);
    const float v_scale = largest(v, num, DG_MOMENT_FLOOR_V);
    uint8_t *restrict codes_m = x->m, *restrict codes_v = x->v;

    *x->m_scale = m_scale;
    *x->v_scale = v_scale;
#pragma omp simd
    for (int i = 0; i < num; i++) {
        const uint32_t at = first + (uint32_t)i;

        codes_m[i] = (uint8_t)dg_moment_store_m(m[i], m_scale,
                                                dg_moment_dither_m(at, n));
        codes_v[i] = (uint8_t)dg_moment_store_v(v[i], v_scale,
                                                dg_moment_dither_v(at, n));
    }
}

void dg_adamw8_update(float *w, const Moments8 *x, const float *grad,
                      int64_t first, int64_t num, const AdamwStep *s)
{
    float m[BLOCK], v[BLOCK];

    for (int64_t at = 0; at < num; at += BLOCK) {
        const Moments8 here = dg_moments8_at(x, at);
        const int n = block_at(num, at);

        move(w + at, m, v, grad + at, &here, n, s);
        keep(&here, m, v, (uint32_t)(first + at), n, s->update);
    }
}

void dg_moments8_read_m(float *out, const Moments8 *x, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_moment_m(x->m[i], x->m_scale[i / BLOCK]);
}

void dg_moments8_read_v(float *out, const Moments8 *x, int64_t num)
{
    for (int64_t i = 0; i < num; i++)
        out[i] = dg_moment_v(x->v[i], x->v_scale[i / BLOCK]);
}

typedef uint32_t Store(float x, float scale, uint32_t dither);

/* The codes to nearest, which of values that codes stand for are those again. */
static void write_codes(uint8_t *codes, float *scales, const float *x,
                        int64_t num, float floor, Store *store)
{
    for (int64_t at = 0; at < num; at += BLOCK) {
        const int n = block_at(num, at);
        const float scale = largest(x + at, n, floor);

        scales[at / BLOCK] = scale;
        for (int64_t i = at; i < at + n; i++)
            codes[i] = (uint8_t)store(x[i], scale, DG_MOMENT_NEAREST);
    }
}

void dg_moments8_write_m(const Moments8 *x, const float *m, int64_t num)
{
    write_codes(x->m, x->m_scale, m, num, DG_MOMENT_FLOOR_M, dg_moment_store_m);
}

void dg_moments8_write_v(const Moments8 *x, const float *v, int64_t num)
{
    write_codes(x->v, x->v_scale, v, num, DG_MOMENT_FLOOR_V, dg_moment_store_v);
}
