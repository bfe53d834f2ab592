#include "optim/adamw.h"

#include <math.h>

#include "base/error.h"

AdamwOpts dg_adamw_default(void)
{
    return (AdamwOpts) {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-4
    };
}

static int check(const AdamwOpts *o, double lr, int64_t n)
{
    if (!(o->beta1 >= 0 && o->beta1 < 1))
        return dg_fail(DG_EINVAL, "optim.beta1 = %g: must be in [0, 1)",
                       o->beta1);
    if (!(o->beta2 >= 0 && o->beta2 < 1))
        return dg_fail(DG_EINVAL, "optim.beta2 = %g: must be in [0, 1)",
                       o->beta2);
    if (!(o->eps > 0))
        return dg_fail(DG_EINVAL, "optim.eps = %g: must be > 0", o->eps);
    if (!(o->weight_decay >= 0) || !isfinite(o->weight_decay))
        return dg_fail(DG_EINVAL, "optim.weight_decay = %g: must be >= 0",
                       o->weight_decay);
    if (!(lr >= 0) || !isfinite(lr))
        return dg_fail(DG_EINVAL, "optim.lr = %g: must be >= 0", lr);
    if (n < 1)
        return dg_fail(DG_EINVAL, "optimizer update %lld: counted from 1",
                       (long long)n);
    return DG_OK;
}

int dg_adamw_step_init(AdamwStep *out, const AdamwOpts *o, double lr, int64_t n,
                       double grad_scale)
{
    const int err = check(o, lr, n);

    if (err)
        return err;
    *out = (AdamwStep) {
        .decay = (float)(1.0 - lr * o->weight_decay),
        .beta2 = (float)o->beta2,
        .take1 = (float)(1.0 - o->beta1),
        .take2 = (float)(1.0 - o->beta2),
        .rate = (float)(lr / (1.0 - pow(o->beta1, (double)n))),
        .root = (float)(1.0 / sqrt(1.0 - pow(o->beta2, (double)n))),
        .eps = (float)o->eps,
        .grad_scale = (float)grad_scale,
        .update = (uint32_t)n,
    };
    return DG_OK;
}

void dg_adamw_update(float *restrict w, float *restrict m, float *restrict v,
                     const float *restrict grad, int64_t num,
                     const AdamwStep *s)
{
    const AdamwStep c = *s;

#pragma omp simd
    for (int64_t i = 0; i < num; i++) {
        const float g = grad[i] * c.grad_scale;
        const float m1 = m[i] + c.take1 * (g - m[i]);
        const float v1 = c.beta2 * v[i] + c.take2 * (g * g);

        m[i] = m1;
        v[i] = v1;
        w[i] = w[i] * c.decay - c.rate * (m1 / (sqrtf(v1) * c.root + c.eps));
    }
}
