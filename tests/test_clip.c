#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "net_reference.h"

static void test_forward_matches_reference(void **state)
{
    static const NetReference want = {
        .kind = NET_CLIP,
        .num_params = 31136,
        .num = 2464,
        .sum = 62.5839,
        .squares = 2456.4909,
        .first = { 0.860949, 0.094365, -0.701554, -0.140513 },
        .last = 1.416911,
        .pooled = { 0.365461, -0.331594 },
    };

    (void)state;
    net_matches(&want);
}

/* The first of the end tokens: row 5 of one sample, row 30 of the other. */
static void test_pooled_row_is_first_end_token(void **state)
{
    const RunOpts o = { .backend = ref_backend(), .count = 2 };
    Net n;
    Run *r;
    (void)state;

    assert_int_equal(net_create(&n, NET_CLIP), DG_OK);
    dg_params_fill_golden(&n.set, net_prefix(&n));
    r = run_create(&n);
    assert_int_equal(net_run(&n, &o, r), DG_OK);
    assert_memory_equal(r->pooled, r->y + 5 * 32, 32 * sizeof(float));
    assert_memory_equal(r->pooled + 32, r->y + (77 + 30) * 32,
                        32 * sizeof(float));
    run_destroy(r);
    net_destroy(&n);
}

/* Causal: what comes later does not change a row. */
static void test_rows_do_not_see_later_tokens(void **state)
{
    const RunOpts o = { .backend = dg_backend_cpu(), .count = 1 };
    Net n;
    Run *a, *b;
    (void)state;

    assert_int_equal(net_create(&n, NET_CLIP), DG_OK);
    dg_params_fill_golden(&n.set, net_prefix(&n));
    a = run_create(&n);
    b = run_create(&n);
    assert_int_equal(net_run(&n, &o, a), DG_OK);
    n.ids[20] = 3;
    assert_int_equal(net_run(&n, &o, b), DG_OK);
    assert_memory_equal(a->y, b->y, 20 * 32 * sizeof(float));
    assert_memory_not_equal(a->y + 20 * 32, b->y + 20 * 32, 32 * sizeof(float));
    run_destroy(a);
    run_destroy(b);
    net_destroy(&n);
}

static void test_bad_input_is_refused(void **state)
{
    ClipTextConfig c = tiny_clip;
    ClipText *m = NULL;
    Context ctx;
    Net n;
    (void)state;

    assert_int_equal(net_create(&n, NET_CLIP), DG_OK);
    assert_int_equal(dg_context_init(&ctx, ref_backend(), TINY_ARENA), DG_OK);
    assert_null(dg_clip_forward(n.clip, &ctx, n.ids, 1, 78, NULL));
    assert_int_equal(dg_context_error(&ctx), DG_EINVAL);
    dg_context_reset(&ctx);
    n.ids[3] = -1;
    assert_null(dg_clip_forward(n.clip, &ctx, n.ids, 1, 77, NULL));
    assert_int_equal(dg_context_error(&ctx), DG_EINVAL);
    dg_context_fini(&ctx);
    c.num_attention_heads = 5;
    assert_int_equal(dg_clip_create(&m, &c, &n.set, "x."), DG_EINVAL);
    net_destroy(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_matches_reference),
        cmocka_unit_test(test_pooled_row_is_first_end_token),
        cmocka_unit_test(test_rows_do_not_see_later_tokens),
        cmocka_unit_test(test_bad_input_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
