/*
 * What training needs on the device besides the networks, against the host's
 * own functions: the same bits from the same numbers.
 */
#include "base/error.h"
#include "cuda/adamw.h"
#include "cuda/adamw8.h"
#include "cuda/cuda.h"
#include "cuda/denoise.h"
#include "cuda/ema.h"
#include "cuda/exact_sum.h"
#include "cuda/grad_norm.h"
#include "cuda/objective.h"
#include "cuda/philox.h"
#include "cuda/sde.h"
#include "optim/ema.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

static const RngKey key = { .seed = 0x123456789abcdefu,
                            .purpose = DG_RNG_TEST,
                            .iteration = 3,
                            .prompt = 70000,
                            .sample = 11,
                            .step = 7 };

/* device memory holds exactly these bytes; it is freed */
static void compare_bits(void *device, const void *want, size_t bytes)
{
    void *got = malloc(bytes);

    dg_cuda_download(got, device, bytes);
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    assert_memory_equal(got, want, bytes);
    free(got);
}

static void same_bits(void *device, const void *want, size_t bytes)
{
    compare_bits(device, want, bytes);
    dg_cuda_free(device);
}

static void normals(float *out, int64_t num, uint32_t iteration)
{
    RngKey k = key;

    k.iteration = iteration;
    dg_rng_normal(out, 0, num, &k);
}

static void test_noise_has_the_hosts_bits(void **unused)
{
    static const int64_t ranges[][2] = {
        { 0, 40000 }, { 0, 1 }, { 3, 2 }, { 5, 1023 }, { 1 << 20, 7 }, { 4, 0 }
    };

    (void)unused;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; ++i) {
        const int64_t n = ranges[i][1];
        float *want = malloc(((size_t)n + 1) * sizeof *want);
        float *at = device_copy(NULL, (size_t)n * sizeof *want);
        dg_rng_normal(want, ranges[i][0], n, &key);
        dg_cuda_rng_normal(at, ranges[i][0], n, &key);
        same_bits(at, want, (size_t)n * sizeof *want);
        free(want);
    }
}

enum { D = 5003, BYTES = D * (int)sizeof(float) };

static float z[D], u[D], z_next[D], u_ref[D], u_old[D];

static void step_make(SdeStep *s, SdeKind kind, int index)
{
    static float sigma[5] = { 1.0f, 0.9f, 0.7f, 0.4f, 0.0f };
    const Schedule schedule = { .kind = DG_SCHEDULE_FLOW,
                                .num_steps = 4,
                                .sigma = sigma };
    const SdeOpts o = { kind, DG_LOG_PROB_GAUSSIAN, 0.6 };

    assert_int_equal(dg_sde_step_init(s, &o, &schedule, index), DG_OK);
    normals(z, D, 100);
    normals(u, D, 101);
    normals(u_ref, D, 102);
}

static void check_step(const SdeStep *s)
{
    static float noise[D], x0[D];
    float *z_at = device_copy(z, BYTES), *u_at = device_copy(u, BYTES);
    float *ref_at = device_copy(u_ref, BYTES);
    float *next_at = device_copy(NULL, BYTES),
          *draw_at = device_copy(NULL, BYTES);
    float *x0_at = device_copy(NULL, BYTES), *noise_at;
    float *log_prob_at = device_copy(NULL, sizeof(float));
    double *kl_at = device_copy(NULL, sizeof(double));

    dg_rng_normal(noise, 0, D, &key);
    dg_sde_next(z_next, s, z, u, noise, D);
    dg_sde_x0(x0, s, z, u, D);
    noise_at = device_copy(noise, BYTES);
    dg_cuda_sde_next(next_at, s, z_at, u_at, noise_at, D);
    dg_cuda_sde_draw(draw_at, s, z_at, u_at, &key, D);
    dg_cuda_sde_x0(x0_at, s, z_at, u_at, D);
    dg_cuda_sde_log_prob(log_prob_at, s, z_at, u_at, next_at, D);
    dg_cuda_sde_kl(kl_at, s, u_at, ref_at, D);
    const float log_prob = dg_sde_log_prob(s, z, u, z_next, D);
    const double kl = dg_sde_kl(s, u, u_ref, D);
    same_bits(log_prob_at, &log_prob, sizeof log_prob);
    same_bits(kl_at, &kl, sizeof kl);
    same_bits(next_at, z_next, BYTES);
    same_bits(draw_at, z_next, BYTES);
    same_bits(x0_at, x0, BYTES);
    dg_cuda_free(noise_at);
    dg_cuda_free(ref_at);
    dg_cuda_free(z_at);
    dg_cuda_free(u_at);
}

static void test_steps_have_the_hosts_bits(void **unused)
{
    SdeStep s;

    (void)unused;
    for (int kind = DG_SDE_ODE; kind <= DG_SDE_CPS; ++kind)
        for (int i = 0; i < 4; ++i) {
            step_make(&s, (SdeKind)kind, i);
            check_step(&s);
        }
}

/* Pretraining: a picture spoilt either way, its error and gradient, of sizes
 * with and without a tail. */
static void test_denoising_has_the_hosts_bits(void **unused)
{
    static const int64_t sizes[] = { D, 16, 1, 4096 };
    static float grad[D];

    (void)unused;
    for (int n = 0; n < 8; ++n) {
        const int64_t num = sizes[n / 2];
        const size_t bytes = (size_t)num * sizeof(float);
        const DenoiseLevel level = { 0.3f, 0.7f, n % 2 };
        double error;

        normals(z, num, 100);
        normals(u_ref, num, 101);
        normals(u, num, 102);
        float *z_at = device_copy(z, bytes),
              *target_at = device_copy(u_ref, bytes);
        float *u_at = device_copy(u, bytes),
              *grad_at = device_copy(NULL, bytes);
        double *error_at = device_copy(NULL, sizeof error);

        dg_denoise_spoil(z, u_ref, &level, num);
        dg_denoise_error(&error, grad, u, u_ref, 0.1f, num);
        dg_cuda_denoise_spoil(z_at, target_at, &level, num);
        dg_cuda_denoise_error(error_at, grad_at, u_at, target_at, 0.1f, num);
        same_bits(error_at, &error, sizeof error);
        same_bits(grad_at, grad, bytes);
        same_bits(z_at, z, bytes);
        same_bits(target_at, u_ref, bytes);
        dg_cuda_free(u_at);
    }
}

static void test_seeds_have_the_hosts_bits(void **unused)
{
    static float grad[D];
    SdeStep s;

    (void)unused;
    for (int k = 0; k < 4; ++k) {
        const ObjectiveTerm term = { .coef = -0.37,
                                     .kl_coef = 0.011 * (k % 2),
                                     .drift_coef = 0.09 * (k / 2) };
        step_make(&s, DG_SDE_DANCE, 2);
        normals(z_next, D, 103);
        normals(u_old, D, 104);
        dg_objective_seed(grad, &term, &s,
                          &(ObjectiveTensors) { z, u, z_next, u_ref, u_old },
                          D);
        float *old_at = device_copy(u_old, BYTES);
        float *z_at = device_copy(z, BYTES), *u_at = device_copy(u, BYTES);
        float *next_at = device_copy(z_next, BYTES);
        float *ref_at = device_copy(u_ref, BYTES);
        float *grad_at = device_copy(NULL, BYTES);
        dg_cuda_objective_seed(
            grad_at, &term, &s,
            &(ObjectiveTensors) { z_at, u_at, next_at, ref_at, old_at }, D);
        same_bits(grad_at, grad, BYTES);
        dg_cuda_free(old_at);
        dg_cuda_free(z_at);
        dg_cuda_free(u_at);
        dg_cuda_free(next_at);
        dg_cuda_free(ref_at);
    }
}

/* an item that is added in two parts, and the first element that is left out */
static void add_parts(ExactSum *s, const float *g_at, int64_t left_out)
{
    static const int64_t from[] = { 0, 1001, D };
    const int64_t none = -1;
    int64_t *bad = device_copy(&none, sizeof none);

    for (int i = 0; i < 2; ++i) {
        ExactSum part = dg_exact_part(s, from[i], from[i + 1] - from[i]);
        dg_cuda_exact_add_part(&part, g_at + from[i], from[i], bad);
    }
    s->items++;
    same_bits(bad, &left_out, sizeof left_out);
}

/* Three items, two of them summed apart and merged. All begin 'skipped' elements
 * further than pieces of 16 bytes do. */
static void check_sum(int exact, int skipped)
{
    const size_t bytes = dg_exact_bytes(D, exact);
    const size_t skips = dg_exact_bytes(skipped, exact);
    void *host[2] = { malloc(bytes), malloc(bytes) };
    char *device[2];
    ExactSum h[2], d[2];
    static float g[D];
    float *g_at = (float *)device_copy(NULL, BYTES + 16) + skipped;

    for (int i = 0; i < 2; ++i) {
        device[i] = (char *)device_copy(NULL, bytes + skips) + skips;
        assert_int_equal(dg_exact_init(&h[i], host[i], D, exact, 40, 3), 0);
        assert_int_equal(dg_cuda_exact_init(&d[i], device[i], D, exact, 40, 3),
                         0);
    }
    for (int i = 0; i < 3; ++i) {
        int64_t bad = 0;
        normals(g, D, 200u + (uint32_t)i);
        for (int j = 0; j < D; j += 2)
            g[j] *= 1e-6f; /* below the unit: these are rounded */
        g[17 + i] = i % 2 ? -h[0].limit : h[0].limit; /* is allowed */
        dg_cuda_stage_up(g_at, g, BYTES);
        assert_int_equal(dg_exact_add(&h[i > 0], g, NULL), DG_OK);
        if (i == 2)
            add_parts(&d[1], g_at, -1);
        else
            assert_int_equal(dg_cuda_exact_add(&d[i > 0], g_at, &bad), DG_OK);
        assert_int_equal(bad, i == 2 ? 0 : -1);
    }
    assert_int_equal(dg_exact_merge(&h[0], &h[1]), DG_OK);
    assert_int_equal(dg_cuda_exact_merge(&d[0], &d[1]), DG_OK);
    assert_int_equal(d[0].items, 3);
    dg_exact_read(&h[0], g, 7.0);
    dg_cuda_exact_read(&d[0], g_at, 7.0);
    compare_bits(g_at, g, BYTES);
    dg_cuda_free(g_at - skipped);
    assert_int_equal(dg_cuda_exact_merge(&d[0], &d[1]), DG_EINVAL);
    compare_bits(device[0], host[0], bytes);
    dg_cuda_free(device[0] - skips);
    dg_cuda_free(device[1] - skips);
    free(host[0]);
    free(host[1]);
}

static void test_sums_have_the_hosts_bits(void **unused)
{
    (void)unused;
    for (int skipped = 0; skipped <= 1; ++skipped) {
        check_sum(1, skipped);
        check_sum(0, skipped);
    }
}

/* What is refused is named as on the host, and leaves the sum as it was; where it
 * is left out the rest is added. */
static void check_bad(int exact)
{
    const float values[] = { NAN, INFINITY, exact ? -1e30f : -INFINITY };
    const size_t bytes = dg_exact_bytes(D, exact);
    void *buffer = device_copy(NULL, bytes), *rest = malloc(bytes);
    static float g[D], kept[D];
    ExactSum s, h;

    normals(g, D, 1);
    normals(kept, D, 1);
    assert_int_equal(dg_cuda_exact_init(&s, buffer, D, exact, 40, 5), DG_OK);
    for (size_t i = 0; i < sizeof values / sizeof *values; ++i) {
        const int64_t at = 4000 - 1999 * (int64_t)i;
        int64_t bad = -2;
        char text[64];
        g[at] = values[i];
        kept[at] = 0;
        float *g_at = device_copy(g, BYTES);
        assert_int_equal(dg_cuda_exact_check(&s, g_at, &bad), DG_ENUMERIC);
        assert_int_equal(bad, at);
        assert_int_equal(dg_cuda_exact_add(&s, g_at, &bad), DG_ENUMERIC);
        assert_int_equal(bad, at);
        snprintf(text, sizeof text, "element %lld is", (long long)at);
        assert_non_null(strstr(dg_last_error()->text, text));
        assert_int_equal(dg_exact_init(&h, rest, D, exact, 40, 5), DG_OK);
        assert_int_equal(s.items, 0);
        compare_bits(buffer, rest, bytes);
        add_parts(&s, g_at, at);
        assert_int_equal(dg_exact_add(&h, kept, NULL), DG_OK);
        compare_bits(buffer, rest, bytes);
        dg_cuda_exact_clear(&s);
        dg_cuda_free(g_at);
    }
    dg_cuda_free(buffer);
    free(rest);
}

static void test_bad_gradients_are_named(void **unused)
{
    (void)unused;
    check_bad(1);
    check_bad(0);
}

static void test_optimizer_has_the_hosts_bits(void **unused)
{
    static float x[5][D]; /* w, m, v, grad, ema */
    float *at[5];
    const AdamwOpts o = dg_adamw_default();
    AdamwStep s;

    (void)unused;
    for (int i = 0; i < 5; ++i) {
        normals(x[i], D, 300u + (uint32_t)i);
        for (int j = 0; i == 2 && j < D; ++j)
            x[i][j] = fabsf(x[i][j]);
        at[i] = device_copy(x[i], BYTES);
    }
    for (int n = 1; n <= 3; ++n) {
        const int k = n - 1; /* ranges begin anywhere */
        assert_int_equal(dg_adamw_step_init(&s, &o, 0.01, n, 0.3), DG_OK);
        dg_adamw_update(x[0] + k, x[1] + k, x[2] + k, x[3] + k, D - k, &s);
        dg_ema_update(x[4] + k, x[0] + k, D - k, 0.97);
        dg_cuda_adamw_update(at[0] + k, at[1] + k, at[2] + k, at[3] + k, D - k,
                             &s);
        dg_cuda_ema_update(at[4] + k, at[0] + k, D - k, 0.97);
    }
    for (int i = 0; i < 5; ++i)
        same_bits(at[i], x[i], BYTES);
}

/* moments in 8 bits, of ranges with and without a last block that is short; at
 * places where pieces of 16 bytes can be moved and where not */
static void check_codes(int64_t num, int skipped)
{
    enum { BLOCK = DG_MOMENT_BLOCK, BLOCKS = (D + BLOCK - 1) / BLOCK };
    static float w[D], g[D], scales[2][BLOCKS];
    static uint8_t codes[2][D];
    const AdamwOpts o = dg_adamw_default();
    const int64_t first = ((int64_t)3 << 32) + 5 * BLOCK;
    const Moments8 x = { codes[0], codes[1], scales[0], scales[1] };
    float *w_at = (float *)device_copy(NULL, BYTES + 4) + skipped;
    float *g_at = device_copy(NULL, BYTES);
    Moments8 at;
    AdamwStep s;

    memset(codes, 0, sizeof codes);
    memset(scales, 0, sizeof scales);
    at.m = (uint8_t *)device_copy(codes, sizeof codes) + 2 * skipped;
    at.v = device_copy(codes[1], sizeof codes[1]);
    at.m_scale = device_copy(scales[0], sizeof scales[0]);
    at.v_scale = device_copy(scales[1], sizeof scales[1]);
    normals(w, D, 300);
    dg_cuda_upload(w_at, w, BYTES);
    assert_int_equal(dg_cuda_wait(), DG_OK); /* w moves on */
    for (int n = 1; n <= 4; ++n) {
        normals(g, D, 301u + (uint32_t)n);
        for (int j = 0; j < D; ++j) /* blocks of zeros among them */
            g[j] = j / BLOCK % 5 == 3 ? 0 : g[j] * ldexpf(1, -(j % 40));
        dg_cuda_upload(g_at, g, BYTES);
        assert_int_equal(dg_adamw_step_init(&s, &o, 0.01, n, 0.3), DG_OK);
        dg_adamw8_update(w, &x, g, first, num, &s);
        dg_cuda_adamw8_update(w_at, &at, g_at, first, num, &s);
        assert_int_equal(dg_cuda_wait(), DG_OK); /* and so does g */
    }
    compare_bits(w_at, w, BYTES);
    compare_bits(at.m, codes[0], (size_t)num);
    same_bits(at.v, codes[1], sizeof codes[1]);
    same_bits(at.m_scale, scales[0], sizeof scales[0]);
    same_bits(at.v_scale, scales[1], sizeof scales[1]);
    dg_cuda_free(at.m - 2 * skipped);
    dg_cuda_free(w_at - skipped);
    dg_cuda_free(g_at);
}

static void test_optimizer_in_8_bits_has_the_hosts_bits(void **unused)
{
    (void)unused;
    for (int skipped = 0; skipped <= 1; ++skipped) {
        check_codes(D, skipped);
        check_codes(7 * DG_MOMENT_BLOCK, skipped);
        check_codes(1, skipped);
        check_codes(0, skipped);
    }
}

/* counts around borders of chunks, and enough chunks for two folds */
static void test_norm_has_the_hosts_bits(void **unused)
{
    static const int64_t counts[] = {
        1, 17, 4096, 4097, 50000, 700 * 4096 + 5
    };
    const int64_t most = 700 * 4096 + 5;
    float *g = malloc((size_t)most * sizeof *g);
    double *scratch = malloc(701 * sizeof *scratch);

    (void)unused;
    normals(g, most, 400);
    float *g_at = device_copy(g, (size_t)most * sizeof *g);
    double *scratch_at = device_copy(NULL, 701 * sizeof *scratch);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
        double norm = 0;
        assert_int_equal(dg_cuda_grad_norm(&norm, g_at, counts[i], scratch_at),
                         DG_OK);
        assert_true(norm == dg_grad_norm(g, counts[i], scratch));
    }
    dg_cuda_free(g_at);
    dg_cuda_free(scratch_at);
    free(g);
    free(scratch);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_noise_has_the_hosts_bits),
    cmocka_unit_test(test_steps_have_the_hosts_bits),
    cmocka_unit_test(test_denoising_has_the_hosts_bits),
    cmocka_unit_test(test_seeds_have_the_hosts_bits),
    cmocka_unit_test(test_sums_have_the_hosts_bits),
    cmocka_unit_test(test_bad_gradients_are_named),
    cmocka_unit_test(test_optimizer_has_the_hosts_bits),
    cmocka_unit_test(test_optimizer_in_8_bits_has_the_hosts_bits),
    cmocka_unit_test(test_norm_has_the_hosts_bits),
};

/* of the emulation; a GPU has its own order */
void cuda_emulation_order(int reversed) __attribute__((weak));

/* Twice, the last blocks and threads first: what comes out else was a race. */
int main(void)
{
    int failed;

    CUDA_RUN(failed, tests);
    if (cuda_emulation_order == NULL || failed)
        return failed;
    cuda_emulation_order(1);
    CUDA_RUN(failed, tests);
    return failed;
}
