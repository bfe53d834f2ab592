#ifndef REF_CHECKS_H
#define REF_CHECKS_H
/*
 * What every backend's kernels have to pass, on the cases of kernel_case.h:
 * the plain double loops agree, finite differences agree, a sample's bits do
 * not depend on its neighbours, sums over samples run in order, NaN stays
 * visible and in its sample, nothing is written outside.
 */
#include "kernel_case.h"

enum { KERNEL_GUARD = 64 }; /* floats before and after each buffer */

typedef struct KernelsUnderTest {
    const Backend *backend;
    int64_t most_samples; /* of the largest batch */
    /* Runs a case elsewhere: raw[slot] holds counts[slot] floats, guards
     * included, and is updated. NULL: runs it on the buffers themselves. */
    void (*run)(const Case *c, int64_t batch, float **raw,
                const int64_t *counts);
} KernelsUnderTest;

/** What the tests below test. */
void kernel_checks_use(const KernelsUnderTest *k);

/** Numbers in -2..2, the same after the same seed. */
void kernel_draws_from(uint64_t seed);
float kernel_draw(void);

/** The same bits when something changes that must not matter, 'what': the order
 *  of threads, where buffers lie. change(0) is called at the end. products 0:
 *  kernels with matrix products are left out. */
void kernel_check_change(void (*change)(int changed), const char *what,
                         int products);

/** How many elements further than aligned slot s of a case lies, which the
 *  runner of a device's cases asks for. */
int kernel_shift(int s);
/** One path over memory, in pieces of 16 bytes, or the other: the same bits. */
void test_addresses_do_not_matter(void **unused);

/* cmocka tests: of KERNEL_CHECKS */
void test_kernels_agree_with_double_loops(void **unused);
void test_samples_do_not_depend_on_neighbours(void **unused);
void test_shared_sums_run_in_order(void **unused);
void test_gradients_agree_with_finite_differences(void **unused);
void test_nan_is_kept_and_stays_in_its_sample(void **unused);

/** Entries of an array of tests. */
#define KERNEL_CHECKS                                                   \
    cmocka_unit_test(test_kernels_agree_with_double_loops),             \
        cmocka_unit_test(test_samples_do_not_depend_on_neighbours),     \
        cmocka_unit_test(test_shared_sums_run_in_order),                \
        cmocka_unit_test(test_gradients_agree_with_finite_differences), \
        cmocka_unit_test(test_nan_is_kept_and_stays_in_its_sample)

#endif
