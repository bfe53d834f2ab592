#include "weights/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* Value of a half by its definition, in double. */
static double value_of(uint16_t h)
{
    const int e = h >> 10 & 31, m = h & 1023;
    const double size = e == 31  ? (m ? (double)NAN : (double)INFINITY)
                        : e == 0 ? ldexp(m, -24)
                                 : ldexp(1024 + m, e - 25);

    return h & 0x8000 ? -size : size;
}

static void test_half_widens_all_patterns(void **state)
{
    (void)state;
    for (int h = 0; h < 65536; h++) {
        const float got = dg_half_to_float((uint16_t)h);
        const double want = value_of((uint16_t)h);

        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(dg_half_from_float(got) == (h | 0x200));
            continue;
        }
        assert_true((double)got == want && !signbit(got) == !(h & 0x8000));
        assert_int_equal(dg_half_from_float(got), h);
    }
}

/* Around the midpoint of every pair of neighbours: below it down, above it
   up, on it to the even one. */
static void test_half_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int h = 0; h < 0x7c00; h++) {
        const double low = value_of((uint16_t)h);
        const double high = h == 0x7bff ? 65536.0 : value_of((uint16_t)(h + 1));
        const float middle = (float)((low + high) / 2); /* exact */
        const int even = h & 1 ? h + 1 : h;

        assert_int_equal(dg_half_from_float(middle), even);
        assert_int_equal(dg_half_from_float(nextafterf(middle, 0)), h);
        assert_int_equal(dg_half_from_float(nextafterf(middle, 1e9F)), h + 1);
        assert_int_equal(dg_half_from_float(-middle), even | 0x8000);
    }
}

static void test_half_ends_of_range(void **state)
{
    (void)state;
    assert_int_equal(dg_half_from_float(65504.0F), 0x7bff);
    assert_int_equal(dg_half_from_float(65520.0F), 0x7c00);
    assert_int_equal(dg_half_from_float(1e30F), 0x7c00);
    assert_int_equal(dg_half_from_float(-INFINITY), 0xfc00);
    assert_int_equal(dg_half_from_float(1e-30F), 0);
    assert_int_equal(dg_half_from_float(-1e-45F), 0x8000);
    assert_true(isnan(dg_half_to_float(dg_half_from_float(NAN))));
}

static void test_bfloat_all_patterns(void **state)
{
    (void)state;
    for (int h = 0; h < 65536; h++) {
        const float x = dg_bfloat_to_float((uint16_t)h);
        uint32_t u = (uint32_t)h << 16 | 0x8000U; /* the midpoint */
        float middle;

        if (isnan(x)) {
            assert_true(isnan(dg_bfloat_to_float(dg_bfloat_from_float(x))));
            continue;
        }
        assert_int_equal(dg_bfloat_from_float(x), h);
        if (isinf(x))
            continue;
        memcpy(&middle, &u, sizeof u);
        assert_int_equal(dg_bfloat_from_float(middle), h & 1 ? h + 1 : h);
        u++;
        memcpy(&middle, &u, sizeof u);
        assert_int_equal(dg_bfloat_from_float(middle), h + 1);
    }
}

static void test_half_arrays_agree(void **state)
{
    uint16_t in[9] = { 0, 1, 0x3c00, 0x7bff, 0x8001, 0xbc00, 2, 3, 0x555 };
    uint16_t back[10];
    float wide[10];

    (void)state;
    wide[9] = 5.0F;
    back[9] = 77;
    dg_half_widen(wide, in, 9);
    dg_half_narrow(back, wide, 9);
    assert_memory_equal(in, back, sizeof in);
    assert_true(wide[9] == 5.0F && back[9] == 77);
    dg_bfloat_widen(wide, in, 9);
    for (int i = 0; i < 9; i++)
        assert_true(wide[i] == dg_bfloat_to_float(in[i]));
    dg_bfloat_narrow(back, wide, 9);
    assert_memory_equal(in, back, sizeof in);
    assert_true(wide[9] == 5.0F && back[9] == 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_widens_all_patterns),
        cmocka_unit_test(test_half_rounds_to_nearest_even),
        cmocka_unit_test(test_half_ends_of_range),
        cmocka_unit_test(test_bfloat_all_patterns),
        cmocka_unit_test(test_half_arrays_agree),
    };

    return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}
