#include "mpi_test.h"
#include "base/error.h"
#include "base/philox.h"
#include "parallel/exact_sum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUM = 9001, ITEMS = 24 }; /* not a multiple of anything */

static float *gradient(int item)
{
    float *g = malloc(NUM * sizeof *g);
    const RngKey key = { .seed = 7,
                         .purpose = DG_RNG_TEST,
                         .sample = (uint32_t)item };

    dg_rng_normal(g, 0, NUM, &key);
    for (int i = 0; i < NUM; i++) /* widely different sizes */
        g[i] = ldexpf(g[i], (i * 7 + item * 3) % 24 - 18);
    return g;
}

static void add_item(ExactSum *s, int item)
{
    float *g = gradient(item);

    EXPECT(dg_exact_add(s, g, NULL) == DG_OK);
    free(g);
}

static ExactSum fresh(int exact)
{
    ExactSum s = { 0 };

    EXPECT(dg_exact_init(&s, malloc(dg_exact_bytes(NUM, exact)), NUM, exact,
                         DG_EXACT_SCALE_BITS, ITEMS) == DG_OK);
    return s;
}

/* All items on one rank, in order: what every other way must equal. */
static ExactSum reference(void)
{
    ExactSum s = fresh(1);

    for (int i = 0; i < ITEMS; i++)
        add_item(&s, i);
    return s;
}

static void test_any_order_same_bits(void **state)
{
    ExactSum want = reference(), a = fresh(1), b = fresh(1);
    int32_t order[ITEMS];
    const RngKey key = { .seed = 3, .purpose = DG_RNG_TEST };

    (void)state;
    dg_rng_permutation(order, ITEMS, &key);
    for (int i = 0; i < ITEMS; i++)
        add_item(i % 3 ? &a : &b, order[i]);
    EXPECT(dg_exact_merge(&a, &b) == DG_OK && a.items == ITEMS);
    EXPECT(memcmp(a.fixed, want.fixed, NUM * sizeof *a.fixed) == 0);
    free(want.fixed);
    free(a.fixed);
    free(b.fixed);
    VERDICT();
}

static void test_any_ranks_same_bits(void **state)
{
    ExactSum want = reference(), s = fresh(1);
    float *x = malloc(NUM * sizeof *x), *y = malloc(NUM * sizeof *y);
    int64_t first, num;

    (void)state;
    dg_share_range(ITEMS, comm.rank, comm.size, &first, &num);
    for (int64_t i = first + num - 1; i >= first; i--)
        add_item(&s, (int)i);
    EXPECT(dg_exact_allreduce(&comm, &s) == DG_OK && s.items == ITEMS);
    EXPECT(memcmp(s.fixed, want.fixed, NUM * sizeof *s.fixed) == 0);
    dg_exact_read(&s, x, 3.0);
    dg_exact_read(&want, y, 3.0);
    EXPECT(memcmp(x, y, NUM * sizeof *x) == 0);
    free(x);
    free(y);
    free(s.fixed);
    free(want.fixed);
    VERDICT();
}

/* Each of the items is rounded by at most half a unit of 2^-40, the mean
   once more to float32. */
static void test_mean_matches_double(void **state)
{
    ExactSum s = reference();
    double *want = calloc(NUM, sizeof *want);
    float *got = malloc(NUM * sizeof *got);

    (void)state;
    for (int item = 0; item < ITEMS; item++) {
        float *g = gradient(item);

        for (int i = 0; i < NUM; i++)
            want[i] += (double)g[i] / ITEMS;
        free(g);
    }
    dg_exact_read(&s, got, ITEMS);
    for (int i = 0; i < NUM; i++)
        EXPECT(fabs(got[i] - want[i]) <=
               0.5 * ldexp(1.0, -40) + 1e-7 * fabs(want[i]));
    free(got);
    free(want);
    free(s.fixed);
    VERDICT();
}

static void test_rounding_is_to_even(void **state)
{
    const float unit = ldexpf(1.0F, -8);
    const float g[] = { 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 0.75F, -0.25F };
    const int64_t want[] = { 0, 2, 2, 0, -2, 1, 0 };
    float scaled[7];
    int64_t buffer[7];
    ExactSum s;

    (void)state;
    for (int i = 0; i < 7; i++)
        scaled[i] = g[i] * unit;
    EXPECT(dg_exact_init(&s, buffer, 7, 1, 8, 1) == DG_OK);
    EXPECT(dg_exact_add(&s, scaled, NULL) == DG_OK);
    EXPECT(memcmp(buffer, want, sizeof want) == 0);
    VERDICT();
}

static void test_bad_elements_are_named(void **state)
{
    ExactSum s = fresh(1), before = reference();
    float *g = gradient(0);
    const float values[] = { NAN, -INFINITY, s.limit * 1.0001F, -1e30F };
    int64_t bad = 0;

    (void)state;
    memcpy(s.fixed, before.fixed, NUM * sizeof *s.fixed);
    for (int i = 0; i < 4; i++) {
        const float kept5 = g[8500], kept = g[4097 + i];

        g[8500] = NAN;
        g[4097 + i] = values[i];
        EXPECT(dg_exact_add(&s, g, &bad) == DG_ENUMERIC);
        EXPECT(bad == 4097 + i);
        g[8500] = kept5;
        g[4097 + i] = kept;
    }
    EXPECT(memcmp(s.fixed, before.fixed, NUM * sizeof *s.fixed) == 0);
    EXPECT(dg_exact_add(&s, g, &bad) == DG_OK && bad == -1);
    free(g);
    free(s.fixed);
    free(before.fixed);
    VERDICT();
}

/* The largest gradients allowed, as many as announced: no wrap-around. */
static void test_limit_cannot_wrap(void **state)
{
    int64_t sum[2];
    ExactSum s;

    (void)state;
    for (int64_t items = 1; items < 40; items += 3) {
        EXPECT(dg_exact_init(&s, sum, 2, 1, 40, items) == DG_OK);
        const float g[2] = { s.limit, -s.limit };
        int64_t one = 0;

        for (int64_t i = 0; i < items; i++) {
            EXPECT(dg_exact_add(&s, g, NULL) == DG_OK);
            one = i == 0 ? sum[0] : one;
        }
        EXPECT(sum[0] == items * one && sum[1] == -sum[0]);
        EXPECT(sum[0] > 0 && sum[0] <= (int64_t)1 << 62);
        EXPECT(dg_exact_add(&s, g, NULL) == DG_EINVAL);
    }
    VERDICT();
}

static void test_plain_sum_is_close(void **state)
{
    ExactSum exact = reference(), s = fresh(0);
    float *x = malloc(NUM * sizeof *x), *y = malloc(NUM * sizeof *y);
    int64_t first, num;

    (void)state;
    dg_share_range(ITEMS, comm.rank, comm.size, &first, &num);
    for (int64_t i = first; i < first + num; i++)
        add_item(&s, (int)i);
    EXPECT(dg_exact_allreduce(&comm, &s) == DG_OK);
    dg_exact_read(&s, x, 1.0);
    dg_exact_read(&exact, y, 1.0);
    for (int i = 0; i < NUM; i++) /* 24 float roundings of sums below 64 */
        EXPECT(fabsf(x[i] - y[i]) <= 24 * 64 * 6e-8F);
    free(x);
    free(y);
    free(s.plain);
    free(exact.fixed);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_any_order_same_bits),
    cmocka_unit_test(test_any_ranks_same_bits),
    cmocka_unit_test(test_mean_matches_double),
    cmocka_unit_test(test_rounding_is_to_even),
    cmocka_unit_test(test_bad_elements_are_named),
    cmocka_unit_test(test_limit_cannot_wrap),
    cmocka_unit_test(test_plain_sum_is_close),
};

MPI_MAIN(mpi_exact_sum, tests)
