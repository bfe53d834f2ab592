#include "optim/lr.h"

#include <math.h>

double dg_lr_at(const LrOpts *o, int64_t n)
{
    if (n <= o->warmup)
        return o->lr * (double)n / (double)o->warmup;
    if (o->kind == DG_LR_CONSTANT)
        return o->lr;

    const int64_t span = o->num_updates - o->warmup;
    const double p =
        n < o->num_updates ? (double)(n - o->warmup) / (double)span : 1.0;
    const double fall = 1.0 - o->min_ratio;

    if (o->kind == DG_LR_LINEAR)
        return o->lr * (1.0 - fall * p);
    return o->lr * (o->min_ratio +
                    fall * 0.5 * (1.0 + cos(3.14159265358979323846 * p)));
}
