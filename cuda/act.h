#ifndef DG_CUDA_ACT_H
#define DG_CUDA_ACT_H
/* Activations of one number, for fusing. Internal to cuda. */
#include "device.h"

/*
 * SiLU, quick GELU and the tanh form (x/2 (1 + tanh u) = x sigma(2u)) are
 * x sigma(s(x)), s a polynomial: s = x (c1 + c3 x^2).
 */
__device__ inline float act_c1(Act act)
{
    return act == DG_ACT_SILU         ? 1.0f
           : act == DG_ACT_QUICK_GELU ? 1.702f
                                      : 1.595769122f; /* 2 sqrt(2/pi) */
}

__device__ inline float act_c3(Act act)
{
    return act == DG_ACT_GELU_TANH ? 0.07135481283f : 0.0f;
}

__device__ inline float act_sigma(Act act, float x)
{
    const float s = x * fmaf(x * x, act_c3(act), act_c1(act));

    return 1.0f / (1.0f + expf(-s));
}

/* the normal distribution function */
__device__ inline float act_normal(float x)
{
    return 0.5f * erfcf(-0.7071067812f * x);
}

__device__ inline float act_value(Act act, float x)
{
    if (act == DG_ACT_NONE)
        return x;
    if (act == DG_ACT_GELU_ERF)
        return x * act_normal(x);
    return x * act_sigma(act, x);
}

/* value and derivative */
__device__ inline float act_both(Act act, float x, float *grad)
{
    if (act == DG_ACT_NONE) {
        *grad = 1.0f;
        return x;
    }
    if (act == DG_ACT_GELU_ERF) {
        const float cdf = act_normal(x);
        /* 1 / sqrt(2 pi) times the exponential is the density */
        *grad = fmaf(x * 0.3989422804f, expf(-0.5f * x * x), cdf);
        return x * cdf;
    }
    const float s = act_sigma(act, x);
    const float slope = fmaf(x * x, 3.0f * act_c3(act), act_c1(act));
    *grad = fmaf(x * (s * (1.0f - s)), slope, s);
    return x * s;
}

#endif
