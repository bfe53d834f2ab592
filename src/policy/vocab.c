#include "family.h"

#include "base/error.h"

int dg_policy_vocab(int64_t *out, const Policy *p, const char *key,
                    int64_t wanted, const Words *words)
{
    *out = wanted > 0 ? wanted : words->num;
    if (!dg_policy_lenient(p) && words->num > 0 && *out != words->num)
        return dg_fail(DG_EINVAL,
                       "%s = %lld: the only vocabulary without policy.path, "
                       "the world's, has %lld words; others can be planned "
                       "(dancegrpo plan)",
                       key, (long long)wanted, (long long)words->num);
    return DG_OK;
}
