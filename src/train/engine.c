#include "train/engine.h"

#include "optim/ema.h"
#include "optim/grad_norm.h"

#include <math.h>

static void normal(float *out, int64_t num, const RngKey *key)
{
    dg_rng_normal(out, 0, num, key);
}

static void next(float *z_next, const SdeStep *s, const float *z,
                 const float *u, const RngKey *key, float *scratch, int64_t D)
{
    if (s->stochastic)
        dg_rng_normal(scratch, 0, D, key);
    dg_sde_next(z_next, s, z, u, scratch, D);
}

static void log_prob(float *out, const SdeStep *s, const float *z,
                     const float *u, const float *z_next, int64_t D)
{
    *out = dg_sde_log_prob(s, z, u, z_next, D);
}

static void kl(double *out, const SdeStep *s, const float *u,
               const float *u_ref, int64_t D)
{
    *out = dg_sde_kl(s, u, u_ref, D);
}

static void flag(int64_t *least, int64_t value, const float *x, int64_t num)
{
    int bad = 0;

    for (int64_t i = 0; i < num; i++)
        bad |= !isfinite(x[i]);
    if (bad && (uint64_t)value < (uint64_t)*least)
        *least = value;
}

static int grad_norm(double *norm, const float *grad, int64_t num,
                     double *scratch)
{
    *norm = dg_grad_norm(grad, num, scratch);
    return 0;
}

static void swap(float *a, float *b, int64_t num)
{
    for (int64_t i = 0; i < num; i++) {
        const float was = a[i];

        a[i] = b[i];
        b[i] = was;
    }
}

static const Engine host = {
    .normal = normal,
    .next = next,
    .x0 = dg_sde_x0,
    .log_prob = log_prob,
    .kl = kl,
    .seed = dg_objective_seed,
    .spoil = dg_denoise_spoil,
    .error = dg_denoise_error,
    .exact_init = dg_exact_init,
    .exact_clear = dg_exact_clear,
    .exact_add = dg_exact_add,
    .exact_check = dg_exact_check,
    .exact_merge = dg_exact_merge,
    .exact_read = dg_exact_read,
    .flag = flag,
    .grad_norm = grad_norm,
    .norm_chunks = dg_grad_norm_chunks,
    .adamw = dg_adamw_update,
    .adamw8 = dg_adamw8_update,
    .ema = dg_ema_update,
    .swap = swap,
};

const Engine *dg_engine_of(const Backend *backend)
{
    return backend != NULL && backend->engine != NULL ? backend->engine : &host;
}
