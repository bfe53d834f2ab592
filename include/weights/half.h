#ifndef DG_WEIGHTS_HALF_H
#define DG_WEIGHTS_HALF_H
/*
 * 16-bit floating point in files: IEEE binary16 (float16) and bfloat16, as
 * bit patterns. Widening is exact. Narrowing rounds to nearest, ties to even;
 * beyond the largest finite value it gives infinity; NaN stays a (quiet) NaN.
 */
#include <stdint.h>

float dg_half_to_float(uint16_t half);
uint16_t dg_half_from_float(float x);

float dg_bfloat_to_float(uint16_t bfloat);
uint16_t dg_bfloat_from_float(float x);

/** num values each; out and in do not overlap. */
void dg_half_widen(float *out, const void *in, int64_t num);
void dg_half_narrow(uint16_t *out, const float *in, int64_t num);
void dg_bfloat_widen(float *out, const void *in, int64_t num);
void dg_bfloat_narrow(uint16_t *out, const float *in, int64_t num);

#endif
