#define _GNU_SOURCE /* pkey_alloc */
/*
 * Kernel memory apart from the host's: mirrors, staged copies, the engine's
 * table, and that nobody looks where he may not.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "cuda/engine.h"
#include "tensor/mirror.h"

#include "cpu/cpu.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation */
void cuda_emulation_order(int reversed) __attribute__((weak));

enum { D = 5003, BYTES = D * (int)sizeof(float) };

static void must(int err)
{
    if (err != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

static void normals(float *out, uint32_t step)
{
    const RngKey key = { .seed = 5, .purpose = DG_RNG_TEST, .step = step };

    dg_rng_normal(out, 0, D, &key);
}

/* a mirror of D floats, filled and sent */
static Mirror filled(const Backend *be, uint32_t step)
{
    Mirror m;

    must(dg_mirror_new(&m, be, BYTES, "test"));
    normals(m.host, step);
    dg_mirror_up(&m);
    return m;
}

static void test_mirror_goes_both_ways(void **unused)
{
    const Backend *const backends[] = { dg_backend_cuda(), dg_backend_cpu() };
    static float want[D];

    (void)unused;
    normals(want, 1);
    for (int i = 0; i < D; ++i)
        want[i] *= 3;
    for (int k = 0; k < 2; ++k) {
        Mirror m = filled(backends[k], 1);
        assert_int_equal(m.at == m.host, !backends[k]->apart);
        backends[k]->scale(m.at, m.at, 3, D);
        must(dg_mirror_down(&m));
        assert_memory_equal(m.host, want, BYTES);
        dg_mirror_free(&m);
    }
}

/* Sizes around that of the pinned memory, 8 MiB; the host's side is written
 * over at once. */
static void test_staged_copies_of_any_size(void **unused)
{
    static const size_t sizes[] = { 1,       255,           (8 << 20) - 1,
                                    8 << 20, (8 << 20) + 5, 20 << 20 };
    const size_t most = 20 << 20;
    unsigned char *host = malloc(most), *want = malloc(most);
    void *at;

    (void)unused;
    for (size_t i = 0; i < most; ++i)
        want[i] = (unsigned char)(i * 2654435761u >> 13);
    must(dg_cuda_take(&at, most));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        memcpy(host, want, sizes[i]);
        dg_cuda_stage_up(at, host, sizes[i]);
        memset(host, 0, sizes[i]);
        must(dg_cuda_stage_down(host, at, sizes[i]));
        assert_memory_equal(host, want, sizes[i]);
    }
    dg_cuda_free(at);
    must(dg_cuda_take(&at, 77));
    must(dg_cuda_stage_down(host, at, 77));
    for (int i = 0; i < 77; ++i)
        assert_int_equal(host[i], 0);
    dg_cuda_free(at);
    free(host);
    free(want);
}

/* what came, and how much is to come before an error */
typedef struct Drained {
    unsigned char *to;
    size_t at, most;
} Drained;

static int take_part(void *user, const void *part, size_t at, size_t bytes)
{
    Drained *d = user;

    if (at >= d->most)
        return dg_fail(DG_EINVAL, "enough");
    assert_int_equal(at, d->at); /* in order */
    memcpy(d->to + at, part, bytes);
    d->at += bytes;
    return DG_OK;
}

/* Sizes around that of half of the pinned memory, 4 MiB; what the parts are of
 * is written again behind them, and upward copies come before. */
static void test_drained_parts_are_all(void **unused)
{
    static const size_t sizes[] = { 4,       (4 << 20) - 4,
                                    4 << 20, (4 << 20) + 8,
                                    8 << 20, (21 << 20) };
    const size_t most = 21 << 20;
    unsigned char *got = malloc(most), *want = malloc(most);
    unsigned char *others = calloc(1, 8 << 20);
    void *at, *elsewhere;

    (void)unused;
    for (size_t i = 0; i < most; ++i)
        want[i] = (unsigned char)(i * 2654435761u >> 13);
    must(dg_cuda_take(&at, most));
    must(dg_cuda_take(&elsewhere, 8 << 20));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        Drained d = { got, 0, most };

        memset(got, 0, most);
        dg_cuda_stage_up(at, want, sizes[i]);
        dg_cuda_stage_up(elsewhere, others, 8 << 20); /* as much as is pinned */
        must(dg_cuda_drain(at, sizes[i], take_part, &d));
        dg_backend_cuda()->fill(at, 0.0f, (int64_t)(sizes[i] / 4));
        assert_int_equal(d.at, sizes[i]);
        assert_memory_equal(got, want, sizes[i]);
    }
    Drained d = { got, 0, 8 << 20 };
    assert_int_equal(dg_cuda_drain(at, most, take_part, &d), DG_EINVAL);
    assert_string_equal(dg_last_error()->text, "enough");
    assert_int_equal(d.at, 8 << 20);
    d = (Drained) { got, 0, most }; /* nothing of it is left */
    must(dg_cuda_drain(at, 64, take_part, &d));
    dg_cuda_free(at);
    dg_cuda_free(elsewhere);
    free(others);
    free(got);
    free(want);
}

static void test_guidance_has_the_hosts_bits(void **unused)
{
    static const double weights[] = { 0, 1, 2.5, -1, 1 - 1e-12, 1e-60 };

    (void)unused;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; ++i) {
        Mirror a = filled(dg_backend_cuda(), 2);
        Mirror b = filled(dg_backend_cuda(), 3);
        static float want[D];
        dg_backend_cpu()->combine(want, a.host, b.host, weights[i], D);
        dg_backend_cuda()->combine(a.at, a.at, b.at, weights[i], D);
        must(dg_mirror_down(&a));
        assert_memory_equal(a.host, want, BYTES);
        dg_mirror_free(&a);
        dg_mirror_free(&b);
    }
}

/* A step of the sampler, with noise and without, and the exchange. */
static void test_engine_has_the_hosts_bits(void **unused)
{
    const Engine *host = dg_engine_of(dg_backend_cpu());
    const Engine *cuda = dg_engine_of(dg_backend_cuda());
    const RngKey key = { .seed = 9, .purpose = DG_RNG_TEST, .sample = 3 };
    static float want[D], noise[D];

    (void)unused;
    assert_ptr_equal(cuda, dg_engine_cuda());
    for (int stochastic = 0; stochastic < 2; ++stochastic) {
        const SdeStep s = { .stochastic = stochastic,
                            .mean_z = 0.7f,
                            .mean_u = -0.2f,
                            .std = 0.3f };
        Mirror z = filled(dg_backend_cuda(), 4);
        Mirror u = filled(dg_backend_cuda(), 5);
        host->next(want, &s, z.host, u.host, &key, noise, D);
        cuda->next(z.at, &s, z.at, u.at, &key, NULL, D);
        must(dg_mirror_down(&z));
        assert_memory_equal(z.host, want, BYTES);
        cuda->normal(u.at, D, &key);
        cuda->swap(z.at, u.at, D);
        must(dg_mirror_down(&u));
        assert_memory_equal(u.host, want, BYTES);
        host->normal(want, D, &key);
        must(dg_mirror_down(&z));
        assert_memory_equal(z.host, want, BYTES);
        dg_mirror_free(&z);
        dg_mirror_free(&u);
    }
}

/* The least value whose array has a NaN or Inf, on both; -1 without any. */
static void test_flags_keep_the_first_step(void **unused)
{
    const Backend *on[] = { dg_backend_cpu(), dg_backend_cuda() };
    static const float bad[] = { NAN, -INFINITY, INFINITY };

    (void)unused;
    for (int i = 0; i < 2; ++i) {
        const Engine *e = dg_engine_of(on[i]);
        Mirror x = filled(on[i], 4), least;
        int64_t *value;

        must(dg_mirror_new(&least, on[i], sizeof *value, "a flag"));
        value = least.host;
        *value = -1;
        dg_mirror_up(&least);
        e->flag(least.at, 3, x.at, D);
        must(dg_mirror_down(&least));
        assert_int_equal(*value, -1);
        for (int k = 0; k < 3; ++k) {
            static const int64_t steps[] = { 7, 2, 5 };
            ((float *)x.host)[D - 1 - k * (D / 2 - 1)] = bad[k];
            dg_mirror_up(&x);
            e->flag(least.at, steps[k], x.at, D);
            must(dg_mirror_down(&least));
            assert_int_equal(*value, k == 0 ? 7 : 2);
        }
        dg_mirror_free(&x);
        dg_mirror_free(&least);
    }
}

/* 1 if a process that does this ends by the signal */
static int ends_by(int signal, void (*act)(const Mirror *m), const Mirror *m)
{
    const pid_t child = fork();
    int status = 0;

    if (child == 0) {
        fclose(stderr);
        act(m);
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

static void look(const Mirror *m)
{
    signal(SIGSEGV, SIG_DFL);
    *(volatile float *)m->at = 1;
}

static void copy_wrongly(const Mirror *m)
{
    signal(SIGABRT, SIG_DFL);
    dg_cuda_download(m->at, m->host, 4);
}

static void test_host_may_not_look(void **unused)
{
    const int key = pkey_alloc(0, 0);
    Mirror m;

    (void)unused;
    if (cuda_emulation_order == NULL)
        skip();
    m = filled(dg_backend_cuda(), 6);
    assert_true(ends_by(SIGABRT, copy_wrongly, &m));
    if (key >= 0) /* the processor has protection keys */
        assert_true(ends_by(SIGSEGV, look, &m));
    dg_mirror_free(&m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_mirror_goes_both_ways),
    cmocka_unit_test(test_staged_copies_of_any_size),
    cmocka_unit_test(test_drained_parts_are_all),
    cmocka_unit_test(test_guidance_has_the_hosts_bits),
    cmocka_unit_test(test_engine_has_the_hosts_bits),
    cmocka_unit_test(test_flags_keep_the_first_step),
    cmocka_unit_test(test_host_may_not_look),
};

CUDA_MAIN(tests)
