#ifndef DG_OPTIM_LR_H
#define DG_OPTIM_LR_H
/* The learning rate as a function of the update number. */
#include <stdint.h>

#include "config/choices.h"

typedef struct LrOpts {
    LrSchedule kind;
    double lr;           /* peak, >= 0 */
    int64_t warmup;      /* updates of linear rise before the kind begins */
    int64_t num_updates; /* of the whole run; unused when constant */
    double min_ratio;    /* in [0, 1]; unused when constant */
} LrOpts;

/**
 * Rate of update n, counted from 1.
 * n <= warmup: lr n / warmup. After it, with
 * p = (n - warmup) / (num_updates - warmup), at most 1:
 *   constant lr
 *   linear  lr (1 - (1 - min_ratio) p)
 *   cosine  lr (min_ratio + (1 - min_ratio) (1 + cos(pi p)) / 2)
 */
double dg_lr_at(const LrOpts *o, int64_t n);

#endif
