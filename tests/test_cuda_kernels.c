/*
 * The cuda kernels: the checks of ref_checks.c and their own. Linked with
 * the emulation of tests/cuda_emulation, or with CUDA itself: `make check`
 * and `make check-gpu`. All data goes through device memory.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "ref_checks.h"
#include "ref_kernels.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation; a GPU has its own order */
void cuda_emulation_order(int reversed) __attribute__((weak));

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

static void host_of(void *host, void *device, size_t bytes)
{
    dg_cuda_download(host, device, bytes);
    done();
    dg_cuda_free(device);
}

/* a case on the device, guards and all */
static void run_case(const Case *c, int64_t batch, float **raw,
                     const int64_t *counts)
{
    float *device[CASE_SLOTS], *p[CASE_SLOTS];

    for (int s = 0; s < c->num_slots; ++s) {
        const size_t bytes = (size_t)counts[s] * sizeof(float);
        device[s] = device_copy(NULL, bytes + sizeof(float));
        p[s] = device[s] + kernel_shift(s) + KERNEL_GUARD;
        dg_cuda_stage_up(p[s] - KERNEL_GUARD, raw[s], bytes);
    }
    c->run(dg_backend_cuda(), c, batch, p);
    for (int s = 0; s < c->num_slots; ++s) {
        dg_cuda_download(raw[s], p[s] - KERNEL_GUARD,
                         (size_t)counts[s] * sizeof(float));
        done();
        dg_cuda_free(device[s]);
    }
}

/* What does not come out the same when blocks and threads run in the other
 * order was a race. */
static void test_order_of_threads_does_not_matter(void **unused)
{
    (void)unused;
    if (cuda_emulation_order == NULL)
        skip();
    kernel_check_change(cuda_emulation_order, "the order of threads", 1);
}

enum { PLACES = 9, WIDTH = 19, VOCAB = 6 };

static void embed_on(const Backend *be, int32_t *ids, float *table, float *y,
                     float *d)
{
    EmbedArgs a = { PLACES, WIDTH, VOCAB, ids, table, y, y, d };

    be->embed(&a);
    be->embed_grad(&a);
}

static void test_embed_looks_up_and_adds_back(void **unused)
{
    int32_t ids[PLACES] = { 4, 0, 4, 2, 4, 0, 5, 2, 4 };
    float table[VOCAB * WIDTH], y[2][PLACES * WIDTH], d[2][VOCAB * WIDTH];

    (void)unused;
    kernel_draws_from(6);
    for (int i = 0; i < VOCAB * WIDTH; ++i) {
        table[i] = kernel_draw();
        d[0][i] = d[1][i] = kernel_draw();
    }
    memset(y, 0, sizeof y);
    int32_t *ids_at = device_copy(ids, sizeof ids);
    float *table_at = device_copy(table, sizeof table);
    float *y_at = device_copy(y[0], sizeof y[0]);
    float *d_at = device_copy(d[0], sizeof d[0]);
    embed_on(dg_backend_cuda(), ids_at, table_at, y_at, d_at);
    host_of(y[0], y_at, sizeof y[0]);
    host_of(d[0], d_at, sizeof d[0]);
    dg_cuda_free(ids_at);
    dg_cuda_free(table_at);
    embed_on(ref_backend(), ids, table, y[1], d[1]);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    assert_memory_equal(d[0], d[1], sizeof d[0]);
}

static void test_first_nonfinite_finds_the_first(void **unused)
{
    enum { N = 10007 };
    static const int64_t places[] = { 0, 15, 16, 255, 4096, 9999, N - 1 };
    float *x = malloc(N * sizeof *x), *at;

    (void)unused;
    kernel_draws_from(7);
    for (int i = 0; i < N; ++i)
        x[i] = kernel_draw() * 1e38f;
    at = device_copy(x, N * sizeof *x);
    assert_int_equal(dg_backend_cuda()->first_nonfinite(at, N), -1);
    for (size_t i = sizeof places / sizeof *places; i-- > 0;) {
        x[places[i]] = i & 1 ? NAN : -INFINITY;
        dg_cuda_stage_up(at, x, N * sizeof *x);
        assert_int_equal(dg_backend_cuda()->first_nonfinite(at, N), places[i]);
    }
    done();
    dg_cuda_free(at);
    free(x);
}

/* Relative error over the whole range, tails included: as for the cpu. */
static void test_activations_are_accurate_everywhere(void **unused)
{
    enum { N = 4000 };
    static float x[N], y[N], want[N];

    (void)unused;
    for (int i = 0; i < N; ++i)
        x[i] = (float)(-9.0 + 18.0 * i / N);
    for (int act = DG_ACT_SILU; act <= DG_ACT_QUICK_GELU; ++act) {
        float *x_at = device_copy(x, sizeof x),
              *y_at = device_copy(NULL, sizeof y);
        dg_backend_cuda()->act(&(ActArgs) { (Act)act, N, x_at, NULL, y_at, 0 });
        ref_backend()->act(&(ActArgs) { (Act)act, N, x, NULL, want, 0 });
        host_of(y, y_at, sizeof y);
        dg_cuda_free(x_at);
        for (int i = 0; i < N; ++i) {
            const double rel = fabs((double)y[i] - want[i]) / fabs(want[i]);
            const double allowed = (4.0 + 3.0 * x[i] * x[i]) * FLT_EPSILON;
            if (want[i] != 0.0f && fabs(want[i]) > 1e-30 && rel > allowed)
                fail_msg("act %d at %.9g: %.9g is not %.9g", act, x[i], y[i],
                         want[i]);
        }
    }
}

/* A head wider than a chunk of shared memory (an auto-encoder's, 512). */
static void test_wide_heads(void **unused)
{
    enum { S = 21, D = 300, N = S * D };
    static float x[3][N], o[2][N];
    AttentionArgs a = { .batch = 1,
                        .heads = 1,
                        .d = D,
                        .sq = S,
                        .sk = S,
                        .scale = 0.05f,
                        .q = x[0],
                        .k = x[1],
                        .v = x[2],
                        .o = o[0] };
    float *at[3];

    (void)unused;
    kernel_draws_from(8);
    for (int i = 0; i < 3 * N; ++i)
        x[i / N][i % N] = kernel_draw();
    ref_backend()->attention(&a);
    for (int i = 0; i < 3; ++i)
        at[i] = device_copy(x[i], sizeof x[i]);
    a.q = at[0];
    a.k = at[1];
    a.v = at[2];
    a.o = device_copy(NULL, sizeof o[1]);
    dg_backend_cuda()->attention(&a);
    host_of(o[1], a.o, sizeof o[1]);
    for (int i = 0; i < 3; ++i)
        dg_cuda_free(at[i]);
    for (int i = 0; i < N; ++i)
        if (!(fabs(o[0][i] - o[1][i]) <= 1e-5))
            fail_msg("at %d: %.9g is not %.9g", i, o[1][i], o[0][i]);
}

/* A launch that the device refuses is told at the next wait, once. */
static void test_failures_are_told(void **unused)
{
    float *y = device_copy(NULL, 4096);
    AttentionArgs a = { .batch = 70000, .heads = 1, .d = 1, .sq = 1, .sk = 1 };

    (void)unused;
    dg_backend_cuda()->attention(&a); /* more samples than a grid has */
    dg_backend_cuda()->fill(y, 1.0f, 16);
    assert_int_equal(dg_cuda_wait(), DG_EDEVICE);
    assert_non_null(strstr(dg_last_error()->text, "attention_kernel"));
    assert_int_equal(dg_cuda_wait(), DG_OK);
    dg_cuda_free(y);
}

int main(void)
{
    const KernelsUnderTest cuda = { dg_backend_cuda(), 4, run_case };
    const struct CMUnitTest tests[] = {
        KERNEL_CHECKS,
        cmocka_unit_test(test_order_of_threads_does_not_matter),
        cmocka_unit_test(test_addresses_do_not_matter),
        cmocka_unit_test(test_embed_looks_up_and_adds_back),
        cmocka_unit_test(test_first_nonfinite_finds_the_first),
        cmocka_unit_test(test_activations_are_accurate_everywhere),
        cmocka_unit_test(test_wide_heads),
        cmocka_unit_test(test_failures_are_told),
    };
    CudaStream *stream;
    int failed;

    if (dg_cuda_stream_create(&stream, 0) != DG_OK) {
        print_error("%s\n", dg_last_error()->text);
        return 1;
    }
    dg_cuda_use(stream);
    kernel_checks_use(&cuda);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    dg_cuda_stream_destroy(stream);
    return failed;
}
