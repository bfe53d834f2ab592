#ifndef DG_CPU_CONV_RATE_H
#define DG_CPU_CONV_RATE_H
/*
 * The library's own convolution of channels-last maps on the calling thread,
 * nothing around it: operands and weights in the order it likes best, made
 * beforehand. For the bench.
 */
#include "tensor/backend.h"

/** way  0 forward, 1 gradient of the input, 2 of weight and bias; the sizes of
 *  a are looked at, its batch is 1, zoom 1. Errors: DG_ENOMEM. */
int dg_cpu_conv_bare_create(void **out, const ConvArgs *a, int way);
void dg_cpu_conv_bare_run(const void *conv);
void dg_cpu_conv_bare_destroy(void *conv);

#endif
