#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "optim/lr.h"

static void test_lr_constant_after_warmup(void **state)
{
    LrOpts o = { .kind = DG_LR_CONSTANT, .lr = 1e-5 };

    (void)state;
    for (int n = 1; n < 100; n++)
        assert_true(dg_lr_at(&o, n) == 1e-5);
    o.warmup = 10;
    for (int n = 1; n < 100; n++)
        assert_true(fabs(dg_lr_at(&o, n) - (n < 10 ? n * 1e-6 : 1e-5)) < 1e-20);
}

static void test_lr_falls_to_its_floor(void **state)
{
    LrOpts o = { .lr = 2, .warmup = 10, .num_updates = 110, .min_ratio = 0.1 };

    (void)state;
    for (int k = 0; k < 2; k++) {
        o.kind = k ? DG_LR_COSINE : DG_LR_LINEAR;
        assert_true(fabs(dg_lr_at(&o, 5) - 1) < 1e-15);
        assert_true(dg_lr_at(&o, 10) == 2);
        assert_true(fabs(dg_lr_at(&o, 60) - 1.1) < 1e-14);
        assert_true(fabs(dg_lr_at(&o, 110) - 0.2) < 1e-14);
        assert_true(fabs(dg_lr_at(&o, 5000) - 0.2) < 1e-14);
        for (int n = 11; n <= 110; n++)
            assert_true(dg_lr_at(&o, n) < dg_lr_at(&o, n - 1));
    }
    /* a quarter of the way: 1 - p against (1 + cos(pi p)) / 2 */
    assert_true(fabs(dg_lr_at(&o, 35) - 2 * (0.1 + 0.9 * (1 + sqrt(0.5)) / 2)) <
                1e-14);
    o.kind = DG_LR_LINEAR;
    assert_true(fabs(dg_lr_at(&o, 35) - 2 * (0.1 + 0.9 * 0.75)) < 1e-14);
}

static void test_lr_warmup_longer_than_the_run(void **state)
{
    const LrOpts o = {
        .kind = DG_LR_COSINE, .lr = 1, .warmup = 20, .num_updates = 20
    };

    (void)state;
    assert_true(dg_lr_at(&o, 20) == 1);
    assert_true(dg_lr_at(&o, 21) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lr_constant_after_warmup),
        cmocka_unit_test(test_lr_falls_to_its_floor),
        cmocka_unit_test(test_lr_warmup_longer_than_the_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
