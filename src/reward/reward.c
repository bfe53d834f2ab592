#include "reward/reward.h"

#include "base/error.h"
#include "kinds.h"

#include <math.h>
#include <string.h>

static const RewardKind *const kinds[] = { &dg_reward_shapes,
                                           &dg_reward_shapes_strict,
                                           &dg_reward_brightness };

static const RewardKind *find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}

int dg_rewards_init(Reward *out, const Config *c)
{
    for (int64_t k = 0; k < c->num_rewards; k++) {
        const RewardConfig *rc = &c->rewards[k];
        const RewardKind *kind = find(rc->name);

        if (kind == NULL)
            return dg_fail(DG_EINVAL,
                           "rewards[%lld].name = \"%s\": must be shapes, "
                           "shapes_strict or brightness",
                           (long long)k, rc->name);
        out[k] = (Reward) { kind, rc->weight, rc->threshold };
    }
    return DG_OK;
}

size_t dg_rewards_scratch(const Reward *r, int64_t num)
{
    size_t bytes = 0;

    for (int64_t k = 0; k < num; k++)
        if (r[k].kind->scratch_bytes > bytes)
            bytes = r[k].kind->scratch_bytes;
    return bytes;
}

void dg_reward_score(const Reward *r, const float *rgb, int64_t size,
                     const Prompt *prompt, RewardScore *out, void *scratch)
{
    RewardScore s = { .value = NAN, .strict = NAN };

    if (r->kind->score(rgb, size, prompt, &s, scratch) != DG_OK) {
        s.missing = 1;
    } else if (!isfinite(s.value)) {
        dg_fail(DG_ENUMERIC, "reward %s gave %g", r->kind->name,
                (double)s.value);
        s.missing = 1;
    } else if (!isnan(r->threshold)) {
        s.value = (double)s.value > r->threshold ? 1.0f : 0.0f;
    }
    if (s.missing)
        s.value = s.strict = NAN;
    *out = s;
}
