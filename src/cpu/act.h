#ifndef DG_CPU_ACT_H
#define DG_CPU_ACT_H
/* Activations on vectors, for fusing. Internal to src/cpu. */
#include "simd.h"

#include "tensor/backend.h"

/* x sigma(s(x)), where s is a x (SiLU, quick GELU) or the cubic of the tanh
 * form: x/2 (1 + tanh u) = x sigma(2u). Signs are such that -s comes out. */
static const float act_quick = -1.702f;
static const float act_tanh1 = -1.595769122f;   /* -2 sqrt(2/pi) */
static const float act_tanh3 = -0.07135481283f; /* times 0.044715 */
static const float act_tanh3d = 0.2140644385f;  /* minus three times that */
static const float act_density = 0.3989422804f; /* 1 / sqrt(2 pi) */

/* -s(x) */
V_INLINE V act_minus_slope(Act act, V x)
{
    if (act == DG_ACT_SILU)
        return v_sub(v_zero(), x);
    if (act == DG_ACT_QUICK_GELU)
        return v_mul(x, v_set(act_quick));
    return v_mul(x, v_fma(v_mul(x, x), v_set(act_tanh3), v_set(act_tanh1)));
}

/* s'(x) */
V_INLINE V act_slope_grad(Act act, V x)
{
    if (act == DG_ACT_SILU)
        return v_set(1.0f);
    if (act == DG_ACT_QUICK_GELU)
        return v_set(-act_quick);
    return v_fma(v_mul(x, x), v_set(act_tanh3d), v_set(-act_tanh1));
}

/* half the tail on x's side, and its exponential */
V_INLINE V act_half_tail(V x, V *e)
{
    *e = v_exp(v_mul(v_mul(x, x), v_set(-0.5f)));
    return v_mul(v_set(0.5f), v_erfc_tail(x, *e));
}

V_INLINE V act_value(Act act, V x)
{
    V e;

    if (act == DG_ACT_NONE)
        return x;
    if (act != DG_ACT_GELU_ERF)
        return v_mul(x, v_sigmoid_minus(act_minus_slope(act, x)));
    const V tail = act_half_tail(x, &e);
    return v_mul(x, v_if_negative(x, tail, v_sub(v_set(1.0f), tail)));
}

/* value and derivative */
V_INLINE V act_both(Act act, V x, V *grad)
{
    V e;

    if (act == DG_ACT_NONE) {
        *grad = v_set(1.0f);
        return x;
    }
    if (act != DG_ACT_GELU_ERF) {
        const V s = v_sigmoid_minus(act_minus_slope(act, x));
        const V c = v_mul(s, v_sub(v_set(1.0f), s));
        *grad = v_fma(v_mul(x, c), act_slope_grad(act, x), s);
        return v_mul(x, s);
    }
    const V tail = act_half_tail(x, &e);
    const V cdf = v_if_negative(x, tail, v_sub(v_set(1.0f), tail));
    *grad = v_fma(v_mul(x, v_set(act_density)), e, cdf);
    return v_mul(x, cdf);
}

#endif
