#ifndef DG_BASE_VALUE_RANGE_H
#define DG_BASE_VALUE_RANGE_H
/* Least, greatest and mean of many values, for people to read. */
#include <stdint.h>
#include <stdio.h>

/* Begin with all 0. */
typedef struct ValueRange {
    double least, greatest, sum; /* of the finite ones */
    int64_t finite, not_finite;
} ValueRange;

void dg_value_range_add(ValueRange *r, double x);

/** Prints "    least .., greatest .., mean .." and how many are not finite,
 *  as a line. */
void dg_value_range_print(const ValueRange *r, FILE *out);

#endif
