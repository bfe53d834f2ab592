#include "tensor/meter.h"

#include "base/clock.h"

#include <string.h>

/* Kernels have no place for an argument of ours. */
static _Thread_local Meter *meter;

static void product(int64_t calls, int64_t m, int64_t n, int64_t k,
                    MeterKind kind)
{
    MeterProduct *p = meter->products;
    const MeterProduct *end = p + meter->num_products;

    if (calls * m * n * k == 0)
        return;
    while (p < end && (p->m != m || p->n != n || p->k != k || p->kind != kind))
        p++;
    if (p < end) {
        p->calls += calls;
        return;
    }
    if (meter->num_products == DG_METER_PRODUCTS) {
        meter->dropped += calls;
        return;
    }
    *p = (MeterProduct) { m, n, k, calls, kind };
    meter->num_products++;
}

static uint64_t flops(int64_t calls, int64_t m, int64_t n, int64_t k)
{
    return 2 * (uint64_t)(calls * m * n * k);
}

static uint64_t note_gemm(const GemmArgs *a)
{
    product(1, a->m, a->n, a->k, DG_METER_INPUT_GRAD);
    return flops(1, a->m, a->n, a->k);
}

static uint64_t note_linear(const LinearArgs *a)
{
    const int64_t in2 = a->x2 != NULL || a->in2 > 0 ? a->in2 : 0;

    product(1, a->rows, a->out, a->in, DG_METER_LINEAR);
    product(1, a->rows, a->out, in2, DG_METER_LINEAR);
    return flops(1, a->rows, a->out, a->in + in2);
}

static uint64_t note_linear_grad(const LinearGradArgs *a)
{
    if (a->rows == 1)
        product(1, a->out, a->in, a->batch, DG_METER_WEIGHT_GRAD);
    else
        product(a->batch, a->out, a->in, a->rows, DG_METER_WEIGHT_GRAD);
    return flops(a->batch, a->out, a->in, a->rows);
}

static uint64_t note_attention(const AttentionArgs *a)
{
    const int64_t heads = a->batch * a->heads;

    product(heads, a->sq, a->sk, a->d, DG_METER_ATTENTION);
    product(heads, a->sq, a->d, a->sk, DG_METER_ATTENTION);
    return 2 * flops(heads, a->sq, a->sk, a->d);
}

static uint64_t note_attention_grad(const AttentionArgs *a)
{
    const int64_t heads = a->batch * a->heads;

    product(2 * heads, a->sq, a->sk, a->d,
            DG_METER_ATTENTION_GRAD); /* scores, dP */
    product(heads, a->sq, a->d, a->sk, DG_METER_ATTENTION_GRAD); /* dq */
    product(2 * heads, a->sk, a->d, a->sq,
            DG_METER_ATTENTION_GRAD); /* dk, dv */
    return 5 * flops(heads, a->sq, a->sk, a->d);
}

static uint64_t note_conv(const ConvArgs *a, MeterKind kind)
{
    const int64_t pixels = a->out_h * a->out_w;
    const int64_t window = a->kernel_h * a->kernel_w * a->in;

    if (kind == DG_METER_CONV)
        product(a->batch, pixels, a->out, window, kind);
    else if (kind == DG_METER_CONV_INPUT_GRAD)
        product(a->batch, pixels, window, a->out, kind);
    else
        product(a->batch, a->out, window, pixels, kind);
    return flops(a->batch, pixels, a->out, window);
}

static void done(MeterKind kind, double began, uint64_t count)
{
    meter->seconds[kind] += dg_clock_thread() - began;
    meter->calls[kind]++;
    meter->flops[kind] += count;
}

/* The wrapper of one kernel; count is the call's FLOPs. */
#define METER_KERNEL(name, Args, kind, count) \
    static void meter_##name(const Args *a)   \
    {                                         \
        double began;                         \
                                              \
        if (!meter->on) {                     \
            meter->inner->name(a);            \
            return;                           \
        }                                     \
        began = dg_clock_thread();            \
        meter->inner->name(a);                \
        done(kind, began, count);             \
    }

METER_KERNEL(gemm, GemmArgs, DG_METER_INPUT_GRAD, note_gemm(a))
METER_KERNEL(linear, LinearArgs, DG_METER_LINEAR, note_linear(a))
METER_KERNEL(linear_grad, LinearGradArgs, DG_METER_WEIGHT_GRAD,
             note_linear_grad(a))
METER_KERNEL(act, ActArgs, DG_METER_ACT, 0)
METER_KERNEL(act_grad, ActArgs, DG_METER_ACT, 0)
METER_KERNEL(gated, GatedArgs, DG_METER_ACT, 0)
METER_KERNEL(gated_grad, GatedArgs, DG_METER_ACT, 0)
METER_KERNEL(norm, NormArgs, DG_METER_NORM, 0)
METER_KERNEL(norm_grad, NormArgs, DG_METER_NORM, 0)
METER_KERNEL(qk, QkArgs, DG_METER_QK, 0)
METER_KERNEL(qk_grad, QkArgs, DG_METER_QK, 0)
METER_KERNEL(attention, AttentionArgs, DG_METER_ATTENTION, note_attention(a))
METER_KERNEL(attention_grad, AttentionArgs, DG_METER_ATTENTION_GRAD,
             note_attention_grad(a))
METER_KERNEL(gate, GateArgs, DG_METER_GATE, 0)
METER_KERNEL(gate_grad, GateArgs, DG_METER_GATE, 0)
METER_KERNEL(copy, CopyArgs, DG_METER_COPY, 0)
METER_KERNEL(embed, EmbedArgs, DG_METER_EMBED, 0)
METER_KERNEL(embed_grad, EmbedArgs, DG_METER_EMBED, 0)
METER_KERNEL(conv, ConvArgs, DG_METER_CONV, note_conv(a, DG_METER_CONV))
METER_KERNEL(conv_input_grad, ConvArgs, DG_METER_CONV_INPUT_GRAD,
             note_conv(a, DG_METER_CONV_INPUT_GRAD))
METER_KERNEL(conv_weight_grad, ConvArgs, DG_METER_CONV_WEIGHT_GRAD,
             note_conv(a, DG_METER_CONV_WEIGHT_GRAD))
METER_KERNEL(group_norm, GroupNormArgs, DG_METER_NORM, 0)
METER_KERNEL(group_norm_grad, GroupNormArgs, DG_METER_NORM, 0)
METER_KERNEL(add_rows, AddRowsArgs, DG_METER_OTHER, 0)
METER_KERNEL(add_rows_grad, AddRowsArgs, DG_METER_OTHER, 0)

static void meter_add(float *y, const float *a, const float *b, int64_t count)
{
    const double began = meter->on ? dg_clock_thread() : 0;

    meter->inner->add(y, a, b, count);
    if (meter->on)
        done(DG_METER_OTHER, began, 0);
}

static void meter_scale(float *y, const float *x, float alpha, int64_t count)
{
    const double began = meter->on ? dg_clock_thread() : 0;

    meter->inner->scale(y, x, alpha, count);
    if (meter->on)
        done(DG_METER_OTHER, began, 0);
}

static void meter_fill(float *y, float value, int64_t count)
{
    const double began = meter->on ? dg_clock_thread() : 0;

    meter->inner->fill(y, value, count);
    if (meter->on)
        done(DG_METER_OTHER, began, 0);
}

static int64_t meter_first_nonfinite(const float *x, int64_t count)
{
    const double began = meter->on ? dg_clock_thread() : 0;
    const int64_t at = meter->inner->first_nonfinite(x, count);

    if (meter->on)
        done(DG_METER_OTHER, began, 0);
    return at;
}

#define METER_ENTRY(name, Args) m->table.name = meter_##name;

/* combine, of one pass, is not worth a row */
void dg_meter_init(Meter *m, const Backend *inner)
{
    memset(m, 0, sizeof *m);
    m->inner = inner;
    m->on = 1;
    m->table = *inner;
    DG_KERNELS(METER_ENTRY)
    m->table.add = meter_add;
    m->table.scale = meter_scale;
    m->table.fill = meter_fill;
    m->table.first_nonfinite = meter_first_nonfinite;
    /* a plan's two tables are one; else nothing is noted of the second */
    if (inner->bf16 == inner)
        m->table.bf16 = &m->table;
    meter = m;
}

void dg_meter_clear(Meter *m)
{
    memset(m->calls, 0, sizeof m->calls);
    memset(m->flops, 0, sizeof m->flops);
    memset(m->seconds, 0, sizeof m->seconds);
    m->num_products = 0;
    m->dropped = 0;
}

uint64_t dg_meter_flops(const Meter *m)
{
    uint64_t sum = 0;

    for (int i = 0; i < DG_METER_KINDS; i++)
        sum += m->flops[i];
    return sum;
}

double dg_meter_seconds(const Meter *m)
{
    double sum = 0;

    for (int i = 0; i < DG_METER_KINDS; i++)
        sum += m->seconds[i];
    return sum;
}

uint64_t dg_meter_product_flops(const Meter *m)
{
    uint64_t sum = 0;

    for (int i = 0; i < m->num_products; i++) {
        const MeterProduct *p = &m->products[i];

        sum += flops(p->calls, p->m, p->n, p->k);
    }
    return sum;
}

const char *dg_meter_name(MeterKind kind)
{
    static const char *const names[DG_METER_KINDS] = {
        "linear",
        "input grad",
        "weight grad",
        "attention",
        "attention grad",
        "conv",
        "conv input grad",
        "conv weight grad",
        "norm",
        "qk",
        "gate",
        "act",
        "copy",
        "embed",
        "other",
    };

    return names[kind];
}
