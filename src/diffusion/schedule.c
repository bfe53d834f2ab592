#include "diffusion/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/float_bits.h"

/* The table must come out as torch.linspace gives it: counted up from the
 * start in the first half and down from the end in the second, in float. One
 * unit of the integer time depends on it in two published recipes. */
static float linspace_down(int i, int num_steps)
{
    const float step = -1.0f / (float)num_steps;

    if (i < (num_steps + 1) / 2)
        return 1.0f + step * (float)i;
    return 0.0f - step * (float)(num_steps - i);
}

static float shifted(float l, double shift)
{
    return (float)shift * l / (1.0f + (float)(shift - 1.0) * l);
}

/* The last level, whatever comes before it. */
static void end_flow(Schedule *s, int num_steps)
{
    s->num_steps = num_steps;
    s->sigma[num_steps] = 0.0f;
    for (int i = 0; i < num_steps; i++)
        s->timestep[i] = (int32_t)(s->sigma[i] * 1000.0f);
}

int dg_schedule_init_flow(Schedule *out, int num_steps, double shift)
{
    if (num_steps < 1)
        return dg_fail(DG_EINVAL, "sampler.steps = %d: must be >= 1",
                       num_steps);
    if (!(shift > 0) || !isfinite(shift))
        return dg_fail(DG_EINVAL, "sampler.shift = %g: must be > 0", shift);

    Schedule s = { .kind = DG_SCHEDULE_FLOW, .shift = shift };
    s.sigma = calloc((size_t)num_steps + 1, sizeof *s.sigma);
    s.timestep = calloc((size_t)num_steps, sizeof *s.timestep);
    if (s.sigma == NULL || s.timestep == NULL) {
        dg_schedule_fini(&s);
        return dg_fail(DG_ENOMEM, "schedule of %d steps", num_steps);
    }
    for (int i = 0; i <= num_steps; i++)
        s.sigma[i] = shifted(linspace_down(i, num_steps), shift);
    s.sigma[0] = 1.0f;
    end_flow(&s, num_steps);
    for (int i = 0; i < num_steps; i++)
        /* an extreme shift would round two levels to one: no step there */
        if (s.sigma[i + 1] >= s.sigma[i]) {
            dg_schedule_fini(&s);
            return dg_fail(DG_EINVAL,
                           "sampler.shift = %g: too far from 1 for %d steps",
                           shift, num_steps);
        }
    *out = s;
    return DG_OK;
}

void dg_schedule_shorten(Schedule *out, const Schedule *full, int from,
                         int num_steps)
{
    const int T = full->num_steps, left = T - from;
    const double l = linspace_down(from, T);

    if (full->kind != DG_SCHEDULE_FLOW || from < 0 || num_steps < 1 ||
        num_steps > left)
        dg_panic("schedule: %d steps behind level %d of %d", num_steps, from,
                 T);
    out->kind = full->kind;
    out->shift = full->shift;
    memcpy(out->sigma, full->sigma, sizeof *out->sigma * (size_t)(T + 1));
    for (int j = 1; j < num_steps && num_steps < left; j++)
        out->sigma[from + j] =
            shifted((float)(l * (num_steps - j) / num_steps), full->shift);
    end_flow(out, from + num_steps);
}

/* linspace in float as for the flow table, then squared in float; the
 * running product is kept in double and rounded at every entry. */
void dg_schedule_alpha_bar_table(float *alpha_bar)
{
    const float lo = (float)sqrt(0.00085), hi = (float)sqrt(0.012);
    const float step = (hi - lo) / (float)(DG_TRAIN_TIMES - 1);
    double product = 1.0;

    for (int i = 0; i < DG_TRAIN_TIMES; i++) {
        const float root = i < DG_TRAIN_TIMES / 2
                               ? lo + step * (float)i
                               : hi - step * (float)(DG_TRAIN_TIMES - 1 - i);
        const float alpha = 1.0f - root * root;

        product *= alpha;
        alpha_bar[i] = (float)product;
    }
}

int dg_schedule_init_ddim(Schedule *out, int num_steps)
{
    if (num_steps < 1 || num_steps >= DG_TRAIN_TIMES)
        return dg_fail(DG_EINVAL, "sampler.steps = %d: must be 1..%d for ddim",
                       num_steps, DG_TRAIN_TIMES - 1);

    Schedule s = { .kind = DG_SCHEDULE_DDIM, .num_steps = num_steps };
    const size_t n = (size_t)num_steps;
    s.timestep = calloc(n, sizeof *s.timestep);
    s.alpha_bar = calloc(n, sizeof *s.alpha_bar);
    s.alpha_bar_next = calloc(n, sizeof *s.alpha_bar_next);
    if (!s.timestep || !s.alpha_bar || !s.alpha_bar_next) {
        dg_schedule_fini(&s);
        return dg_fail(DG_ENOMEM, "schedule of %d steps", num_steps);
    }
    const int stride = DG_TRAIN_TIMES / num_steps;
    float table[DG_TRAIN_TIMES];

    dg_schedule_alpha_bar_table(table);
    for (int j = 0; j < num_steps; j++) {
        const int t = (num_steps - 1 - j) * stride + 1;
        const int next = t > stride ? t - stride : 0;

        s.timestep[j] = t;
        s.alpha_bar[j] = table[t];
        s.alpha_bar_next[j] = table[next];
    }
    *out = s;
    return DG_OK;
}

void dg_schedule_fini(Schedule *s)
{
    free(s->sigma);
    free(s->timestep);
    free(s->alpha_bar);
    free(s->alpha_bar_next);
    memset(s, 0, sizeof *s);
}

float dg_schedule_time_of(int32_t timestep, ModelTime mode)
{
    const float t = (float)timestep;

    switch (mode) {
    case DG_TIME_SIGMA:
        dg_panic("schedule: sigma asked of a ddim schedule");
    case DG_TIME_INTEGER:
        return t;
    case DG_TIME_UNIT:
        return t / 1000.0f;
    case DG_TIME_BF16:
        return dg_round_bf16(dg_round_bf16(t / 1000.0f) * 1000.0f);
    }
    dg_panic("schedule: unknown time mode %d", (int)mode);
}

float dg_schedule_time(const Schedule *s, int i, ModelTime mode)
{
    if (i < 0 || i >= s->num_steps)
        dg_panic("schedule: step %d outside 0..%d", i, s->num_steps - 1);
    if (mode == DG_TIME_SIGMA && s->kind == DG_SCHEDULE_FLOW)
        return s->sigma[i];
    return dg_schedule_time_of(s->timestep[i], mode);
}
