/*
 * The cuda kernels on values stored as bfloat16. Each kernel of a case by
 * itself: a table of its own hands a call to the device, repeats it by the
 * plain double loops from the very numbers that the device had, and compares
 * all buffers, element by element. What a kernel gave is what the next one
 * starts from, so that errors do not add up. Then the checks of ref_checks.c
 * that compare bits.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "ref_checks.h"
#include "ref_conv.h"
#include "ref_kernels.h"
#include "weights/half.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation; a GPU has its own order */
void cuda_emulation_order(int reversed) __attribute__((weak));

static const Backend *under_test(void)
{
    return dg_backend_cuda()->bf16;
}

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

static int64_t bytes_of(const Case *c, int s)
{
    return c->wide >> s & 1 ? 4 : 2;
}

/* host values to the device, rounded where they are stored narrow */
static void upload(void *to, const float *from, int64_t count, int64_t bytes)
{
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);

    dg_bfloat_narrow(narrow, from, count);
    dg_cuda_upload(to, bytes == 2 ? (const void *)narrow : from,
                   (size_t)(count * bytes));
    done();
    free(narrow);
}

static void download(float *to, const void *from, int64_t count, int64_t bytes)
{
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);

    dg_cuda_download(bytes == 2 ? (void *)narrow : to, from,
                     (size_t)(count * bytes));
    done();
    if (bytes == 2)
        dg_bfloat_widen(to, narrow, count);
    free(narrow);
}

/* a case on the device, guards and all */
static void run_case(const Case *c, int64_t batch, float **raw,
                     const int64_t *counts)
{
    Case narrow = *c;
    char *device[CASE_SLOTS], *first[CASE_SLOTS];
    float *p[CASE_SLOTS];

    narrow.bytes = 2;
    for (int s = 0; s < c->num_slots; ++s) {
        const int64_t bytes = bytes_of(c, s);
        device[s] = device_copy(NULL, (size_t)((counts[s] + 1) * bytes));
        first[s] = device[s] + kernel_shift(s) * bytes;
        upload(first[s], raw[s], counts[s], bytes);
        p[s] = (float *)(first[s] + KERNEL_GUARD * bytes);
    }
    c->run(under_test(), &narrow, batch, p);
    for (int s = 0; s < c->num_slots; ++s) {
        download(raw[s], first[s], counts[s], bytes_of(c, s));
        dg_cuda_free(device[s]);
    }
}

/* --- kernel by kernel ---------------------------------------------------- */

/* The case in work: each slot on the device, and what it holds, widened. */
static struct {
    const Case *c;
    char *device[CASE_SLOTS];
    float *host[CASE_SLOTS];
    int64_t counts[CASE_SLOTS];
} at;

/* Words of a kernel's arguments that point into a slot of the device become
 * the addresses of the same elements on the host. */
static void to_host(void *args, size_t bytes)
{
    for (size_t i = 0; i + sizeof(char *) <= bytes; i += sizeof(char *)) {
        char *p;
        memcpy(&p, (char *)args + i, sizeof p);
        for (int s = 0; s < at.c->num_slots; ++s) {
            const int64_t size = bytes_of(at.c, s), end = at.counts[s] * size;
            if (p < at.device[s] || p >= at.device[s] + end)
                continue;
            p = (char *)(at.host[s] + (p - at.device[s]) / size);
            memcpy((char *)args + i, &p, sizeof p);
            break;
        }
    }
}

/* Half the distance between neighbours of bfloat16, 8 bits, around x. */
static double half_ulp(double x)
{
    return x == 0.0 ? 0.0 : ldexp(1.0, ilogb(x) - 8);
}

/*
 * A stored result is the float32 one rounded once: half an ulp of it away. The
 * float32 one is as far from the exact one as test_kernels_agree_with_
 * double_loops() lets it, sqrt(terms) roundings of what is summed. 'before':
 * what roundings of intermediates, stored as bfloat16 too, add.
 */
static void compare(const char *kernel, int s, const float *ref,
                    const float *got, double before)
{
    const Case *c = at.c;
    const int narrow = bytes_of(c, s) == 2;
    double size = 1.0;

    for (int64_t i = 0; i < at.counts[s]; ++i)
        size = fmax(size, fabs(ref[i]));
    const double sums = 16.0 * FLT_EPSILON * sqrt((double)c->terms) * size;
    for (int64_t i = 0; i < at.counts[s]; ++i) {
        const double off = fabs((double)got[i] - ref[i]);
        const double most = fabs(ref[i]) + sums + before;
        if (!(off <= sums + (narrow ? before + half_ulp(most) : 0.0)))
            fail_msg("%s of %s %lld %lld %lld %lld %lld %lld, slot %d at "
                     "%lld: %.9g is not %.9g",
                     kernel, c->name, (long long)c->dims[0],
                     (long long)c->dims[1], (long long)c->dims[2],
                     (long long)c->dims[3], (long long)c->dims[4],
                     (long long)c->dims[5], s, (long long)i, got[i], ref[i]);
    }
}

/* after a kernel, on both sides: the device's values are the host's then */
static void settle(const char *kernel, double before)
{
    for (int s = 0; s < at.c->num_slots; ++s) {
        float *got = malloc((size_t)at.counts[s] * sizeof *got);
        download(got, at.device[s], at.counts[s], bytes_of(at.c, s));
        if (at.c->slots[s].kind != SLOT_SCRATCH)
            compare(kernel, s, at.host[s], got, before);
        memcpy(at.host[s], got, (size_t)at.counts[s] * sizeof *got);
        free(got);
    }
}

#define TWIN(entry, Args)                   \
    static void twin_##entry(const Args *a) \
    {                                       \
        Args h = *a;                        \
        to_host(&h, sizeof h);              \
        under_test()->entry(a);             \
        ref_backend()->entry(&h);           \
        settle(#entry, 0.0);                \
    }

TWIN(gemm, GemmArgs)
TWIN(linear_grad, LinearGradArgs)
TWIN(act, ActArgs)
TWIN(act_grad, ActArgs)
TWIN(gated, GatedArgs)
TWIN(gated_grad, GatedArgs)
TWIN(norm, NormArgs)
TWIN(norm_grad, NormArgs)
TWIN(qk, QkArgs)
TWIN(qk_grad, QkArgs)
TWIN(gate, GateArgs)
TWIN(gate_grad, GateArgs)
TWIN(copy, CopyArgs)
TWIN(conv, ConvArgs)
TWIN(conv_weight_grad, ConvArgs)
TWIN(group_norm, GroupNormArgs)
TWIN(group_norm_grad, GroupNormArgs)
TWIN(add_rows, AddRowsArgs)
TWIN(add_rows_grad, AddRowsArgs)

/* the largest |x w^T|, or with 'all' |x w^T + x2 w2^T + bias|, of a call, of
 * host memory */
static double largest(const LinearArgs *a, int all)
{
    const size_t num = (size_t)(a->rows * a->out);
    LinearArgs l = *a;
    double most = 0.0;

    l.y = malloc(num * sizeof *l.y);
    l.pre = NULL;
    l.act = DG_ACT_NONE;
    if (!all)
        l.x2 = l.bias = NULL;
    ref_backend()->linear(&l);
    for (size_t i = 0; i < num; ++i)
        most = fmax(most, fabs(l.y[i]));
    free(l.y);
    return most;
}

/* Half an ulp before the last rounding: of the first of two products, and of
 * what an activation, of slope 1.13 at most, starts from. The library's GELU
 * takes a GPU's own tanh, good to 2^-11 by the PTX manual; the emulation has
 * the C library's. */
static void twin_linear(const LinearArgs *a)
{
    LinearArgs h = *a;
    double before = 0.0;

    to_host(&h, sizeof h);
    if (h.x2 != NULL)
        before += half_ulp(largest(&h, 0));
    if (h.act != DG_ACT_NONE)
        before = 1.13 * (before + half_ulp(largest(&h, 1)));
    if (h.act == DG_ACT_GELU_TANH && cuda_emulation_order == NULL)
        before += ldexp(largest(&h, 1), -12);
    under_test()->linear(a);
    ref_backend()->linear(&h);
    settle("linear", before);
}

/* dx is stored after each tile that adds to it. The windows over a pixel begin
 * in a few neighbouring rows of the map, within four tiles of 64 pixels here,
 * the last of which is compare()'s. */
static void twin_conv_input_grad(const ConvArgs *a)
{
    ConvArgs h = *a;
    double most = 0.0;

    to_host(&h, sizeof h);
    under_test()->conv_input_grad(a);
    ref_backend()->conv_input_grad(&h);
    for (int64_t i = 0; i < h.batch * h.h * h.w * h.in; ++i)
        most = fmax(most, fabs(h.dx[i]));
    settle("conv_input_grad", 3.0 * half_ulp(2.0 * most));
}

/* The largest sums of |weight value| that one query or one key may have, of a
 * head: over keys of |P v| and |dS k|, over queries of |P dO| and |dS q|. */
static double largest_sums(const AttentionArgs *a, int64_t b, int64_t h)
{
    double *by_key = calloc((size_t)(2 * a->sk), sizeof *by_key), most = 0.0;
    const int64_t ld = a->heads * a->d;

    for (int64_t i = 0; i < a->sq; ++i) {
        const int64_t q = (b * a->sq + i) * ld + h * a->d;
        double by_query[2] = { 0.0, 0.0 };
        for (int64_t j = 0; j < a->sk && (!a->causal || j <= i); ++j) {
            const int64_t k = (b * a->sk + j) * ld + h * a->d;
            double s = 0.0, dp = 0.0, top[4] = { 0.0 };
            for (int64_t l = 0; l < a->d; ++l) {
                const float *values[] = { a->v + k, a->k + k, NULL, a->q + q };
                s += (double)a->q[q + l] * a->k[k + l];
                if (a->d_o != NULL) {
                    values[2] = a->d_o + q;
                    dp += ((double)a->v[k + l] - a->o[q + l]) * a->d_o[q + l];
                }
                for (int t = 0; t < 4; ++t)
                    if (values[t] != NULL)
                        top[t] = fmax(top[t], fabs(values[t][l]));
            }
            const double p = exp(
                s * a->scale - (double)a->lse[(b * a->heads + h) * a->sq + i]);
            const double ds = fabs(p * dp) * a->scale;
            by_query[0] += p * top[0];
            by_query[1] += ds * top[1];
            by_key[2 * j] += p * top[2];
            by_key[2 * j + 1] += ds * top[3];
        }
        most = fmax(most, fmax(by_query[0], by_query[1]));
    }
    for (int64_t j = 0; j < 2 * a->sk; ++j)
        most = fmax(most, by_key[j]);
    free(by_key);
    return most;
}

/* Weights are rounded before tensor cores multiply them, by 2^-8 at most. */
static double rounded_weights(const AttentionArgs *a)
{
    double most = 0.0;

    if (a->bias != NULL || a->d % 8 != 0 || a->d > 160)
        return 0.0;
    for (int64_t b = 0; b < a->batch; ++b)
        for (int64_t h = 0; h < a->heads; ++h)
            most = fmax(most, largest_sums(a, b, h));
    return most / 256.0;
}

static void twin_attention(const AttentionArgs *a)
{
    AttentionArgs h = *a;

    to_host(&h, sizeof h);
    under_test()->attention(a);
    ref_backend()->attention(&h);
    settle("attention", rounded_weights(&h));
}

static void twin_attention_grad(const AttentionArgs *a)
{
    AttentionArgs h = *a;

    to_host(&h, sizeof h);
    under_test()->attention_grad(a);
    ref_backend()->attention_grad(&h);
    settle("attention_grad", rounded_weights(&h));
}

typedef struct Plain {
    float *y;
    const float *a, *b;
} Plain;

static void twin_add(float *y, const float *a, const float *b, int64_t count)
{
    Plain h = { y, a, b };

    to_host(&h, sizeof h);
    under_test()->add(y, a, b, count);
    ref_backend()->add(h.y, h.a, h.b, count);
    settle("add", 0.0);
}

static void twin_scale(float *y, const float *x, float alpha, int64_t count)
{
    Plain h = { y, x, NULL };

    to_host(&h, sizeof h);
    under_test()->scale(y, x, alpha, count);
    ref_backend()->scale(h.y, h.a, alpha, count);
    settle("scale", 0.0);
}

static void twin_fill(float *y, float value, int64_t count)
{
    Plain h = { y, NULL, NULL };

    to_host(&h, sizeof h);
    under_test()->fill(y, value, count);
    ref_backend()->fill(h.y, value, count);
    settle("fill", 0.0);
}

static const Backend twin = {
    .name = "twin",
    .computes = 1,
    .gemm = twin_gemm,
    .linear = twin_linear,
    .linear_grad = twin_linear_grad,
    .act = twin_act,
    .act_grad = twin_act_grad,
    .gated = twin_gated,
    .gated_grad = twin_gated_grad,
    .norm = twin_norm,
    .norm_grad = twin_norm_grad,
    .qk = twin_qk,
    .qk_grad = twin_qk_grad,
    .attention = twin_attention,
    .attention_grad = twin_attention_grad,
    .gate = twin_gate,
    .gate_grad = twin_gate_grad,
    .copy = twin_copy,
    .conv = twin_conv,
    .conv_input_grad = twin_conv_input_grad,
    .conv_weight_grad = twin_conv_weight_grad,
    .group_norm = twin_group_norm,
    .group_norm_grad = twin_group_norm_grad,
    .add_rows = twin_add_rows,
    .add_rows_grad = twin_add_rows_grad,
    .add = twin_add,
    .scale = twin_scale,
    .fill = twin_fill,
};

static void open_slot(const Case *c, int s, int64_t batch)
{
    const Slot *slot = &c->slots[s];
    const int per_sample = slot->kind == SLOT_IN || slot->kind == SLOT_OUT ||
                           slot->kind == SLOT_ADD;
    const int64_t n = per_sample ? slot->size * batch : slot->size;
    const int64_t count = n + 2 * KERNEL_GUARD, bytes = bytes_of(c, s);
    void *device;

    at.counts[s] = count;
    at.host[s] = malloc((size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; ++i)
        at.host[s][i] = kernel_draw();
    assert_int_equal(dg_cuda_alloc(&device, (size_t)(count * bytes)), DG_OK);
    at.device[s] = device;
    upload(device, at.host[s], count, bytes);
    download(at.host[s], device, count, bytes); /* rounded */
}

static void twin_case(const Case *c, int64_t batch)
{
    Case narrow = *c;
    float *p[CASE_SLOTS];

    narrow.bytes = 2;
    at.c = c;
    for (int s = 0; s < c->num_slots; ++s) {
        open_slot(c, s, batch);
        p[s] = (float *)(at.device[s] + KERNEL_GUARD * bytes_of(c, s));
    }
    c->run(&twin, &narrow, batch, p);
    for (int s = 0; s < c->num_slots; ++s) {
        dg_cuda_free(at.device[s]);
        free(at.host[s]);
    }
}

static void test_each_kernel_rounds_once(void **unused)
{
    (void)unused;
    for (int i = 0; i < case_count(); ++i) {
        Case c;
        case_get(i, &c);
        kernel_draws_from((uint64_t)i);
        twin_case(&c, 2);
    }
}

static int64_t drawn(int64_t n)
{
    const double x = ((double)kernel_draw() + 2.0) / 4.0; /* 0..1 */
    const int64_t i = (int64_t)(x * (double)n);

    return i < n ? i : n - 1;
}

static void test_each_kernel_of_any_size(void **unused)
{
    enum { DRAWS = 5 };

    (void)unused;
    for (int i = 0; i < DRAWS * case_kinds(); ++i) {
        Case c;
        kernel_draws_from(7000u + (uint64_t)i);
        case_draw(i / DRAWS, drawn, &c);
        twin_case(&c, 1 + drawn(3));
    }
}

static void test_order_of_threads_does_not_matter(void **unused)
{
    (void)unused;
    if (cuda_emulation_order == NULL)
        skip();
    kernel_check_change(cuda_emulation_order, "the order of threads", 1);
}

/* --- one number ------------------------------------------------------------ */

/* Casting is the rounding of files: same bits for every kind of number. */
static void test_cast_rounds_as_files_do(void **unused)
{
    enum { N = 1 << 16 };
    static float x[N], back[N];
    static uint16_t want[N], got[N];
    const Backend *be = dg_backend_cuda();
    void *wide, *narrow;

    (void)unused;
    for (uint32_t i = 0; i < N; ++i) {
        /* every bfloat16 that is no NaN, and what lies half way, just before
         * and just behind */
        static const uint32_t below[4] = { 0x0000, 0x8000, 0x7fff, 0x8001 };
        uint32_t u = i << 16 | below[i & 3];
        if ((u & 0x7fffffff) > 0x7f800000)
            u = 0x3f808000;
        memcpy(&x[i], &u, sizeof u);
    }
    dg_bfloat_narrow(want, x, N);
    assert_int_equal(dg_cuda_alloc(&wide, sizeof x), DG_OK);
    assert_int_equal(dg_cuda_alloc(&narrow, sizeof got), DG_OK);
    dg_cuda_upload(wide, x, sizeof x);
    be->cast(narrow, DG_BF16, wide, DG_F32, N);
    be->cast(wide, DG_F32, narrow, DG_BF16, N);
    dg_cuda_download(got, narrow, sizeof got);
    dg_cuda_download(back, wide, sizeof back);
    done();
    assert_memory_equal(got, want, sizeof got);
    dg_bfloat_widen(x, want, N);
    assert_memory_equal(back, x, sizeof x);
    dg_cuda_free(wide);
    dg_cuda_free(narrow);
}

static void test_embed_looks_up_and_adds_back(void **unused)
{
    enum { PLACES = 9, WIDTH = 19, VOCAB = 6 };
    int32_t ids[PLACES] = { 4, 0, 4, 2, 4, 0, 5, 2, 4 }, *ids_at;
    float table[VOCAB * WIDTH], y[2][PLACES * WIDTH], d[2][VOCAB * WIDTH];
    void *p[3];

    (void)unused;
    kernel_draws_from(6);
    for (int i = 0; i < VOCAB * WIDTH; ++i) {
        table[i] = dg_bfloat_to_float(dg_bfloat_from_float(kernel_draw()));
        d[0][i] = d[1][i] = kernel_draw();
    }
    assert_int_equal(dg_cuda_alloc((void **)&ids_at, sizeof ids), DG_OK);
    for (int i = 0; i < 3; ++i)
        assert_int_equal(dg_cuda_alloc(&p[i], sizeof y[0]), DG_OK);
    dg_cuda_upload(ids_at, ids, sizeof ids);
    upload(p[0], table, VOCAB * WIDTH, 2);
    upload(p[2], d[0], VOCAB * WIDTH, 4);
    EmbedArgs a = { PLACES, WIDTH, VOCAB, ids_at, p[0], p[1], p[1], p[2] };
    under_test()->embed(&a);
    under_test()->embed_grad(&a);
    download(y[0], p[1], PLACES * WIDTH, 2);
    download(d[0], p[2], VOCAB * WIDTH, 4);
    a = (EmbedArgs) { PLACES, WIDTH, VOCAB, ids, table, y[1], y[1], d[1] };
    ref_backend()->embed(&a);
    ref_backend()->embed_grad(&a);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    assert_memory_equal(d[0], d[1], sizeof d[0]);
    for (int i = 0; i < 3; ++i)
        dg_cuda_free(p[i]);
    dg_cuda_free(ids_at);
}

static void test_first_nonfinite_finds_the_first(void **unused)
{
    enum { N = 5003 };
    float *x = malloc(N * sizeof *x);
    void *p;

    (void)unused;
    kernel_draws_from(7);
    for (int i = 0; i < N; ++i)
        x[i] = kernel_draw() * 1e38f;
    assert_int_equal(dg_cuda_alloc(&p, N * 2), DG_OK);
    upload(p, x, N, 2);
    assert_int_equal(under_test()->first_nonfinite(p, N), -1);
    x[N - 1] = INFINITY;
    x[777] = NAN;
    upload(p, x, N, 2);
    assert_int_equal(under_test()->first_nonfinite(p, N), 777);
    dg_cuda_free(p);
    free(x);
}

static int use_cases(void **unused)
{
    static KernelsUnderTest k = { NULL, 3, run_case };

    (void)unused;
    k.backend = under_test();
    kernel_checks_use(&k);
    return 0;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup(test_each_kernel_rounds_once, use_cases),
    cmocka_unit_test(test_each_kernel_of_any_size),
    cmocka_unit_test(test_samples_do_not_depend_on_neighbours),
    cmocka_unit_test(test_shared_sums_run_in_order),
    cmocka_unit_test(test_nan_is_kept_and_stays_in_its_sample),
    cmocka_unit_test(test_order_of_threads_does_not_matter),
    cmocka_unit_test(test_addresses_do_not_matter),
    cmocka_unit_test(test_cast_rounds_as_files_do),
    cmocka_unit_test(test_embed_looks_up_and_adds_back),
    cmocka_unit_test(test_first_nonfinite_finds_the_first),
};

CUDA_MAIN(tests)
