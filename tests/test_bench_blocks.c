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
#include <stdlib.h>

/* The library's calls, counted: what a ratio divides by has to be done. */
typedef struct CountedConv {
    void *bare;
    int way;
    double flops; /* of a run */
} CountedConv;

static double product_flops, conv_flops[3];
static int convs_open;

static void counted_product(void *user, float *c, const float *a,
                            const float *b, int64_t m, int64_t n, int64_t k)
{
    (void)user;
    product_flops += 2.0 * (double)m * (double)n * (double)k;
    dg_cpu_sgemm_bare(c, a, b, m, n, k);
}

static int counted_create(void **out, const ConvArgs *a, int way)
{
    CountedConv *c = malloc(sizeof *c);
    const int err = dg_cpu_conv_bare_create(&c->bare, a, way);

    assert_int_equal(err, DG_OK);
    c->way = way;
    c->flops = 2.0 * (double)(a->batch * a->out_h * a->out_w * a->out * a->in *
                              a->kernel_h * a->kernel_w);
    convs_open++;
    *out = c;
    return DG_OK;
}

static void counted_run(const void *conv)
{
    const CountedConv *c = conv;

    conv_flops[c->way] += c->flops;
    dg_cpu_conv_bare_run(c->bare);
}

static void counted_destroy(void *conv)
{
    CountedConv *c = conv;

    dg_cpu_conv_bare_destroy(c->bare);
    free(c);
    convs_open--;
}

static const BenchConv conv = { counted_create, counted_run, counted_destroy };
static const BenchTools tools = { .name = "float32",
                                  .product = counted_product,
                                  .conv = &conv };

static void test_small_blocks_are_measured(void **state)
{
    const BlockSizes s = { 8, 16, 2, 32, 3, 5, 24, 12 };
    BenchBlock out[DG_BENCH_BLOCKS];
    int num = 0;
    (void)state;

    const double one_conv = 2 * 64 * 16 * 9 * 16;

    assert_int_equal(
        dg_bench_blocks(out, &num, dg_backend_cpu(), &s, &tools, 3), DG_OK);
    assert_int_equal(num, 3);
    assert_int_equal(convs_open, 0);
    /* two convolutions and the time's projection; twice that backward */
    assert_true(out[0].forward.flops == 2 * one_conv + 2.0 * 64 * 16);
    assert_true(out[0].both.flops == 3 * out[0].forward.flops);
    for (int i = 0; i < num; i++) {
        assert_true(out[i].forward.ratio > 0 && isfinite(out[i].forward.ratio));
        assert_true(out[i].both.ratio > 0 && isfinite(out[i].both.ratio));
        assert_true(out[i].both.flops > 2.5 * out[i].forward.flops);
    }
    /* all of that by bare calls too, three times: the convolutions ... */
    assert_true(conv_flops[0] == 3 * 4 * one_conv);
    assert_true(conv_flops[1] == 3 * 2 * one_conv);
    assert_true(conv_flops[2] == 3 * 2 * one_conv);
    /* ... and each product of FLUX.1 */
    assert_true(product_flops ==
                3 * (out[1].forward.flops + out[1].both.flops +
                     out[2].forward.flops + out[2].both.flops));
}

static void test_sizes_choose_the_blocks(void **state)
{
    BlockSizes s = { 4, 8, 0, 0, 0, 0, 0, 0 };
    const double product_before = product_flops;
    BenchBlock out[DG_BENCH_BLOCKS];
    int num = 0;
    (void)state;

    assert_int_equal(
        dg_bench_blocks(out, &num, dg_backend_cpu(), &s, &tools, 1), DG_OK);
    assert_int_equal(num, 1);
    assert_true(product_flops == product_before);
    s.channels = 12;
    assert_int_equal(
        dg_bench_blocks(out, &num, dg_backend_cpu(), &s, &tools, 1), DG_EINVAL);
    s.channels = 8;
    assert_int_equal(
        dg_bench_blocks(out, &num, dg_backend_cpu(), &s, &tools, 0), DG_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_blocks_are_measured),
        cmocka_unit_test(test_sizes_choose_the_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
