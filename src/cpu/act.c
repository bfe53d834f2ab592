#include "kernels.h"

#include "act.h"

/* Each loop is written once and made five times, the activation a constant
 * in each, so that the choice stays outside of the loop. */
#define FOR_ACT(act, loop, args)       \
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
    }

V_INLINE void act_loop(const ActArgs *a, const Act act)
{
    for (int64_t i = 0; i < a->count; i += VL)
        v_put(a->out, i, a->count, act_value(act, v_get(a->x, i, a->count)));
}

void dg_cpu_act(const ActArgs *a) { FOR_ACT(a->act, act_loop, a) }

V_INLINE void act_grad_loop(const ActArgs *a, const Act act)
{
    for (int64_t i = 0; i < a->count; i += VL) {
        const V dy = v_get(a->dy, i, a->count);
        V grad, dx;
        act_both(act, v_get(a->x, i, a->count), &grad);
        dx = v_mul(dy, grad);
        if (a->accumulate)
            dx = v_add(v_get(a->out, i, a->count), dx);
        v_put(a->out, i, a->count, dx);
    }
}

void dg_cpu_act_grad(const ActArgs *a) { FOR_ACT(a->act, act_grad_loop, a) }

V_INLINE void gated_loop(const GatedArgs *a, const Act act)
{
    for (int64_t i = 0; i < a->count; i += VL) {
        const V f = act_value(act, v_get(a->g, i, a->count));
        v_put(a->y, i, a->count, v_mul(v_get(a->a, i, a->count), f));
    }
}

void dg_cpu_gated(const GatedArgs *a) { FOR_ACT(a->act, gated_loop, a) }

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
    FOR_ACT(a->act, gated_grad_loop, a)
}
