#include "family.h"

#include "base/error.h"

static int choose(int64_t *side, const char *key, int64_t wanted,
                  int64_t image_size, int64_t step, const char *networks)
{
    const int64_t value = wanted > 0 ? wanted : image_size;

    if (value % step != 0)
        return dg_fail(DG_EINVAL,
                       "%s = %lld: must be a multiple of %lld for the "
                       "networks of %s",
                       wanted > 0 ? key : "pretrain.image_size",
                       (long long)value, (long long)step, networks);
    *side = value;
    return DG_OK;
}

int dg_policy_sides(int64_t *height, int64_t *width, const Config *c,
                    int64_t step, const char *networks)
{
    const int64_t size = c->pretrain.image_size;
    int64_t h = 0;
    int err =
        choose(&h, "policy.height", c->policy.height, size, step, networks);

    if (!err)
        err = choose(width, "policy.width", c->policy.width, size, step,
                     networks);
    if (!err)
        *height = h;
    return err;
}
