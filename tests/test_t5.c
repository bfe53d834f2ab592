#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "net_reference.h"

#include <math.h>

/* Edges of the buckets as the formula gives them, in exact integers:
 * bucket 8 + j begins at the first a with a^8 >= 8^8 16^j. */
static void test_bucket_edges(void **state)
{
    int bucket = 8;
    (void)state;

    for (int64_t a = 0; a < 8; a++)
        assert_int_equal(dg_t5_bucket(-a), a);
    for (int64_t a = 8; a < 1000; a++) {
        const double power = 8 * log2((double)a);

        /* exact at the powers of two, far from an integer elsewhere */
        while (bucket < 15 && power >= 24 + 4 * (bucket - 7) - 1e-9)
            bucket++;
        assert_int_equal(dg_t5_bucket(-a), bucket);
        assert_int_equal(dg_t5_bucket(a), bucket + 16);
    }
    for (int64_t a = 1; a < 8; a++)
        assert_int_equal(dg_t5_bucket(a), a + 16);
    assert_int_equal(dg_t5_bucket(90), 30);
    assert_int_equal(dg_t5_bucket(91), 31);
    assert_int_equal(dg_t5_bucket(-511), 15);
}

static void test_forward_matches_reference(void **state)
{
    static const NetReference want = {
        .kind = NET_T5,
        .num_params = 34080,
        .num = 1280,
        .sum = 14.5556,
        .squares = 1260.8637,
        .first = { 0.323561, 0.987090, -0.647625, -0.143489 },
        .last = -0.791697,
    };

    (void)state;
    net_matches(&want);
}

/* A sequence is the same beside a table for another length. */
static void test_lengths_have_tables_of_their_own(void **state)
{
    Context ctx;
    Net n;
    Tensor *y;
    (void)state;

    assert_int_equal(net_create(&n, NET_T5), DG_OK);
    assert_int_equal(dg_t5_prepare(n.t5, 12), DG_OK);
    assert_int_equal(dg_context_init(&ctx, ref_backend(), TINY_ARENA), DG_OK);
    y = dg_t5_forward(n.t5, &ctx, n.ids, 1, T5_TOKENS);
    assert_true(y != NULL && y->dims[1] == T5_TOKENS);
    y = dg_t5_forward(n.t5, &ctx, n.ids, 1, 12);
    assert_true(y != NULL && y->dims[1] == 12);
    dg_context_fini(&ctx);
    net_destroy(&n);
}

static void test_bad_input_is_refused(void **state)
{
    T5Config c = tiny_t5;
    T5Encoder *m = NULL;
    Context ctx;
    Net n;
    (void)state;

    assert_int_equal(net_create(&n, NET_T5), DG_OK);
    assert_int_equal(dg_context_init(&ctx, ref_backend(), TINY_ARENA), DG_OK);
    assert_null(dg_t5_forward(n.t5, &ctx, n.ids, 1, 12));
    assert_int_equal(dg_context_error(&ctx), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "12 tokens"));
    dg_context_reset(&ctx);
    n.ids[3] = 64;
    assert_null(dg_t5_forward(n.t5, &ctx, n.ids, 1, T5_TOKENS));
    assert_int_equal(dg_context_error(&ctx), DG_EINVAL);
    dg_context_fini(&ctx);
    c.relative_attention_num_buckets = 16;
    assert_int_equal(dg_t5_create(&m, &c, &n.set, "x."), DG_EINVAL);
    c = tiny_t5;
    c.relative_attention_max_distance = 256;
    assert_int_equal(dg_t5_create(&m, &c, &n.set, "x."), DG_EINVAL);
    assert_non_null(strstr(dg_last_error()->text, "up to distance 256"));
    assert_int_equal(dg_t5_prepare(n.t5, 0), DG_EINVAL);
    net_destroy(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket_edges),
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_lengths_have_tables_of_their_own),
        cmocka_unit_test(test_bad_input_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
