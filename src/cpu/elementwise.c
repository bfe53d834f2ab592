#include "kernels.h"

#include "simd.h"

#include <math.h>

void dg_cpu_gate(const GateArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const float *gate = a->gate + b * a->ld_gate;
        for (int64_t r = 0; r < a->rows; ++r) {
            const int64_t at = (b * a->rows + r) * a->width;
            for (int64_t i = 0; i < a->width; i += VL)
                v_put(a->y + at, i, a->width,
                      v_fma(v_get(gate, i, a->width),
                            v_get(a->f + at, i, a->width),
                            v_get(a->r + at, i, a->width)));
        }
    }
}

static void gate_input_grad(const GateArgs *a, int64_t b)
{
    const float *gate = a->gate + b * a->ld_gate;

    for (int64_t r = 0; r < a->rows; ++r) {
        const int64_t at = (b * a->rows + r) * a->width;
        for (int64_t i = 0; i < a->width; i += VL)
            v_put(a->df + at, i, a->width,
                  v_mul(v_get(gate, i, a->width),
                        v_get(a->dy + at, i, a->width)));
    }
}

void dg_cpu_gate_grad(const GateArgs *a)
{
    for (int64_t b = 0; b < a->batch; ++b) {
        const int64_t at = b * a->rows * a->width;
        if (a->df != NULL)
            gate_input_grad(a, b);
        for (int64_t i = 0; a->dgate != NULL && i < a->width; i += VL) {
            float *dgate = a->dgate + b * a->ld_gate;
            V sum = v_zero();
            for (int64_t r = 0; r < a->rows; ++r)
                sum = v_fma(v_get(a->dy + at + r * a->width, i, a->width),
                            v_get(a->f + at + r * a->width, i, a->width), sum);
            v_put(dgate, i, a->width, v_add(v_get(dgate, i, a->width), sum));
        }
    }
}

void dg_cpu_copy(const CopyArgs *a)
{
    for (int64_t b = 0; b < a->blocks; ++b)
        for (int64_t r = 0; r < a->rows; ++r) {
            const float *src = a->src + b * a->src_block + r * a->src_ld;
            float *dst = a->dst + b * a->dst_block + r * a->dst_ld;
            if (a->accumulate)
                dg_cpu_add(dst, dst, src, a->width);
            else
                memcpy(dst, src, (size_t)a->width * sizeof *dst);
        }
}

void dg_cpu_embed(const EmbedArgs *a)
{
    for (int64_t i = 0; i < a->count; ++i)
        memcpy(a->y + i * a->width, a->table + a->ids[i] * a->width,
               (size_t)a->width * sizeof *a->y);
}

void dg_cpu_embed_grad(const EmbedArgs *a)
{
    for (int64_t i = 0; i < a->count; ++i) {
        float *row = a->dtable + a->ids[i] * a->width;
        dg_cpu_add(row, row, a->dy + i * a->width, a->width);
    }
}

void dg_cpu_add(float *y, const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL)
        v_put(y, i, count, v_add(v_get(a, i, count), v_get(b, i, count)));
}

void dg_cpu_scale(float *y, const float *x, float alpha, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL)
        v_put(y, i, count, v_mul(v_get(x, i, count), v_set(alpha)));
}

void dg_cpu_fill(float *y, float value, int64_t count)
{
    for (int64_t i = 0; i < count; i += VL)
        v_put(y, i, count, v_set(value));
}

/* 0 x is NaN for NaN and Inf alone: blocks are searched only if their sum of
 * such products says so. */
int64_t dg_cpu_first_nonfinite(const float *x, int64_t count)
{
    enum { BLOCK = 4096 };

    for (int64_t at = 0; at < count; at += BLOCK) {
        const int64_t n = count - at < BLOCK ? count - at : BLOCK;
        V sum = v_zero();
        for (int64_t i = 0; i < n; i += VL)
            sum = v_fma(v_get(x + at, i, n), v_zero(), sum);
        if (v_sum(sum) == 0.0f)
            continue;
        for (int64_t i = 0; i < n; ++i)
            if (!isfinite(x[at + i]))
                return at + i;
    }
    return -1;
}
