/*
 * Convolutions of values stored as bfloat16, which tensor cores take where
 * their shape allows: against the double loops of ref_conv.c over the same
 * numbers, in batches cut otherwise, and with threads in the other order. The
 * shapes have ends of patches, of channels and of the parts that channels are
 * split into; which path a shape takes does not show in what is compared.
 */
#include "conv_bed.h"

static const Shape shapes[] = {
    { 9, 6, 24, 40, 1, 1, 1, 1, 0, 3 }, /* two patches, a chunk's half */
    { 1, 1, 8, 8, 1, 1, 1, 1, 0, 3 },
    { 3, 17, 8, 72, 1, 1, 1, 1, 0, 3 }, /* a wide tile, ended */
    { 2, 3, 72, 16, 1, 1, 1, 1, 0, 3 },
    { 2, 2, 144, 8, 1, 1, 1, 1, 0, 3 }, /* parts of unequal size */
    { 2, 2, 8, 136, 1, 1, 1, 1, 0, 3 },
    { 5, 4, 16, 24, 1, 0, 2, 1, 0, 3 },  /* zeros behind alone */
    { 5, 6, 16, 16, 1, 0, 0, 1, 0, 3 },  /* none */
    { 4, 5, 16, 8, 1, 2, 0, 1, 0, 3 },   /* before alone */
    { 9, 18, 24, 16, 2, 1, 1, 1, 0, 3 }, /* every second pixel */
    { 8, 6, 80, 8, 2, 0, 1, 1, 0, 3 },
    { 3, 5, 16, 24, 1, 1, 1, 2, 0, 3 }, /* zoomed */
    { 3, 2, 8, 72, 1, 1, 1, 2, 1, 3 },  /* without last row and column */
    { 3, 4, 8, 8, 2, 1, 1, 2, 0, 3 },
    { 9, 10, 24, 72, 1, 1, 1, 1, 0, 3 }, /* four patches at once */
    { 17, 18, 8, 8, 2, 1, 1, 1, 0, 3 },
    { 5, 6, 16, 8, 1, 1, 1, 2, 0, 3 },
    { 9, 10, 16, 4, 1, 1, 1, 1, 0, 3 }, /* four channels, as of a latent */
    { 5, 7, 24, 16, 1, 0, 0, 1, 0, 1 }, /* pixels alone */
    { 3, 3, 16, 8, 2, 0, 0, 1, 0, 1 },
};

static void test_convolutions_are_the_double_loops(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        kernel_draws_from(40u + i);
        check_loops(&shapes[i], 0,
                    shapes[i].kernel == 3 && shapes[i].out % 8 == 0 ? 1.0
                                                                    : 4.0);
    }
}

/* Places that are not aligned to 16 bytes take the other path. */
static void test_other_places_take_gathered_windows(void **unused)
{
    (void)unused;
    kernel_draws_from(80);
    check_loops(&shapes[0], 8, 4.0);
}

static void test_batch_and_order_do_not_matter(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
        kernel_draws_from(60u + i);
        check_batch(&shapes[i]);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_convolutions_are_the_double_loops),
    cmocka_unit_test(test_other_places_take_gathered_windows),
    cmocka_unit_test(test_batch_and_order_do_not_matter),
};

CUDA_MAIN(tests)
