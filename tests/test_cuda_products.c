/*
 * Matrix products by the library, in both types: a sample's bits are those of
 * a batch of one, whatever the library would choose for more, and bias may
 * lie anywhere.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "ref_checks.h"
#include "weights/half.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation */
void cuda_emulation_order(int reversed) __attribute__((weak));

/* The emulated library chooses anew at each doubling of c. Sums are long, so
 * that another order shows in some of the results after rounding to bfloat16:
 * by chance in 1 of 2000 */
enum { ROWS = 24, IN = 1500, OUT = 48, MOST = 9, GAP = 8 };

/* one of the two tables, and device memory of its stored values */
typedef struct Side {
    const Backend *be;
    size_t bytes;
    void *x, *w, *bias, *y, *pre;
} Side;

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

/* [count] numbers from 'seed', stored as the side stores them */
static void *drawn(const Side *s, int64_t count, uint64_t seed)
{
    float *wide = malloc((size_t)count * sizeof *wide);
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);
    void *at;

    kernel_draws_from(seed);
    for (int64_t i = 0; i < count; ++i)
        wide[i] = kernel_draw();
    dg_bfloat_narrow(narrow, wide, count);
    assert_int_equal(dg_cuda_alloc(&at, (size_t)count * s->bytes), DG_OK);
    dg_cuda_upload(at, s->bytes == 2 ? (const void *)narrow : wide,
                   (size_t)count * s->bytes);
    done();
    free(narrow);
    free(wide);
    return at;
}

static void open_side(Side *s, int bf16)
{
    s->be = bf16 ? dg_backend_cuda()->bf16 : dg_backend_cuda();
    s->bytes = bf16 ? 2 : 4;
    s->x = drawn(s, MOST * ROWS * IN, 1);
    s->w = drawn(s, IN * OUT, 2);
    s->bias = drawn(s, OUT + GAP, 3);
    s->y = drawn(s, MOST * ROWS * OUT, 4);
    s->pre = drawn(s, MOST * ROWS * OUT, 5);
}

static void close_side(Side *s)
{
    dg_cuda_free(s->x);
    dg_cuda_free(s->w);
    dg_cuda_free(s->bias);
    dg_cuda_free(s->y);
    dg_cuda_free(s->pre);
}

/* y and pre of 'num' samples from the given one on; to [2 num ROWS OUT]
 * stored values on the host */
static void linear(char *to, const Side *s, Act act, int64_t first, int64_t num)
{
    const size_t size = (size_t)(num * ROWS * OUT) * s->bytes;
    const char *x = (const char *)s->x + (size_t)(first * ROWS * IN) * s->bytes;

    s->be->linear(&(LinearArgs) { .rows = num * ROWS,
                                  .in = IN,
                                  .out = OUT,
                                  .ldw = IN,
                                  .rows_per_sample = ROWS,
                                  .x = (const float *)x,
                                  .w = s->w,
                                  .bias = s->bias,
                                  .y = s->y,
                                  .pre = s->pre,
                                  .act = act });
    dg_cuda_download(to, s->y, size);
    dg_cuda_download(to + size, s->pre, size);
    done();
}

static void check_batches(int bf16, Act act)
{
    const size_t one = (size_t)(ROWS * OUT) * (bf16 ? 2 : 4);
    char *alone = malloc(2 * one), *all = malloc(2 * MOST * one);
    Side s;

    open_side(&s, bf16);
    linear(all, &s, act, 0, MOST);
    for (int64_t i = 0; i < MOST; ++i) {
        linear(alone, &s, act, i, 1);
        assert_memory_equal(alone, all + (size_t)i * one, one);
        assert_memory_equal(alone + one, all + (size_t)(MOST + i) * one, one);
    }
    close_side(&s);
    free(alone);
    free(all);
}

static void test_batches_have_the_bits_of_one(void **unused)
{
    (void)unused;
    for (int bf16 = 0; bf16 < 2; ++bf16)
        for (int act = DG_ACT_SILU; act <= DG_ACT_QUICK_GELU; ++act)
            check_batches(bf16, (Act)act);
}

/* The same sizes with bias at other addresses, in the same stream: whichever
 * came before. A GPU's library need not have them all; parameters, which are
 * aligned, do not ask for them. */
static void test_bias_lies_anywhere(void **unused)
{
    const size_t size = 2 * (size_t)(ROWS * OUT) * sizeof(float);
    char *got;

    (void)unused;
    if (cuda_emulation_order == NULL)
        skip();
    got = malloc(2 * GAP * size);
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        Side s, moved;

        open_side(&s, bf16);
        moved = s;
        memset(got, 0, 2 * GAP * size);
        for (int i = 0; i < 2 * GAP; ++i) {
            const int off = i < GAP ? GAP - 1 - i : i - GAP;

            moved.bias = (char *)s.bias + (size_t)off * s.bytes;
            linear(got + (size_t)i * size, &moved, DG_ACT_GELU_TANH, 0, 1);
        }
        for (int off = 0; off < GAP; ++off)
            assert_memory_equal(got + (size_t)(GAP - 1 - off) * size,
                                got + (size_t)(GAP + off) * size, size);
        close_side(&s);
    }
    free(got);
}

/* Products of few rows have kernels of their own, which load 16 bytes at a time
 * where addresses and pitches allow it: [FEW, k] by a right side that lies
 * 'off' elements into 'b', and is stored transposed or as it is. */
enum { FEW = 6, FEW_K = 1504 };

static void few_rows(char *to, const Side *s, const void *b, int64_t off,
                     int trans_b)
{
    const char *at = (const char *)b + (size_t)off * s->bytes;

    s->be->gemm(&(GemmArgs) { .trans_b = trans_b,
                              .m = FEW,
                              .n = OUT,
                              .k = FEW_K,
                              .lda = FEW_K,
                              .ldb = trans_b ? FEW_K : OUT,
                              .ldc = OUT,
                              .rows_per_sample = FEW / 2,
                              .a = s->x,
                              .b = (const float *)at,
                              .c = s->y });
    dg_cuda_download(to, s->y, FEW * OUT * s->bytes);
    done();
}

static void test_few_rows_have_one_order(void **unused)
{
    char here[FEW * OUT * sizeof(float)], there[FEW * OUT * sizeof(float)];
    const int64_t num = FEW_K * OUT;

    (void)unused;
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        Side s;
        void *moved;

        open_side(&s, bf16);
        assert_int_equal(dg_cuda_alloc(&moved, (size_t)(num + 1) * s.bytes),
                         DG_OK);
        char *copy = malloc((size_t)num * s.bytes);
        dg_cuda_download(copy, s.x, (size_t)num * s.bytes);
        done();
        dg_cuda_upload((char *)moved + s.bytes, copy, (size_t)num * s.bytes);
        done();
        for (int trans_b = 0; trans_b < 2; ++trans_b) {
            few_rows(here, &s, s.x, 0, trans_b);
            few_rows(there, &s, moved, 1, trans_b);
            assert_memory_equal(here, there, FEW * OUT * s.bytes);
        }
        free(copy);
        dg_cuda_free(moved);
        close_side(&s);
    }
}

/* Memory that is not there is an error of whoever wanted it; the library that is
 * called next is not to take it for its own. */
static void test_errors_are_forgotten(void **unused)
{
    char *before = malloc(2 * ROWS * OUT * 4),
         *after = malloc(2 * ROWS * OUT * 4);
    void *p = NULL;
    Side s;

    (void)unused;
    open_side(&s, 0);
    linear(before, &s, DG_ACT_SILU, 0, 1);
    assert_int_equal(dg_cuda_alloc(&p, (size_t)1 << 50), DG_ENOMEM);
    linear(after, &s, DG_ACT_SILU, 0, 1);
    assert_memory_equal(before, after, 2 * ROWS * OUT * 4);
    if (cuda_emulation_order != NULL) { /* a stream that has no room */
        setenv("CUDA_EMULATION_MEMORY", "1000", 1);
        assert_int_equal(dg_cuda_side_new(&p), DG_ENOMEM);
        unsetenv("CUDA_EMULATION_MEMORY");
        linear(after, &s, DG_ACT_SILU, 0, 1);
        assert_memory_equal(before, after, 2 * ROWS * OUT * 4);
    }
    close_side(&s);
    free(before);
    free(after);
}

/* A stream that asks a library with these faults; of a sample, c and pre. */
static void of_faulty(char *to, const char *faults, int bf16)
{
    void *stream, *before;
    Side s;

    setenv("CUDA_EMULATION_PRODUCTS", faults, 1);
    assert_int_equal(dg_cuda_side_new(&stream), DG_OK);
    before = dg_cuda_side_use(stream);
    check_batches(bf16, DG_ACT_GELU_TANH);
    open_side(&s, bf16);
    linear(to, &s, DG_ACT_GELU_TANH, 0, 1);
    close_side(&s);
    dg_cuda_side_use(before);
    dg_cuda_side_free(stream);
    unsetenv("CUDA_EMULATION_PRODUCTS");
}

/* Whether there is a library to plant faults in. */
static int emulated(void)
{
    return cuda_emulation_order != NULL &&
           getenv("CUDA_EMULATION_NO_PRODUCT") == NULL;
}

/* A library may split k though it was asked not to, and may have other bits for
 * a batch and say nothing: samples keep their bits. The emulated one offers three
 * algorithms, of which the first two split. */
static void test_faults_of_the_library_are_found(void **unused)
{
    enum { RESULTS = 2 * ROWS * OUT * sizeof(float) };
    static const char *const faults[] = { "", "batch 2", "batch 4", "split",
                                          "few" };

    (void)unused;
    if (!emulated())
        skip();
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        char got[5][RESULTS] = { { 0 } };

        for (int i = 0; i < 5; ++i)
            of_faulty(got[i], faults[i], bf16);
        assert_memory_equal(got[0], got[1], RESULTS);
        assert_memory_equal(got[0], got[2], RESULTS);
        assert_memory_not_equal(got[0], got[3], RESULTS);
        assert_memory_equal(got[4], got[3], RESULTS);
    }
}

/* [rows, PLACED_K] by a right side [PLACED_OUT, PLACED_K] that lies 'off'
 * elements into 'b'. */
enum { PLACED_K = 1408, PLACED_OUT = 128, OFF = 16 };

static void placed(char *to, const Side *s, const void *b, int64_t off)
{
    const char *at = (const char *)b + (size_t)off * s->bytes;

    s->be->gemm(&(GemmArgs) { .trans_b = 1,
                              .m = ROWS,
                              .n = PLACED_OUT,
                              .k = PLACED_K,
                              .lda = PLACED_K,
                              .ldb = PLACED_K,
                              .ldc = PLACED_OUT,
                              .a = s->w,
                              .b = (const float *)at,
                              .c = s->y });
    dg_cuda_download(to, s->y, ROWS * PLACED_OUT * s->bytes);
    done();
}

/* Parameters lie as far from 256 bytes' multiples as the numbers before them
 * make it, which are others where weights are lent: a library that looked at
 * that would have other bits there. */
static void test_places_do_not_choose(void **unused)
{
    char here[ROWS * PLACED_OUT * 4], there[ROWS * PLACED_OUT * 4];
    const int64_t num = PLACED_K * PLACED_OUT;

    (void)unused;
    setenv("CUDA_EMULATION_PRODUCTS", "places", 1);
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        Side s;
        void *moved;

        open_side(&s, bf16);
        assert_int_equal(dg_cuda_alloc(&moved, (size_t)(num + OFF) * s.bytes),
                         DG_OK);
        char *copy = malloc((size_t)num * s.bytes);
        dg_cuda_download(copy, s.x, (size_t)num * s.bytes);
        done();
        dg_cuda_upload((char *)moved + OFF * s.bytes, copy,
                       (size_t)num * s.bytes);
        done();
        placed(here, &s, s.x, 0);
        placed(there, &s, moved, OFF);
        assert_memory_equal(here, there, ROWS * PLACED_OUT * s.bytes);
        free(copy);
        dg_cuda_free(moved);
        close_side(&s);
    }
    unsetenv("CUDA_EMULATION_PRODUCTS");
}

/* Of a stream without the library, and of one whose library runs nothing of what
 * it names, a product of more rows than a small GPU has room to try. */
static void untried(char *to, const char *name, const char *value)
{
    enum { LARGE = MOST * ROWS };
    void *stream, *before;
    Side s;

    setenv(name, value, 1);
    open_side(&s, 0);
    assert_int_equal(dg_cuda_side_new(&stream), DG_OK);
    before = dg_cuda_side_use(stream);
    s.be->gemm(&(GemmArgs) { .trans_b = 1,
                             .m = LARGE,
                             .n = OUT,
                             .k = IN,
                             .lda = IN,
                             .ldb = IN,
                             .ldc = OUT,
                             .a = s.x,
                             .b = s.w,
                             .c = s.y });
    dg_cuda_download(to, s.y, LARGE * OUT * sizeof(float));
    done();
    dg_cuda_side_use(before);
    dg_cuda_side_free(stream);
    close_side(&s);
    unsetenv(name);
}

/* An algorithm that the library names and then does not run is passed over; own
 * kernels compute what is left. */
static void test_refused_algorithms_are_passed_over(void **unused)
{
    enum { RESULTS = 2 * ROWS * OUT * sizeof(float) };
    enum { ALL = MOST * ROWS * OUT * sizeof(float) };
    char one[RESULTS] = { 0 }, other[RESULTS] = { 0 };
    char *own, *refused;

    (void)unused;
    if (!emulated())
        skip();
    own = malloc(ALL), refused = malloc(ALL);
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        of_faulty(one, "few", bf16);
        of_faulty(other, "refuse 2", bf16);
        assert_memory_equal(one, other, RESULTS);
        setenv("CUDA_EMULATION_NO_PRODUCT", "all", 1);
        of_faulty(one, "", bf16);
        unsetenv("CUDA_EMULATION_NO_PRODUCT");
        of_faulty(other, "refuse 3", bf16);
        assert_memory_equal(one, other, RESULTS);
    }
    untried(own, "CUDA_EMULATION_NO_PRODUCT", "all");
    untried(refused, "CUDA_EMULATION_PRODUCTS", "refuse 3");
    assert_memory_equal(own, refused, ALL);
    free(own);
    free(refused);
}

/* One whose sums have another order each time is an error. */
static void test_bits_that_do_not_repeat_are_told(void **unused)
{
    void *stream, *before;

    (void)unused;
    if (!emulated())
        skip();
    setenv("CUDA_EMULATION_PRODUCTS", "vary", 1);
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        const Backend *be = bf16 ? dg_backend_cuda()->bf16 : dg_backend_cuda();
        Side s;

        open_side(&s, bf16);
        assert_int_equal(dg_cuda_side_new(&stream), DG_OK);
        before = dg_cuda_side_use(stream);
        be->gemm(&(GemmArgs) { .m = ROWS,
                               .n = OUT,
                               .k = IN,
                               .lda = IN,
                               .ldb = OUT,
                               .ldc = OUT,
                               .a = s.x,
                               .b = s.w,
                               .c = s.y });
        assert_int_equal(dg_cuda_wait(), DG_EDEVICE);
        assert_non_null(
            strstr(dg_last_error()->text,
                   bf16 ? "[24, 1500] x [1500, 48] of bfloat16 twice"
                        : "[24, 1500] x [1500, 48] of float32 twice"));
        dg_cuda_side_use(before);
        dg_cuda_side_free(stream);
        close_side(&s);
    }
    unsetenv("CUDA_EMULATION_PRODUCTS");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_few_rows_have_one_order),
    cmocka_unit_test(test_batches_have_the_bits_of_one),
    cmocka_unit_test(test_bias_lies_anywhere),
    cmocka_unit_test(test_errors_are_forgotten),
    cmocka_unit_test(test_faults_of_the_library_are_found),
    cmocka_unit_test(test_places_do_not_choose),
    cmocka_unit_test(test_refused_algorithms_are_passed_over),
    cmocka_unit_test(test_bits_that_do_not_repeat_are_told),
};

CUDA_MAIN(tests)
