/*
 * What tests of attention of bfloat16 share: a place for its arrays, plain loops
 * in double over the same stored values, samples compared with themselves
 * alone.
 *
 * Tolerances. A weight is rounded to bfloat16 before it is multiplied, by 2^-8
 * of itself at most, and so is a result: an output, a sum of w x, is off by at
 * most 2^-8 sum |w x| + 2^-8 |sum w x| <= 2^-7 sum |w x|. Float32's share is
 * below a hundredth of that, and below 1e-5 where terms cancel.
 */
#ifndef DG_TESTS_ATTENTION_BED_H
#define DG_TESTS_ATTENTION_BED_H
#include "base/error.h"
#include "base/float_bits.h"
#include "base/philox.h"
#include "cuda/cuda.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* whose it is: both return 1 where they have it */
typedef struct Attention {
    int (*forward)(const AttentionArgs *a);
    int (*backward)(const AttentionArgs *a);
} Attention;

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

static inline float widened(uint16_t x)
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

static void check_attention(const Attention *its, const Case *c)
{
    Bed b;

    open_bed(&b, c);
    assert_int_equal(its->forward(&b.args), 1);
    assert_int_equal(its->backward(&b.args), 1);
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

/* A sample alone, and blocks and threads in the other order: the same bits. */
static void compare_alone(const Attention *its, const Case *c)
{
    uint16_t *kept[ARRAYS];
    float *lse;
    Bed b;

    open_bed(&b, c);
    its->forward(&b.args);
    its->backward(&b.args);
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
        its->forward(&one);
        its->backward(&one);
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

#endif
