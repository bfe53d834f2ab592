/*
 * Attention of bfloat16 on tensor cores against plain loops in double from the
 * same stored values.
 */
#include "attention_bed.h"
#include "cuda/attention_mma.h"
#include "cuda_test.h"

static const Attention own = { dg_cuda_attention_mma,
                               dg_cuda_attention_mma_grad };

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
        check_attention(&own, &cases[i]);
    if (cuda_emulation_order == NULL)
        check_attention(&own, &tall);
}

/* GPUs with 99 KB of shared memory for a block */
static void test_little_shared_memory_will_do(void **state)
{
    static const Case cases[] = { { 1, 3, 128, 100, 35, 0, 0 },
                                  { 1, 3, 160, 20, 33, 0, 0 } };

    (void)state;
    setenv("CUDA_EMULATION_SHARED", "101376", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_attention(&own, &cases[i]);
    unsetenv("CUDA_EMULATION_SHARED");
}

static void test_neighbours_and_order_do_not_matter(void **state)
{
    static const Case cases[] = { { 2, 2, 64, 70, 65, 0, 0 },
                                  { 2, 3, 128, 34, 65, 0, 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare_alone(&own, &cases[i]);
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
