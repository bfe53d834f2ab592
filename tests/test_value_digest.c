/* Digests of values: parts add up, any value that differs is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/value_digest.h"

enum { NUM = 5000, FROM = 700 };

static float values[NUM];

/* bits: 16 of them, as weights of 16 bits have, or 32 */
static void draw(int bits)
{
    uint32_t x = 12345;

    for (int i = 0; i < NUM; i++) {
        uint32_t word;

        x = x * 1664525u + 1013904223u;
        word = bits == 16 ? x & 0xffff0000u : x ^ x >> 15;
        memcpy(&values[i], &word, sizeof word);
    }
}

static uint64_t whole(void)
{
    return dg_value_digest(FROM, values, NUM);
}

static void test_parts_add_up(void **state)
{
    (void)state;
    draw(32);
    for (int parts = 1; parts < 40; parts++) {
        uint64_t sum = 0;

        for (int p = parts; p-- > 0;) { /* in any order */
            const int from = NUM * p / parts, end = NUM * (p + 1) / parts;

            sum += dg_value_digest(FROM + from, values + from, end - from);
        }
        assert_true(sum == whole());
    }
}

/* The formula in integers of any length, by Python: checkpoints keep what it gives. */
static void test_it_stays_what_it_is(void **state)
{
    const float few[] = { 1, -2.5f, 0, 3e-5f };

    (void)state;
    assert_true(dg_value_digest(0, few, 4) == 0x5846d3c1e85843fdu);
    assert_true(dg_value_digest(1022, few, 4) == 0x22cf2dde52964245u);
}

static void test_a_difference_is_seen(void **state)
{
    (void)state;
    for (int bits = 16; bits <= 32; bits += 16) {
        draw(bits);
        for (int i = 0; i < NUM; i += 7) {
            const uint64_t before = whole();
            const float kept = values[i], next = values[(i + 1) % NUM];
            uint32_t word;

            for (int bit = 0; bit < 32; bit++) {
                memcpy(&word, &kept, sizeof word);
                word ^= 1u << bit;
                memcpy(&values[i], &word, sizeof word);
                assert_true(whole() != before);
            }
            values[i] = next; /* two change places */
            values[(i + 1) % NUM] = kept;
            assert_true(memcmp(&kept, &next, 4) == 0 || whole() != before);
            values[i] = kept;
            values[(i + 1) % NUM] = next;
            assert_true(whole() == before);
        }
    }
}

/* Blocks that change places, and what is elsewhere. */
static void test_places_count(void **state)
{
    float other[2048];

    (void)state;
    draw(32);
    memcpy(other, values + 1024, sizeof other / 2);
    memcpy(other + 1024, values, sizeof other / 2);
    assert_true(dg_value_digest(0, other, 2048) !=
                dg_value_digest(0, values, 2048));
    assert_true(dg_value_digest(0, values, 2048) !=
                dg_value_digest(1024, values, 2048));
    memset(other, 0, sizeof other);
    assert_true(dg_value_digest(77, other, 2048) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_add_up),
        cmocka_unit_test(test_it_stays_what_it_is),
        cmocka_unit_test(test_a_difference_is_seen),
        cmocka_unit_test(test_places_count),
    };

    return cmocka_run_group_tests_name("value_digest", tests, NULL, NULL);
}
