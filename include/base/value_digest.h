#ifndef DG_BASE_VALUE_DIGEST_H
#define DG_BASE_VALUE_DIGEST_H
/*
 * A digest of many float32 values that costs little more than to look at them, and
 * of which parts add up: however an array is shared out, the sum over its parts is
 * the same. It tells files apart that are not what they should be, not those that
 * somebody has made alike on purpose.
 *
 *   digest = sum over i of m(i / 1024) k(i mod 1024) y(x_i)   (mod 2^64)
 *
 * y       the bits of a value, its upper half folded into its lower one
 * k, m    fixed odd numbers of 32 and 64 random bits
 * Two arrays that differ in one value never have the same; +0 adds nothing, so that
 * padding does not count. Source: multilinear hashing, Lemire and
 * Kaser, "Strongly universal string hashing is fast", 2014.
 */
#include <stdint.h>

/** The part of values [num], of which the first is the array's number first >= 0.
 *  Not collective. Cannot fail. */
uint64_t dg_value_digest(int64_t first, const float *values, int64_t num);

#endif
