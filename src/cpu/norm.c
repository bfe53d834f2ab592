#include "kernels.h"

#include "simd.h"

#include <math.h>

/* sum of x, then of (x - mean)^2: sixteen partial sums, one tree */
static float row_mean(const float *x, int64_t width)
{
    V sum = v_zero();

    for (int64_t i = 0; i < width; i += VL)
        sum = v_add(sum, v_get(x, i, width));
    return v_sum(sum) / (float)width;
}

static float row_square(const float *x, float mean, int64_t width)
{
    V sum = v_zero();

    for (int64_t i = 0; i < width; i += VL) {
        V d = v_sub(v_get(x, i, width), v_set(mean));
        d = v_trim(d, i, width, 0.0f);
        sum = v_fma(d, d, sum);
    }
    return v_sum(sum) / (float)width;
}

/* what multiplies xhat in sample b, and what is added: 1 and 0 if NULL */
typedef struct Affine {
    const float *factor, *offset;
    float one; /* added to factor: 1 for modulation */
} Affine;

static Affine affine_of(const NormArgs *a, int64_t b)
{
    if (a->scale != NULL || a->shift != NULL)
        return (Affine) { a->scale ? a->scale + b * a->ld_mod : NULL,
                          a->shift ? a->shift + b * a->ld_mod : NULL, 1.0f };
    return (Affine) { a->w, a->b, 0.0f };
}

V_INLINE V factor_at(const Affine *f, int64_t i, int64_t width)
{
    if (f->factor == NULL)
        return v_set(1.0f);
    return v_add(v_get(f->factor, i, width), v_set(f->one));
}

V_INLINE void norm_row(const NormArgs *a, const Affine *f, int64_t row)
{
    const int64_t width = a->width;
    const float *x = a->x + row * width;
    float *y = a->y + row * width;
    const float mean = a->kind == DG_NORM_LAYER ? row_mean(x, width) : 0.0f;
    const float rstd = 1.0f / sqrtf(row_square(x, mean, width) + a->eps);

    for (int64_t i = 0; i < width; i += VL) {
        const V xhat =
            v_mul(v_sub(v_get(x, i, width), v_set(mean)), v_set(rstd));
        V v = v_mul(xhat, factor_at(f, i, width));
        if (f->offset != NULL)
            v = v_add(v, v_get(f->offset, i, width));
        v_put(y, i, width, v);
    }
    if (a->mean != NULL)
        a->mean[row] = mean;
    if (a->rstd != NULL)
        a->rstd[row] = rstd;
}

void dg_cpu_norm(const NormArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const Affine f = affine_of(a, b);
        for (int64_t r = 0; r < a->rows; ++r)
            norm_row(a, &f, b * a->rows + r);
    }
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy factor; RMS: without
 * mean(g) */
static void norm_row_grad(const NormArgs *a, const Affine *f, int64_t row)
{
    const int64_t width = a->width;
    const int layer = a->kind == DG_NORM_LAYER;
    const float *x = a->x + row * width, *dy = a->dy + row * width;
    float *dx = a->dx + row * width;
    const V mean = v_set(layer ? a->mean[row] : 0.0f);
    const V rstd = v_set(a->rstd[row]);
    V sum_g = v_zero(), sum_gx = v_zero();

    for (int64_t i = 0; i < width; i += VL) {
        const V xhat = v_mul(v_sub(v_get(x, i, width), mean), rstd);
        const V g = v_mul(v_get(dy, i, width), factor_at(f, i, width));
        sum_g = v_add(sum_g, g);
        sum_gx = v_fma(g, xhat, sum_gx);
    }
    const V g0 = v_set(layer ? v_sum(sum_g) / (float)width : 0.0f);
    const V g1 = v_set(v_sum(sum_gx) / (float)width);
    for (int64_t i = 0; i < width; i += VL) {
        const V xhat = v_mul(v_sub(v_get(x, i, width), mean), rstd);
        const V g = v_mul(v_get(dy, i, width), factor_at(f, i, width));
        V v = v_mul(v_sub(v_sub(g, g0), v_mul(xhat, g1)), rstd);
        if (a->accumulate)
            v = v_add(v_get(dx, i, width), v);
        v_put(dx, i, width, v);
    }
}

/* One sample's sums over its rows, for columns i.. of each parameter. */
static void norm_param_grad(const NormArgs *a, int64_t b, float *factor,
                            float *offset)
{
    const int64_t width = a->width, first = b * a->rows;

    for (int64_t i = 0; i < width; i += VL) {
        V sum_x = v_zero(), sum = v_zero();
        for (int64_t r = first; r < first + a->rows; ++r) {
            const V dy = v_get(a->dy + r * width, i, width);
            const V x = v_get(a->x + r * width, i, width);
            const float mean = a->kind == DG_NORM_LAYER ? a->mean[r] : 0.0f;
            const V xhat = v_mul(v_sub(x, v_set(mean)), v_set(a->rstd[r]));
            sum_x = v_fma(dy, xhat, sum_x);
            sum = v_add(sum, dy);
        }
        if (factor != NULL)
            v_put(factor, i, width, v_add(v_get(factor, i, width), sum_x));
        if (offset != NULL)
            v_put(offset, i, width, v_add(v_get(offset, i, width), sum));
    }
}

void dg_cpu_norm_grad(const NormArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const Affine f = affine_of(a, b);
        for (int64_t r = 0; a->dx != NULL && r < a->rows; ++r)
            norm_row_grad(a, &f, b * a->rows + r);
        if (a->dw != NULL || a->db != NULL)
            norm_param_grad(a, b, a->dw, a->db);
        if (a->dscale != NULL || a->dshift != NULL)
            norm_param_grad(a, b, a->dscale ? a->dscale + b * a->ld_mod : NULL,
                            a->dshift ? a->dshift + b * a->ld_mod : NULL);
    }
}
