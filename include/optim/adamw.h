#ifndef DG_OPTIM_ADAMW_H
#define DG_OPTIM_ADAMW_H
/*
 * AdamW on flat float ranges (Loshchilov & Hutter, 2019): decoupled weight
 * decay, bias-corrected moments.
 *   w <- w (1 - lr wd)
 *   m <- m + (1 - beta1) (g - m),   v <- beta2 v + (1 - beta2) g^2
 *   w <- w - lr / (1 - beta1^n) m / (sqrt(v) / sqrt(1 - beta2^n) + eps)
 * Every element stands alone: any partition into ranges, ranks or threads
 * gives the same bits.
 */
#include <stdint.h>

typedef struct AdamwOpts {
    double beta1, beta2; /* [0, 1) */
    double eps;          /* > 0 */
    double weight_decay; /* >= 0 */
} AdamwOpts;

/* One update's scalars, the same for every range. */
typedef struct AdamwStep {
    float decay; /* 1 - lr wd */
    float beta2;
    float take1, take2; /* 1 - beta1, 1 - beta2 */
    float rate;         /* lr / (1 - beta1^n) */
    float root;         /* 1 / sqrt(1 - beta2^n) */
    float eps;
    float grad_scale; /* from dg_grad_norm_scale(); 1: as it is */
    uint32_t update;  /* n, modulo 2^32: for optim/adamw8.h */
} AdamwStep;

/** beta (0.9, 0.999), eps 1e-8, weight decay 1e-4. */
AdamwOpts dg_adamw_default(void);

/**
 * Scalars of update n.
 * n   1 for the first update of a run, counted on across resumes
 * lr  learning rate of this update, >= 0
 * Errors: DG_EINVAL naming the optim key; *out is then untouched.
 */
int dg_adamw_step_init(AdamwStep *out, const AdamwOpts *o, double lr, int64_t n,
                       double grad_scale);

/**
 * Applies the update to num elements.
 * w, m, v  [num] f32 in/out; m and v zero before the first update
 * grad     [num] f32, multiplied by s->grad_scale first
 * Not collective; a range of a shared buffer may be given.
 */
void dg_adamw_update(float *w, float *m, float *v, const float *grad,
                     int64_t num, const AdamwStep *s);

#endif
