/* Which block's weights are wanted next, by what followed before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../src/train/pool_internal.h"
#include "nn/param.h"

enum { BLOCKS = 5, OTHERS = 2 };

/* Two networks, of so many blocks. */
static void open_order(PoolOrder *o, ParamSet sets[2])
{
    PoolSet pool[2] = { { .params = &sets[0] }, { .params = &sets[1] } };

    sets[0] = (ParamSet) { .num_groups = BLOCKS };
    sets[1] = (ParamSet) { .num_groups = OTHERS };
    *o = (PoolOrder) { .now = 0 };
    assert_int_equal(dg_pool_order_init(o, pool, 2), 0);
}

/* A walk, how many of whose steps were foreseen. */
static int walk(PoolOrder *o, const int32_t *codes, int num)
{
    int seen = 0;

    for (int i = 0; i < num; i++) {
        seen += codes[i] != o->now && dg_pool_order_guess(o) == codes[i];
        dg_pool_order_note(o, codes[i]);
    }
    return seen;
}

/* Forward, the last block twice, back: nothing is known the first time; then
 * all is, though each block but the ends has two that follow it. */
static void test_forward_and_back_are_known_apart(void **state)
{
    int32_t codes[2 * BLOCKS];
    ParamSet sets[2];
    PoolOrder o;

    (void)state;
    open_order(&o, sets);
    for (int i = 0; i < BLOCKS; i++) {
        codes[i] = dg_pool_code(0, i + 1);
        codes[BLOCKS + i] = dg_pool_code(0, BLOCKS - i);
    }
    assert_int_equal(dg_pool_order_guess(&o), 0);
    assert_int_equal(walk(&o, codes, 2 * BLOCKS), 0);
    /* the first is the last one again; what comes after it is new from there */
    assert_int_equal(walk(&o, codes, 2 * BLOCKS), 2 * BLOCKS - 3);
    assert_int_equal(walk(&o, codes, 2 * BLOCKS), 2 * BLOCKS - 2);
    dg_pool_order_fini(&o);
}

/* Steps through one network, then another: what followed last is guessed. */
static void test_the_last_time_counts(void **state)
{
    const int32_t one = dg_pool_code(0, 1), two = dg_pool_code(0, 2);
    const int32_t a = dg_pool_code(1, 1), b = dg_pool_code(1, 2);
    const int32_t twice[] = { one, two, one, two }, other[] = { a, b };
    ParamSet sets[2];
    PoolOrder o;

    (void)state;
    open_order(&o, sets);
    walk(&o, twice, 4);
    assert_int_equal(dg_pool_order_guess(&o), one);
    walk(&o, other, 2);
    assert_int_equal(dg_pool_order_guess(&o), 0);
    assert_int_equal(walk(&o, twice, 2), 0);
    assert_int_equal(dg_pool_order_guess(&o), a);
    assert_int_equal(walk(&o, other, 2), 2);
    assert_int_equal(dg_pool_order_guess(&o), one);
    dg_pool_order_fini(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_and_back_are_known_apart),
        cmocka_unit_test(test_the_last_time_counts),
    };

    return cmocka_run_group_tests_name("pool_order", tests, NULL, NULL);
}
