/*
 * Products by the project's own kernels, which stand in where the library has
 * no algorithm: against double sums in both types, for all transposes, sizes
 * within and beyond tiles; the same bits whatever the tile, the batch and the
 * addresses; and that they do stand in, and say so.
 */
#include "base/error.h"
#include "base/log.h"
#include "cuda/cuda.h"
#include "ref_checks.h"
#include "weights/half.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation */
void cuda_emulation_order(int reversed) __attribute__((weak));

enum { GUARD = 3 }; /* elements of a row behind its last */

/* A matrix on the host, widened, and where its device copy is. */
typedef struct Matrix {
    float *host;
    char *device;
    int64_t count, bytes; /* of an element */
} Matrix;

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

/* 'shift': elements that it lies further than aligned */
static Matrix drawn(int64_t count, int64_t bytes, int64_t shift)
{
    Matrix x = { malloc((size_t)count * sizeof *x.host), NULL, count, bytes };
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);
    void *at;

    for (int64_t i = 0; i < count; ++i)
        x.host[i] = kernel_draw();
    dg_bfloat_narrow(narrow, x.host, count);
    if (bytes == 2)
        dg_bfloat_widen(x.host, narrow, count);
    assert_int_equal(dg_cuda_alloc(&at, (size_t)((count + shift) * bytes)),
                     DG_OK);
    x.device = (char *)at + shift * bytes;
    dg_cuda_upload(x.device, bytes == 2 ? (void *)narrow : x.host,
                   (size_t)(count * bytes));
    done();
    free(narrow);
    return x;
}

/* what the device has of it, widened */
static float *fetched(const Matrix *x)
{
    float *got = malloc((size_t)x->count * sizeof *got);
    uint16_t *narrow = malloc((size_t)x->count * sizeof *narrow);

    dg_cuda_download(x->bytes == 2 ? (void *)narrow : got, x->device,
                     (size_t)(x->count * x->bytes));
    done();
    if (x->bytes == 2)
        dg_bfloat_widen(got, narrow, x->count);
    free(narrow);
    return got;
}

static void freed(Matrix *x, int64_t shift)
{
    dg_cuda_free(x->device - shift * x->bytes);
    free(x->host);
}

/* A new stream in use, made where the environment says so: the library is not
 * asked, or has nothing. */
static CudaStream *stream_where(const char *name, const char *value)
{
    CudaStream *s;

    assert_int_equal(setenv(name, value, 1), 0);
    assert_int_equal(dg_cuda_stream_create(&s, 0), DG_OK);
    dg_cuda_use(s);
    return s;
}

/* --- against double sums --------------------------------------------------- */

typedef struct Sizes {
    int64_t m, n, k;
} Sizes;

/* Half the distance between neighbours of bfloat16 around x. */
static double half_ulp(double x)
{
    return x == 0.0 ? 0.0 : ldexp(1.0, ilogb(x) - 8);
}

/* sqrt(k) roundings of sums of size |a| |b| <= 4 k, and of bfloat16 one more */
static void compare(const GemmArgs *g, const Matrix *c, const float *got)
{
    const double sums = 16.0 * FLT_EPSILON * sqrt((double)g->k) * 4.0;

    for (int64_t i = 0; i < c->count; ++i) {
        const int64_t row = i / g->ldc, j = i % g->ldc;
        double want = c->host[i];

        if (j < g->n) {
            want *= g->beta;
            for (int64_t l = 0; l < g->k; ++l)
                want +=
                    (double)
                        g->a[g->trans_a ? l * g->lda + row : row * g->lda + l] *
                    g->b[g->trans_b ? j * g->ldb + l : l * g->ldb + j];
        }
        const double most =
            j >= g->n ? 0.0
                      : sums * sqrt((double)g->k) +
                            (c->bytes == 2 ? half_ulp(fabs(want) + sums) : 0.0);
        if (!(fabs(got[i] - want) <= most))
            fail_msg("%lld %lld %lld, trans %d %d, beta %g, %lld bytes, "
                     "[%lld, %lld]: %.9g is not %.9g",
                     (long long)g->m, (long long)g->n, (long long)g->k,
                     g->trans_a, g->trans_b, g->beta, (long long)c->bytes,
                     (long long)row, (long long)j, got[i], want);
    }
}

static void check_product(const Sizes *s, int64_t bytes, int trans, int gap)
{
    const int ta = trans & 1, tb = trans >> 1 & 1, adds = trans >> 2 & 1;
    GemmArgs g = { .trans_a = ta,
                   .trans_b = tb,
                   .m = s->m,
                   .n = s->n,
                   .k = s->k,
                   .lda = (ta ? s->m : s->k) + gap,
                   .ldb = (tb ? s->k : s->n) + gap,
                   .ldc = s->n + GUARD,
                   .beta = (float)adds };
    Matrix a = drawn(g.lda * (ta ? s->k : s->m), bytes, 0);
    Matrix b = drawn(g.ldb * (tb ? s->n : s->k), bytes, 0);
    Matrix c = drawn(g.ldc * s->m, bytes, 0);
    const Backend *be =
        bytes == 2 ? dg_backend_cuda()->bf16 : dg_backend_cuda();

    g.a = (float *)a.device, g.b = (float *)b.device, g.c = (float *)c.device;
    be->gemm(&g);
    float *got = fetched(&c);
    g.a = a.host, g.b = b.host;
    compare(&g, &c, got);
    free(got);
    freed(&a, 0), freed(&b, 0), freed(&c, 0);
}

static void test_products_agree_with_double_sums(void **unused)
{
    /* one tile; edges of small tiles and of large ones; odd sizes */
    static const Sizes all[] = {
        { 64, 64, 64 },   { 40, 24, 8 },  { 200, 136, 72 },
        { 130, 260, 33 }, { 37, 29, 51 }, { 17, 1, 130 },
    };

    /* a GPU's large tiles want as many as it has processors */
    static const Sizes large = { 1528, 1400, 72 };

    (void)unused;
    kernel_draws_from(7);
    for (int trans = 0; trans < 4 && cuda_emulation_order == NULL; ++trans)
        for (int64_t bytes = 2; bytes <= 4; bytes += 2)
            check_product(&large, bytes, trans, 8);
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        for (int trans = 0; trans < 8; ++trans)
            for (int64_t bytes = 2; bytes <= 4; bytes += 2)
                check_product(&all[i], bytes, trans, i % 2 ? 8 : 0);
}

/* --- bits ------------------------------------------------------------------- */

enum { M = 192, N = 264, K = 104, SAMPLES = 3 };

/* c = a b^T of 'rows' rows from 'first' on, samples of 'per' */
static float *rows_of(const Matrix *a, const Matrix *b, int64_t first,
                      int64_t rows, int64_t per)
{
    const int64_t bytes = a->bytes;
    Matrix c = drawn(rows * N, bytes, 0);
    const Backend *be =
        bytes == 2 ? dg_backend_cuda()->bf16 : dg_backend_cuda();

    be->gemm(&(GemmArgs) { .trans_b = 1,
                           .m = rows,
                           .n = N,
                           .k = K,
                           .lda = K,
                           .ldb = K,
                           .ldc = N,
                           .rows_per_sample = per,
                           .a = (float *)(a->device + first * K * bytes),
                           .b = (float *)b->device,
                           .c = (float *)c.device });
    float *got = fetched(&c);
    freed(&c, 0);
    return got;
}

/* All rows in large tiles; few in small ones; samples by themselves and side by
 * side; operands that lie anywhere. */
static void check_bits(int64_t bytes)
{
    const int64_t num = SAMPLES * M * N;

    kernel_draws_from(8);
    Matrix a = drawn(SAMPLES * M * K, bytes, 0), b = drawn(N * K, bytes, 0);
    kernel_draws_from(8);
    Matrix far = drawn(SAMPLES * M * K, bytes, 1), off = drawn(N * K, bytes, 1);
    float *all = rows_of(&a, &b, 0, SAMPLES * M, M);
    float *one = rows_of(&a, &b, 0, SAMPLES * M, SAMPLES * M);
    float *there = rows_of(&far, &off, 0, SAMPLES * M, M);

    assert_memory_equal(all, one, (size_t)num * sizeof *all);
    assert_memory_equal(all, there, (size_t)num * sizeof *all);
    for (int64_t first = 0; first < SAMPLES * M; first += M / 4) {
        float *few = rows_of(&a, &b, first, M / 4, 0);
        assert_memory_equal(few, all + first * N,
                            (size_t)(M / 4 * N) * sizeof *few);
        free(few);
    }
    free(all), free(one), free(there);
    freed(&a, 0), freed(&b, 0), freed(&far, 1), freed(&off, 1);
}

static void test_tiles_and_addresses_do_not_matter(void **unused)
{
    (void)unused;
    check_bits(2);
    check_bits(4);
}

/* --- in the library's place -------------------------------------------------- */

/* y = x w^T + bias, GELU of it, and the gradient of w added twice, of values
 * stored so; to [3 M N] */
static float *layer(int64_t bytes)
{
    const Backend *be =
        bytes == 2 ? dg_backend_cuda()->bf16 : dg_backend_cuda();
    float *all = malloc((size_t)(2 * M * N + N * K) * sizeof *all);

    kernel_draws_from(9);
    Matrix x = drawn(M * K, bytes, 0), w = drawn(N * K, bytes, 0);
    Matrix bias = drawn(N, bytes, 0), y = drawn(M * N, bytes, 0);
    Matrix pre = drawn(M * N, bytes, 0), dw = drawn(N * K, 4, 0);
    be->linear(&(LinearArgs) { .rows = M,
                               .in = K,
                               .out = N,
                               .ldw = K,
                               .rows_per_sample = M / 2,
                               .x = (float *)x.device,
                               .w = (float *)w.device,
                               .bias = (float *)bias.device,
                               .y = (float *)y.device,
                               .pre = (float *)pre.device,
                               .act = DG_ACT_GELU_TANH });
    be->linear_grad(&(LinearGradArgs) { .batch = 2,
                                        .rows = M / 2,
                                        .in = K,
                                        .out = N,
                                        .ldw = K,
                                        .x = (float *)x.device,
                                        .dy = (float *)pre.device,
                                        .dw = (float *)dw.device });
    const Matrix *to[] = { &y, &pre, &dw };
    float *at = all;
    for (int i = 0; i < 3; ++i) {
        float *got = fetched(to[i]);
        memcpy(at, got, (size_t)to[i]->count * sizeof *got);
        at += to[i]->count;
        free(got);
    }
    freed(&x, 0), freed(&w, 0), freed(&bias, 0);
    freed(&y, 0), freed(&pre, 0), freed(&dw, 0);
    return all;
}

/* The library has nothing: what is computed is what own kernels are asked for,
 * and each shape is told, once. */
static void test_a_shape_without_algorithm_is_told(void **own)
{
    if (cuda_emulation_order == NULL)
        skip();
    for (int64_t bytes = 2; bytes <= 4; bytes += 2) {
        CudaStream *s = stream_where("CUDA_EMULATION_NO_PRODUCT", "all");
        const size_t size = (2 * M * N + N * K) * sizeof(float);
        const long before = dg_log_count(DG_LOG_WARN);

        float *got = layer(bytes);
        /* the layer's product and its gradient's, of one shape each */
        assert_int_equal(dg_log_count(DG_LOG_WARN) - before, 2);
        free(layer(bytes));
        assert_int_equal(dg_log_count(DG_LOG_WARN) - before, 2);
        dg_cuda_stream_destroy(s);
        unsetenv("CUDA_EMULATION_NO_PRODUCT");
        dg_cuda_use(*own);
        float *want = layer(bytes);
        assert_memory_equal(got, want, size);
        assert_int_equal(dg_log_count(DG_LOG_WARN) - before, 2);
        free(got), free(want);
    }
}

static void test_the_environment_is_checked(void **own)
{
    CudaStream *s;
    char text[256];

    assert_int_equal(dg_cuda_arithmetic(text, sizeof text, 0), DG_OK);
    assert_null(strstr(text, "own products"));
    setenv("DANCEGRPO_PRODUCTS", "mine", 1);
    assert_int_equal(dg_cuda_stream_create(&s, 0), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "library or own"));
    setenv("DANCEGRPO_PRODUCTS", "own", 1);
    assert_int_equal(dg_cuda_arithmetic(text, sizeof text, 0), DG_OK);
    assert_non_null(strstr(text, "own products"));
    unsetenv("DANCEGRPO_PRODUCTS");
    dg_cuda_use(*own);
}

static int open_own(void **own)
{
    *own = stream_where("DANCEGRPO_PRODUCTS", "own");
    unsetenv("DANCEGRPO_PRODUCTS");
    return 0;
}

static int close_own(void **own)
{
    dg_cuda_stream_destroy(*own);
    return 0;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_products_agree_with_double_sums),
    cmocka_unit_test(test_tiles_and_addresses_do_not_matter),
    cmocka_unit_test(test_a_shape_without_algorithm_is_told),
    cmocka_unit_test(test_the_environment_is_checked),
};

int main(void)
{
    return cmocka_run_group_tests(tests, open_own, close_own);
}
