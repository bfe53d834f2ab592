/*
 * Attention of bfloat16 on tensor cores against plain loops in double from the
 * same stored values.
 *
 * Tolerances. A weight is rounded to bfloat16 before it is multiplied, by 2^-8
 * of itself at most, and so is a result: an output, a sum of w x, is off by at
 * most 2^-8 sum |w x| + 2^-8 |sum w x| <= 2^-7 sum |w x|. Float32's share is
 * below a hundredth of that, and below 1e-5 where terms cancel.
 */
#include "base/error.h"
#include "base/float_bits.h"
#include "base/philox.h"
#include "cuda/attention_mma.h"
#include "cuda/cuda.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* of the emulation */
void cuda_emulation_order(int reversed) __attribute__((weak));

static const double rounding = 1.01 / 128, small = 1e-5;

enum { Q, K, V, O, DO, DQ, DK, DV, ARRAYS };

typedef struct Case {
    int64_t batch, heads, d, sq, sk;
    int causal, steep; /* steep: scores that many times as large; 0: once */
} Case;

typedef struct Bed {
    Case c;
    int64_t count[ARRAYS];
    uint16_t *host[ARRAYS];
    void *at[ARRAYS];
    float *lse, *lse_at;
    AttentionArgs args;
} Bed;

static float widened(uint16_t x)
{
    return dg_float_of_bits((uint32_t)x << 16);
}

static uint16_t narrowed(float x)
{
    return (uint16_t)(dg_bits_of_float(dg_round_bf16(x)) >> 16);
}

static void must(int err)
{
    if (err != DG_OK)
        fail_msg("%s", dg_last_error()->text);
}

static void fill(uint16_t *to, int64_t num, uint32_t step)
{
    const RngKey key = { .seed = 7, .purpose = DG_RNG_TEST, .step = step };
    float *x = malloc((size_t)num * sizeof *x);

    assert_non_null(x);
    dg_rng_normal(x, 0, num, &key);
    for (int64_t i = 0; i < num; i++)
        to[i] = narrowed(x[i]);
    free(x);
}

static int64_t rows_of(const Bed *b)
{
    return b->c.batch * b->c.heads * b->c.sq;
}

static void open_bed(Bed *b, const Case *c)
{
    memset(b, 0, sizeof *b);
    b->c = *c;
    for (int i = 0; i < ARRAYS; i++) {
        const int of_keys = i == K || i == V || i == DK || i == DV;

        b->count[i] = c->batch * (of_keys ? c->sk : c->sq) * c->heads * c->d;
        b->host[i] = malloc((size_t)b->count[i] * 2);
        assert_non_null(b->host[i]);
        must(dg_cuda_alloc(&b->at[i], (size_t)b->count[i] * 2));
        if (i == Q || i == K || i == V || i == DO) {
            fill(b->host[i], b->count[i], (uint32_t)i);
            dg_cuda_stage_up(b->at[i], b->host[i], (size_t)b->count[i] * 2);
        }
    }
    b->lse = malloc((size_t)rows_of(b) * sizeof *b->lse);
    must(dg_cuda_alloc((void **)&b->lse_at, (size_t)rows_of(b) * 4));
    b->args = (AttentionArgs) {
        .batch = c->batch,
        .heads = c->heads,
        .d = c->d,
        .sq = c->sq,
        .sk = c->sk,
        .scale = (float)(c->steep ? c->steep : 1) / sqrtf((float)c->d),
        .causal = c->causal,
        .q = b->at[Q],
        .k = b->at[K],
        .v = b->at[V],
        .o = b->at[O],
        .lse = b->lse_at,
        .d_o = b->at[DO],
        .dq = b->at[DQ],
        .dk = b->at[DK],
        .dv = b->at[DV],
    };
    must(dg_cuda_wait());
}

static void fetch(Bed *b)
{
    for (int i = 0; i < ARRAYS; i++)
        dg_cuda_download(b->host[i], b->at[i], (size_t)b->count[i] * 2);
    dg_cuda_download(b->lse, b->lse_at, (size_t)rows_of(b) * 4);
    must(dg_cuda_wait());
}

static void close_bed(Bed *b)
{
    for (int i = 0; i < ARRAYS; i++) {
        free(b->host[i]);
        dg_cuda_free(b->at[i]);
    }
    free(b->lse);
    dg_cuda_free(b->lse_at);
}

/* element l of row i of array 'which', of a head */
static double at(const Bed *b, int which, int64_t s, int64_t n, int64_t h,
                 int64_t i, int64_t l)
{
    const Case *c = &b->c;

    return (double)widened(
        b->host[which][((n * s + i) * c->heads + h) * c->d + l]);
}

/* One head of one sample, in double. */
typedef struct Head {
    double *p, *ds; /* [sq, sk] weights, and their share of the gradient */
    double *lse;    /* [sq] */
} Head;

static void open_head(Head *w, const Bed *b, int64_t n, int64_t h)
{
    const Case *c = &b->c;

    w->p = calloc((size_t)(c->sq * c->sk), sizeof(double));
    w->ds = calloc((size_t)(c->sq * c->sk), sizeof(double));
    w->lse = calloc((size_t)c->sq, sizeof(double));
    for (int64_t i = 0; i < c->sq; i++) {
        const int64_t keys = c->causal && i + 1 < c->sk ? i + 1 : c->sk;
        double sum = 0, delta = 0;

        for (int64_t j = 0; j < keys; j++) {
            double s = 0;

            for (int64_t l = 0; l < c->d; l++)
                s += at(b, Q, c->sq, n, h, i, l) * at(b, K, c->sk, n, h, j, l);
            w->p[i * c->sk + j] = exp(s * (double)b->args.scale);
            sum += w->p[i * c->sk + j];
        }
        w->lse[i] = log(sum);
        for (int64_t l = 0; l < c->d; l++)
            delta += at(b, O, c->sq, n, h, i, l) * at(b, DO, c->sq, n, h, i, l);
        for (int64_t j = 0; j < keys; j++) {
            double dp = 0;

            for (int64_t l = 0; l < c->d; l++)
                dp +=
                    at(b, DO, c->sq, n, h, i, l) * at(b, V, c->sk, n, h, j, l);
            w->p[i * c->sk + j] /= sum;
            w->ds[i * c->sk + j] = w->p[i * c->sk + j] * (dp - delta);
        }
    }
}

static void near(const Bed *b, int which, double got, double want, double most)
{
    static const char *const names[] = { "q",  "k",  "v",  "o",
                                         "do", "dq", "dk", "dv" };

    if (!(fabs(got - want) <= rounding * most + small))
        fail_msg("%s (d %lld, %lld queries, %lld keys): %.9g, should be %.9g "
                 "within %.3g",
                 names[which], (long long)b->c.d, (long long)b->c.sq,
                 (long long)b->c.sk, got, want, rounding * most + small);
}

/* sum over the other index of w x, x an element of row 'other' */
static void check_sum(const Bed *b, int which, const double *w, double scale,
                      int64_t n, int64_t h)
{
    const Case *c = &b->c;
    const int over_keys = which == O || which == DQ;
    const int x = which == O ? V : which == DQ ? K : which == DK ? Q : DO;
    const int64_t rows = over_keys ? c->sq : c->sk;
    const int64_t others = over_keys ? c->sk : c->sq;

    for (int64_t r = 0; r < rows; r++)
        for (int64_t l = 0; l < c->d; l++) {
            double sum = 0, most = 0;

            for (int64_t o = 0; o < others; o++) {
                const double term =
                    scale * w[over_keys ? r * c->sk + o : o * c->sk + r] *
                    at(b, x, others, n, h, o, l);

                sum += term;
                most += fabs(term);
            }
            near(b, which, at(b, which, rows, n, h, r, l), sum, most);
        }
}

static void check(const Case *c)
{
    Bed b;

    open_bed(&b, c);
    assert_int_equal(dg_cuda_attention_mma(&b.args), 1);
    assert_int_equal(dg_cuda_attention_mma_grad(&b.args), 1);
    fetch(&b);
    for (int64_t n = 0; n < c->batch; n++)
        for (int64_t h = 0; h < c->heads; h++) {
            const float *lse = b.lse + (n * c->heads + h) * c->sq;
            Head w;

            open_head(&w, &b, n, h);
            for (int64_t i = 0; i < c->sq; i++)
                assert_true(fabs((double)lse[i] - w.lse[i]) < 2e-5);
            check_sum(&b, O, w.p, 1, n, h);
            check_sum(&b, DV, w.p, 1, n, h);
            check_sum(&b, DQ, w.ds, (double)b.args.scale, n, h);
            check_sum(&b, DK, w.ds, (double)b.args.scale, n, h);
            free(w.p);
            free(w.ds);
            free(w.lse);
        }
    close_bed(&b);
}

/* Every padding of d, tails of queries and keys, a single key; blocks of 64
 * rows and, of three tiles and more, of 128; scores so steep that later keys
 * outgrow what was summed. */
static void test_as_loops_in_double(void **state)
{
    static const Case cases[] = {
        { 1, 2, 64, 70, 70, 0, 0 },   { 2, 1, 40, 33, 100, 0, 0 },
        { 1, 1, 128, 65, 67, 0, 6 },  { 1, 1, 80, 64, 64, 1, 0 },
        { 1, 1, 160, 20, 63, 0, 0 },  { 1, 3, 8, 1, 1, 0, 0 },
        { 1, 1, 24, 97, 97, 1, 0 },   { 1, 3, 128, 100, 35, 0, 0 },
        { 1, 2, 64, 130, 131, 1, 6 }, { 1, 3, 80, 34, 66, 0, 0 },
        { 1, 1, 16, 20, 150, 1, 0 },  { 1, 1, 16, 100, 20, 1, 0 },
    };
    /* a GPU's blocks of 128 rows want so many tiles */
    static const Case tall = { 1, 66, 128, 130, 40, 0, 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i]);
    if (cuda_emulation_order == NULL)
        check(&tall);
}

/* GPUs with 99 KB of shared memory for a block */
static void test_little_shared_memory_will_do(void **state)
{
    static const Case cases[] = { { 1, 3, 128, 100, 35, 0, 0 },
                                  { 1, 3, 160, 20, 33, 0, 0 } };

    (void)state;
    setenv("CUDA_EMULATION_SHARED", "101376", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(&cases[i]);
    unsetenv("CUDA_EMULATION_SHARED");
}

/* A sample alone, and blocks and threads in the other order: the same bits. */
static void compare_alone(const Case *c)
{
    uint16_t *kept[ARRAYS];
    float *lse;
    Bed b;

    open_bed(&b, c);
    dg_cuda_attention_mma(&b.args);
    dg_cuda_attention_mma_grad(&b.args);
    fetch(&b);
    for (int i = 0; i < ARRAYS; i++) {
        kept[i] = malloc((size_t)b.count[i] * 2);
        memcpy(kept[i], b.host[i], (size_t)b.count[i] * 2);
        if (i == O || i > DO) /* poisoned: all of it is written again */
            dg_cuda_stage_up(b.at[i], b.host[Q], (size_t)b.count[i]);
    }
    lse = malloc((size_t)rows_of(&b) * 4);
    memcpy(lse, b.lse, (size_t)rows_of(&b) * 4);
    must(dg_cuda_wait());
    if (cuda_emulation_order != NULL)
        cuda_emulation_order(1);
    for (int n = 0; n < 2; n++) {
        const int64_t q = n * b.count[Q] / 2, k = n * b.count[K] / 2;
        AttentionArgs one = b.args;

#define MOVED(name, which, by) one.name = (void *)((uint16_t *)b.at[which] + by)
        MOVED(q, Q, q);
        MOVED(o, O, q);
        MOVED(d_o, DO, q);
        MOVED(dq, DQ, q);
        MOVED(k, K, k);
        MOVED(v, V, k);
        MOVED(dk, DK, k);
        MOVED(dv, DV, k);
#undef MOVED
        one.batch = 1;
        one.lse += n * rows_of(&b) / 2;
        dg_cuda_attention_mma(&one);
        dg_cuda_attention_mma_grad(&one);
    }
    if (cuda_emulation_order != NULL)
        cuda_emulation_order(0);
    fetch(&b);
    for (int i = 0; i < ARRAYS; i++) {
        assert_memory_equal(kept[i], b.host[i], (size_t)b.count[i] * 2);
        free(kept[i]);
    }
    assert_memory_equal(lse, b.lse, (size_t)rows_of(&b) * 4);
    free(lse);
    close_bed(&b);
}

static void test_neighbours_and_order_do_not_matter(void **state)
{
    static const Case cases[] = { { 2, 2, 64, 70, 65, 0, 0 },
                                  { 2, 3, 128, 34, 65, 0, 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare_alone(&cases[i]);
}

/* Another query, so steep towards a late key that its sums are scaled anew: no
 * other query's bits change. */
static void test_query_is_its_own(void **state)
{
    static const Case c = { 1, 1, 64, 40, 131, 0, 3 };
    const int64_t row = 3, key = 100;
    uint16_t *first;
    Bed b;

    (void)state;
    open_bed(&b, &c);
    dg_cuda_attention_mma(&b.args);
    fetch(&b);
    first = malloc((size_t)b.count[O] * 2);
    assert_non_null(first);
    memcpy(first, b.host[O], (size_t)b.count[O] * 2);
    for (int64_t l = 0; l < c.d; l++)
        b.host[Q][row * c.d + l] = b.host[K][key * c.d + l];
    dg_cuda_stage_up(b.at[Q], b.host[Q], (size_t)b.count[Q] * 2);
    dg_cuda_attention_mma(&b.args);
    fetch(&b);
    for (int64_t i = 0; i < b.count[O]; i++)
        if (i / c.d != row)
            assert_int_equal(first[i], b.host[O][i]);
    assert_memory_not_equal(first + row * c.d, b.host[O] + row * c.d,
                            (size_t)c.d * 2);
    free(first);
    close_bed(&b);
}

/* A NaN is in what sees it, and nowhere else. */
static void test_nan_is_not_lost(void **state)
{
    static const Case c = { 1, 2, 16, 20, 20, 0, 0 };
    Bed b;

    (void)state;
    open_bed(&b, &c);
    b.host[K][3 * 2 * 16] = 0x7fc0; /* key 3 of head 0 */
    dg_cuda_stage_up(b.at[K], b.host[K], (size_t)b.count[K] * 2);
    dg_cuda_attention_mma(&b.args);
    fetch(&b);
    for (int64_t i = 0; i < 20; i++)
        for (int64_t l = 0; l < 16; l++) {
            assert_true(isnan(at(&b, O, 20, 0, 0, i, l)));
            assert_false(isnan(at(&b, O, 20, 0, 1, i, l)));
        }
    close_bed(&b);
}

static void test_what_it_is_not_made_for_is_left_alone(void **state)
{
    static const Case c = { 1, 1, 16, 4, 4, 0, 0 };
    AttentionArgs a;
    Bed b;

    (void)state;
    open_bed(&b, &c);
    a = b.args;
    a.d = 12;
    assert_int_equal(dg_cuda_attention_mma(&a), 0);
    a.d = 168;
    assert_int_equal(dg_cuda_attention_mma_grad(&a), 0);
    a = b.args;
    a.bias = (const float *)b.at[Q];
    assert_int_equal(dg_cuda_attention_mma(&a), 0);
    a = b.args;
    a.k = (const float *)((const char *)a.k + 4);
    assert_int_equal(dg_cuda_attention_mma(&a), 0);
    a = b.args;
    a.sq = (int64_t)1 << 23;
    assert_int_equal(dg_cuda_attention_mma_grad(&a), 0);
    must(dg_cuda_wait());
    close_bed(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_as_loops_in_double),
    cmocka_unit_test(test_little_shared_memory_will_do),
    cmocka_unit_test(test_neighbours_and_order_do_not_matter),
    cmocka_unit_test(test_query_is_its_own),
    cmocka_unit_test(test_nan_is_not_lost),
    cmocka_unit_test(test_what_it_is_not_made_for_is_left_alone),
};

CUDA_MAIN(tests)
