#ifndef DG_CPU_ACT_H
#define DG_CPU_ACT_H
/* Activations on vectors, for fusing. Internal to src/cpu. */
#include "simd.h"

#include "tensor/backend.h"

/*
 * SiLU, quick GELU and the tanh form (x/2 (1 + tanh u) = x sigma(2u)) are
 * x sigma(s(x)), s a polynomial: s = x (c1 + c3 x^2).
 */
V_INLINE float act_c1(Act act)
{
    return act == DG_ACT_SILU         ? 1.0f
           : act == DG_ACT_QUICK_GELU ? 1.702f
                                      : 1.595769122f; /* 2 sqrt(2/pi) */
}

V_INLINE float act_c3(Act act)
{
    return act == DG_ACT_GELU_TANH ? 0.07135481283f : 0.0f;
}

/* sigma(s(x)) */
V_INLINE V act_sigma(Act act, V x)
{
    const V c1 = v_set(-act_c1(act) * V_LOG2E);

    if (act != DG_ACT_GELU_TANH)
        return v_logistic2(v_mul(x, c1));
    const V c3 = v_set(-act_c3(act) * V_LOG2E);
    return v_logistic2(v_mul(x, v_fma(v_mul(x, x), c3, c1)));
}

/* s'(x) */
V_INLINE V act_slope(Act act, V x)
{
    const V c1 = v_set(act_c1(act));

    if (act != DG_ACT_GELU_TANH)
        return c1;
    return v_fma(v_mul(x, x), v_set(3.0f * act_c3(act)), c1);
}

/* half the tail of the normal distribution on x's side, and exp(-x^2/2) */
V_INLINE V act_half_tail(V x, V *e)
{
    *e = v_exp2(v_mul(v_mul(x, x), v_set(-0.5f * V_LOG2E)));
    return v_mul(v_set(0.5f), v_erfc_tail(x, *e));
}

V_INLINE V act_value(Act act, V x)
{
    V e;

    if (act == DG_ACT_NONE)
        return x;
    if (act != DG_ACT_GELU_ERF)
        return v_mul(x, act_sigma(act, x));
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
        const V s = act_sigma(act, x);
        const V c = v_mul(s, v_sub(v_set(1.0f), s));
        *grad = v_fma(v_mul(x, c), act_slope(act, x), s);
        return v_mul(x, s);
    }
    const V tail = act_half_tail(x, &e);
    /* 1 / sqrt(2 pi) times e is the density */
    const V cdf = v_if_negative(x, tail, v_sub(v_set(1.0f), tail));
    *grad = v_fma(v_mul(x, v_set(0.3989422804f)), e, cdf);
    return v_mul(x, cdf);
}

#endif
