/* The bench of a GPU at small sizes: what it counts, not how fast it is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/error.h"
#include "cuda/bare.h"
#include "cuda/cuda.h"
#include "tensor/mirror.h"
#include "train/bench_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

static void must(int err)
{
    if (err != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

/* Whole numbers, whose sums are exact in any order and in every arithmetic
 * that keeps 8 bits of them. */
static void test_bare_product_is_a_product(void **state)
{
    enum { M = 7, N = 24, K = 40 };
    Mirror a, b, c;
    CudaBare *bare;

    (void)state;
    must(dg_mirror_new(&a, dg_backend_cuda(), M * K * sizeof(float), "a"));
    must(dg_mirror_new(&b, dg_backend_cuda(), K * N * sizeof(float), "b"));
    must(dg_mirror_new(&c, dg_backend_cuda(), M * N * sizeof(float), "c"));
    for (int i = 0; i < M * K; i++)
        ((float *)a.host)[i] = (float)(i % 11 - 5);
    for (int i = 0; i < K * N; i++)
        ((float *)b.host)[i] = (float)(i % 7 - 3);
    dg_mirror_up(&a);
    dg_mirror_up(&b);
    for (int how = DG_CUDA_FLOAT32; how <= DG_CUDA_OWN_FLOAT32; how++) {
        double seconds;

        if (how == DG_CUDA_BFLOAT16) /* its values are stored otherwise */
            continue;
        must(dg_cuda_bare_create(&bare, (CudaArithmetic)how));
        dg_cuda_bare_start(bare);
        dg_cuda_bare_product(bare, c.at, a.at, b.at, M, N, K);
        seconds = dg_cuda_bare_stop(bare);
        assert_true(seconds > 0 && seconds < 60);
        must(dg_mirror_down(&c));
        for (int i = 0; i < M * N; i++) {
            double want = 0;

            for (int l = 0; l < K; l++)
                want += (double)((i / N * K + l) % 11 - 5) *
                        ((l * N + i % N) % 7 - 3);
            assert_true((double)((float *)c.host)[i] == want);
        }
        dg_cuda_bare_destroy(bare);
    }
    dg_mirror_free(&a);
    dg_mirror_free(&b);
    dg_mirror_free(&c);
}

/* bare calls, counted */
typedef struct Counted {
    CudaBare *bare;
    double flops;
    int started;
} Counted;

static void product(void *user, float *c, const float *a, const float *b,
                    int64_t m, int64_t n, int64_t k)
{
    Counted *t = user;

    t->flops += 2.0 * (double)m * (double)n * (double)k;
    dg_cuda_bare_product(t->bare, c, a, b, m, n, k);
}

static void start(void *user)
{
    Counted *t = user;

    t->started++;
    dg_cuda_bare_start(t->bare);
}

static double stop(void *user)
{
    return dg_cuda_bare_stop(((Counted *)user)->bare);
}

static int is_rate(const BlockRate *r)
{
    return r->flops > 0 && isfinite(r->rate) && r->rate > 0 &&
           isfinite(r->ratio) && r->ratio > 0;
}

/* All operations of a pass are asked of the library too, warmed up twice. */
static void check_blocks(const char *name, DType dtype)
{
    const BlockSizes s = { 8, 16, 2, 32, 3, 5, 24, 12 };
    Counted t = { 0 };
    const BenchTools tools = { name, &t, product, NULL, dtype, start, stop };
    BenchBlock out[DG_BENCH_BLOCKS];
    double flops = 0;
    int num = 0;

    must(dg_cuda_bare_create(&t.bare, dtype == DG_BF16 ? DG_CUDA_BFLOAT16
                                                       : DG_CUDA_FLOAT32));
    must(dg_bench_blocks(out, &num, dg_backend_cuda(), &s, &tools, 2));
    assert_int_equal(num, 3);
    for (int i = 0; i < num; i++) {
        assert_true(is_rate(&out[i].forward) && is_rate(&out[i].both));
        assert_true(out[i].both.flops > 2.5 * out[i].forward.flops);
        flops += out[i].forward.flops + out[i].both.flops;
    }
    assert_true(t.flops == (2 + 2) * flops);
    assert_int_equal(t.started, 3 * 2 * (2 + 2 * 2));
    dg_cuda_bare_destroy(t.bare);
}

static void test_small_blocks_are_measured(void **state)
{
    (void)state;
    check_blocks("float32", DG_F32);
    check_blocks("bfloat16", DG_BF16);
}

/* A network of which the sizes alone are known. */
static void check_network(const char *dtype)
{
    Config config;
    const Session session = { .config = &config,
                              .backend = dg_backend_cuda(),
                              .num_threads = 1 };
    Counted t = { 0 };
    const BenchTools tools = {
        "float32", &t, product, NULL, DG_F32, start, stop
    };
    const DeviceBenchOpts o = {
        .tools = &tools, .num_tools = 1, .side = 24, .repeats = 2
    };
    DeviceBench b;
    char *text, *json;

    dg_config_defaults(&config);
    must(dg_config_load(&config, "configs/tiny.cfg"));
    must(dg_config_set(&config, "parallel.recompute=true"));
    must(dg_config_set(&config, "grpo.micro_batch=1"));
    must(dg_config_set(&config, dtype));
    dg_config_settle(&config);
    must(dg_cuda_bare_create(&t.bare, DG_CUDA_FLOAT32));
    must(dg_bench_device(&b, &session, &o));
    assert_int_equal(b.num, 1);
    assert_true(is_rate(&b.block[0].forward) && is_rate(&b.block[0].both));
    assert_true(b.product[0] > 0 && isfinite(b.product[0]));
    assert_int_equal(b.note[0], 0);
    must(dg_device_bench_text(&text, &b));
    must(dg_device_bench_json(&json, &b));
    assert_non_null(strstr(text, "of the machine's rate"));
    assert_non_null(strstr(json, "\"of_machine\":"));
    assert_null(strstr(json, "nan"));
    free(text);
    free(json);
    dg_cuda_bare_destroy(t.bare);
}

static void test_a_network_is_measured(void **state)
{
    (void)state;
    check_network("run.dtype=float32");
    check_network("run.dtype=bfloat16");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bare_product_is_a_product),
    cmocka_unit_test(test_small_blocks_are_measured),
    cmocka_unit_test(test_a_network_is_measured),
};

CUDA_MAIN(tests)
