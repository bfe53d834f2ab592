/* The bench of blocks at small sizes: what it counts, not how fast it is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/error.h"
#include "cpu/conv_rate.h"
#include "cpu/cpu.h"
#include "cpu/sgemm_rate.h"
#include "train/bench_blocks.h"

#include <math.h>

static const BenchConv conv = { dg_cpu_conv_bare_create, dg_cpu_conv_bare_run,
                                dg_cpu_conv_bare_destroy };

static void test_small_blocks_are_measured(void **state)
{
    const BlockSizes s = { 8, 16, 2, 32, 3, 5, 24, 12 };
    BenchBlock out[DG_BENCH_BLOCKS];
    int num = 0;
    (void)state;

    assert_int_equal(dg_bench_blocks(out, &num, dg_backend_cpu(), &s,
                                     dg_cpu_sgemm_bare, &conv, 3),
                     DG_OK);
    assert_int_equal(num, 3);
    /* two convolutions and the time's projection; twice that backward */
    assert_true(out[0].forward.flops == 2.0 * (2 * 64 * 16 * 9 * 16 + 64 * 16));
    assert_true(out[0].both.flops == 3 * out[0].forward.flops);
    for (int i = 0; i < num; i++) {
        assert_true(out[i].forward.ratio > 0 && isfinite(out[i].forward.ratio));
        assert_true(out[i].both.ratio > 0 && isfinite(out[i].both.ratio));
        assert_true(out[i].both.flops > 2.5 * out[i].forward.flops);
    }
}

static void test_sizes_choose_the_blocks(void **state)
{
    BlockSizes s = { 4, 8, 0, 0, 0, 0, 0, 0 };
    BenchBlock out[DG_BENCH_BLOCKS];
    int num = 0;
    (void)state;

    assert_int_equal(dg_bench_blocks(out, &num, dg_backend_cpu(), &s,
                                     dg_cpu_sgemm_bare, &conv, 1),
                     DG_OK);
    assert_int_equal(num, 1);
    s.channels = 12;
    assert_int_equal(dg_bench_blocks(out, &num, dg_backend_cpu(), &s,
                                     dg_cpu_sgemm_bare, &conv, 1),
                     DG_EINVAL);
    s.channels = 8;
    assert_int_equal(dg_bench_blocks(out, &num, dg_backend_cpu(), &s,
                                     dg_cpu_sgemm_bare, &conv, 0),
                     DG_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_blocks_are_measured),
        cmocka_unit_test(test_sizes_choose_the_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
