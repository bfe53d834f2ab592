/*
 * Operands whose rows lie so far apart that places among them are beyond 2^31
 * elements and 2^32 bytes, as those of large networks are, by whole numbers
 * whose sums are exact. Memory is the host's, of which next to nothing is
 * touched: a GPU has no such room, and skips them.
 */
#include "cuda/cuda.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/error.h"
#include "weights/half.h"

#include "cuda_test.h"

/* of the emulation */
void cuda_emulation_order(int reversed) __attribute__((weak));

/* rows beyond the tiles of own products, and of few */
enum { MOST = 136, SOME = 20, FEW = 5, OUT = 24, IN = 40, WIDE = 16 };

static const int64_t far = ((int64_t)1 << 27) + 8;

static const Backend *kernels(DType type)
{
    return type == DG_BF16 ? dg_backend_cuda()->bf16 : dg_backend_cuda();
}

/* rows that begin 'far' apart, all zero */
typedef struct Rows {
    char *at;
    DType type;
    size_t bytes;
} Rows;

static Rows rows_new(int64_t num, DType type)
{
    Rows r = { NULL, type, (size_t)(num * far * dg_dtype_bytes(type)) };
    void *at = mmap(NULL, r.bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED) { /* a kernel that promises no more than it has */
        print_message("no addresses for %zu bytes\n", r.bytes);
        skip();
    }
    r.at = at;
    return r;
}

static void rows_free(Rows *r)
{
    munmap(r->at, r->bytes);
}

static float *place(const Rows *r, int64_t at)
{
    return (float *)(void *)(r->at + at * dg_dtype_bytes(r->type));
}

static void put(const Rows *r, int64_t at, float x)
{
    if (r->type == DG_BF16)
        dg_bfloat_narrow((uint16_t *)(void *)place(r, at), &x, 1);
    else
        *place(r, at) = x;
}

static void is(const Rows *r, int64_t at, float want)
{
    float got;

    if (r->type == DG_BF16)
        dg_bfloat_widen(&got, (const uint16_t *)(const void *)place(r, at), 1);
    else
        got = *place(r, at);
    if (got != want)
        fail_msg("place %lld: %g, not %g", (long long)at, (double)got,
                 (double)want);
}

static void done(void)
{
    if (dg_cuda_wait() != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

static int is_emulated(void)
{
    return cuda_emulation_order != NULL;
}

/* --- products --------------------------------------------------------------- */

static float left(int64_t i, int64_t l)
{
    return (float)((i * IN + l) % 7 - 3);
}

static float right(int64_t l, int64_t j)
{
    return (float)((l * OUT + j) % 5 - 2);
}

/* over 'num' of l */
static float sum_of(int64_t i, int64_t j, int64_t num)
{
    float sum = 0;

    for (int64_t l = 0; l < num; l++)
        sum += left(i, l) * right(l, j);
    return sum;
}

static void check_product(int64_t m, int trans_a, int trans_b, DType type)
{
    Rows a = rows_new(MOST, type), b = rows_new(IN, type),
         c = rows_new(MOST, type);
    const GemmArgs g = { .trans_a = trans_a,
                         .trans_b = trans_b,
                         .m = m,
                         .n = OUT,
                         .k = IN,
                         .lda = far,
                         .ldb = far,
                         .ldc = far,
                         .rows_per_sample = m,
                         .a = place(&a, 0),
                         .b = place(&b, 0),
                         .c = place(&c, 0) };

    for (int64_t l = 0; l < IN; l++) {
        for (int64_t i = 0; i < m; i++)
            put(&a, trans_a ? l * far + i : i * far + l, left(i, l));
        for (int64_t j = 0; j < OUT; j++)
            put(&b, trans_b ? j * far + l : l * far + j, right(l, j));
    }
    kernels(type)->gemm(&g);
    done();
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < OUT; j++)
            is(&c, i * far + j, sum_of(i, j, IN));
    rows_free(&a);
    rows_free(&b);
    rows_free(&c);
}

static void test_products(void **state)
{
    static const int64_t rows[] = { FEW, SOME, MOST };

    (void)state;
    if (!is_emulated())
        skip();
    for (int i = 0; i < 2 * 2 * 2 * 3; i++)
        check_product(rows[i / 8], i / 4 % 2, i / 2 % 2,
                      i % 2 ? DG_BF16 : DG_F32);
}

/* of weights whose rows are 'far' apart, over few rows and over more */
static void check_weight_grad(int64_t rows, DType type)
{
    Rows dw = rows_new(OUT + 12, DG_F32), x = rows_new(1, type),
         dy = rows_new(1, type);
    const LinearGradArgs a = { .batch = 1,
                               .rows = rows,
                               .in = WIDE,
                               .out = OUT + 12,
                               .ldw = far,
                               .x = place(&x, 0),
                               .dy = place(&dy, 0),
                               .dw = place(&dw, 0) };

    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < a.in; i++)
            put(&x, r * a.in + i, left(i, r));
        for (int64_t o = 0; o < a.out; o++)
            put(&dy, r * a.out + o, right(r, o));
    }
    kernels(type)->linear_grad(&a);
    done();
    for (int64_t o = 0; o < a.out; o++)
        for (int64_t i = 0; i < a.in; i++)
            is(&dw, o * far + i, sum_of(i, o, rows));
    rows_free(&dw);
    rows_free(&x);
    rows_free(&dy);
}

static void test_weight_gradients(void **state)
{
    (void)state;
    if (!is_emulated())
        skip();
    for (int i = 0; i < 4; i++)
        check_weight_grad(i / 2 ? SOME : FEW, i % 2 ? DG_BF16 : DG_F32);
}

/* --- pitches of samples and blocks ------------------------------------------ */

/* Samples of a row each: what belongs to one lies 'far' from the next one's. */
static void check_samples(DType type)
{
    const Backend *be = kernels(type);
    Rows gate = rows_new(MOST / 2, type), sums = rows_new(MOST / 2, type),
         x = rows_new(1, type), y = rows_new(1, type), r = rows_new(1, type);
    const int64_t num = MOST / 2;
    const GateArgs g = { .batch = num,
                         .rows = 1,
                         .width = WIDE,
                         .ld_gate = far,
                         .r = place(&r, 0),
                         .f = place(&x, 0),
                         .gate = place(&gate, 0),
                         .y = place(&y, 0),
                         .dy = place(&x, 0),
                         .dgate = place(&sums, 0) };
    const NormArgs n = { .kind = DG_NORM_RMS,
                         .batch = num,
                         .rows = 1,
                         .width = WIDE,
                         .x = place(&x, 0),
                         .shift = place(&gate, 0),
                         .scale = place(&gate, 0),
                         .ld_mod = far,
                         .y = place(&y, 0) };

    /* x is 1 or -1, which a norm leaves as it is */
    for (int64_t i = 0; i < num * WIDE; i++) {
        put(&x, i, i % 3 ? 1 : -1);
        put(&gate, i / WIDE * far + i % WIDE, (float)(i % 11));
    }
    be->gate(&g);
    be->gate_grad(&g);
    done();
    for (int64_t i = 0; i < num * WIDE; i++) {
        is(&y, i, (float)(i % 11) * (i % 3 ? 1 : -1));
        is(&sums, i / WIDE * far + i % WIDE, 1);
    }
    be->norm(&n);
    done();
    for (int64_t i = 0; i < num * WIDE; i++)
        is(&y, i, (i % 3 ? 1 : -1) * (float)(1 + i % 11) + (float)(i % 11));
    rows_free(&gate);
    rows_free(&sums);
    rows_free(&x);
    rows_free(&y);
    rows_free(&r);
}

/* y = a g of rows 'far' apart, and copies there and back */
static void check_rows(DType type)
{
    const Backend *be = kernels(type);
    const int64_t num = MOST / 2, all = num * WIDE;
    Rows a = rows_new(num, type), y = rows_new(1, type),
         g = rows_new(num, type);
    const CopyArgs there = { .blocks = num,
                             .rows = 1,
                             .width = WIDE,
                             .src_block = WIDE,
                             .src_ld = WIDE,
                             .dst_block = far,
                             .dst_ld = WIDE,
                             .src = place(&y, 0),
                             .dst = place(&a, 0) };
    const CopyArgs back = { .blocks = 1,
                            .rows = num,
                            .width = WIDE,
                            .src_ld = far,
                            .dst_ld = WIDE,
                            .src = place(&g, 0),
                            .dst = place(&y, 0) };
    const GatedArgs gated = { .act = DG_ACT_NONE,
                              .count = WIDE,
                              .rows = num,
                              .ld = far,
                              .a = place(&a, 0),
                              .g = place(&g, 0),
                              .y = place(&y, 0) };

    for (int64_t i = 0; i < all; i++) {
        put(&y, i, (float)(i % 13));
        put(&g, i / WIDE * far + i % WIDE, (float)(i % 5));
    }
    be->copy(&there);
    be->gated(&gated);
    done();
    for (int64_t i = 0; i < all; i++)
        is(&y, i, (float)(i % 13 * (i % 5)));
    be->copy(&back);
    done();
    for (int64_t i = 0; i < all; i++)
        is(&y, i, (float)(i % 5));
    rows_free(&a);
    rows_free(&y);
    rows_free(&g);
}

static void test_pitches(void **state)
{
    (void)state;
    if (!is_emulated())
        skip();
    for (int i = 0; i < 2; i++) {
        check_samples(i ? DG_BF16 : DG_F32);
        check_rows(i ? DG_BF16 : DG_F32);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_products),
    cmocka_unit_test(test_weight_gradients),
    cmocka_unit_test(test_pitches),
};

int main(void)
{
    int failed;

    if (!is_emulated()) /* all skip: a GPU need not begin for it */
        return cmocka_run_group_tests(tests, NULL, NULL);
    setenv("DANCEGRPO_PRODUCTS", "own", 1);
    CUDA_RUN(failed, tests);
    return failed;
}
