#ifndef DG_TESTS_NET_CHECKS_H
#define DG_TESTS_NET_CHECKS_H
/*
 * What the tests of all networks ask of a set of parameters. Included behind
 * cmocka.
 */
#include "nn/param.h"

#include <string.h>

/* Number of tensors and of values; ends the set. */
static inline void check_count(ParamSet *s, int tensors, int64_t values)
{
    assert_int_equal(s->num_params, tensors);
    assert_true(dg_params_num_values(s) == values);
    dg_params_fini(s);
}

/* Two gradients of a set, bit for bit. */
static inline void assert_same_grads(const ParamSet *s, const float *a,
                                     const float *b)
{
    for (int i = 0; i < s->num_params; i++) {
        const Tensor *t = &s->params[i]->value;

        if (memcmp(a + t->param_offset, b + t->param_offset,
                   (size_t)dg_tensor_count(t) * sizeof *a) != 0)
            fail_msg("gradient of %s differs", s->params[i]->name);
    }
}

#endif
