#include "kernels.h"

#include "act.h"

/* Each loop is written once and made five times, the activation a constant
 * in each, so that the choice stays outside of the loop. */
#define FOR_ACT(act, loop, args)           \
    do {                                   \
        switch (act) {                     \
        case DG_ACT_NONE:                  \
            loop(args, DG_ACT_NONE);       \
            break;                         \
        case DG_ACT_SILU:                  \
            loop(args, DG_ACT_SILU);       \
            break;                         \
        case DG_ACT_GELU_ERF:              \
            loop(args, DG_ACT_GELU_ERF);   \
            break;                         \
        case DG_ACT_GELU_TANH:             \
            loop(args, DG_ACT_GELU_TANH);  \
            break;                         \
        case DG_ACT_QUICK_GELU:            \
            loop(args, DG_ACT_QUICK_GELU); \
            break;                         \
        }                                  \
    } while (0)

V_INLINE void act_loop(const ActArgs *a, const Act act)
{
    const float *x = a->x;
    float *y = a->out;
    const int64_t count = a->count;
    int64_t i = 0;

    for (; i + 2 * VL <= count; i += 2 * VL) {
        const V y0 = act_value(act, v_load(x + i));
        const V y1 = act_value(act, v_load(x + i + VL));
        v_store(y + i, y0);
        v_store(y + i + VL, y1);
    }
    for (; i < count; i += VL)
        v_put(y, i, count, act_value(act, v_get(x, i, count)));
}

void dg_cpu_act(const ActArgs *a)
{
    FOR_ACT(a->act, act_loop, a);
}

V_INLINE V act_grad_at(const Act act, V x, V dy)
{
    V grad;

    act_both(act, x, &grad);
    return v_mul(dy, grad);
}

V_INLINE void act_grad_loop(const ActArgs *a, const Act act)
{
    const float *x = a->x, *dy = a->dy;
    float *dx = a->out;
    const int64_t count = a->count;
    int64_t i = 0;

    for (; !a->accumulate && i + 2 * VL <= count; i += 2 * VL) {
        const V d0 = act_grad_at(act, v_load(x + i), v_load(dy + i));
        const V d1 = act_grad_at(act, v_load(x + i + VL), v_load(dy + i + VL));
        v_store(dx + i, d0);
        v_store(dx + i + VL, d1);
    }
    for (; i < count; i += VL) {
        V d = act_grad_at(act, v_get(x, i, count), v_get(dy, i, count));
        if (a->accumulate)
            d = v_add(v_get(dx, i, count), d);
        v_put(dx, i, count, d);
    }
}

void dg_cpu_act_grad(const ActArgs *a)
{
    FOR_ACT(a->act, act_grad_loop, a);
}

V_INLINE void gated_loop(const GatedArgs *a, const Act act)
{
    for (int64_t i = 0; i < a->count; i += VL) {
        const V f = act_value(act, v_get(a->g, i, a->count));
        v_put(a->y, i, a->count, v_mul(v_get(a->a, i, a->count), f));
    }
}

/* Row r alone; NULL stays NULL. */
static GatedArgs gated_row(const GatedArgs *a, int64_t r)
{
    const int64_t in = r * a->ld, out = r * a->count;
    GatedArgs row = *a;

    row.a += in;
    row.g += in;
    if (a->y != NULL)
        row.y += out;
    if (a->dy != NULL) {
        row.dy += out;
        row.da += in;
        row.dg += in;
    }
    return row;
}

void dg_cpu_gated(const GatedArgs *a)
{
    int64_t r = 0;

    do {
        const GatedArgs row = gated_row(a, r);
        FOR_ACT(a->act, gated_loop, &row);
    } while (++r < a->rows);
}

V_INLINE void gated_grad_loop(const GatedArgs *a, const Act act)
{
    for (int64_t i = 0; i < a->count; i += VL) {
        const V dy = v_get(a->dy, i, a->count);
        const V av = v_get(a->a, i, a->count);
        V grad;
        const V f = act_both(act, v_get(a->g, i, a->count), &grad);
        v_put(a->da, i, a->count, v_mul(dy, f));
        v_put(a->dg, i, a->count, v_mul(v_mul(dy, av), grad));
    }
}

void dg_cpu_gated_grad(const GatedArgs *a)
{
    int64_t r = 0;

    do {
        const GatedArgs row = gated_row(a, r);
        FOR_ACT(a->act, gated_grad_loop, &row);
    } while (++r < a->rows);
}
