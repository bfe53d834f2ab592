#ifndef DG_CUDA_CONV_MMA_H
#define DG_CUDA_CONV_MMA_H
/*
 * Convolutions of 3 x 3 taps of values stored as bfloat16, on tensor cores,
 * without gathered windows. What a block reads of the map lies in shared memory
 * once and is seen by all nine taps; weights are read as they stand, tap within
 * channel. Sums are float32. A result's products follow in an order that one
 * sample's sizes settle, so its bits do not depend on the batch. Queued on the
 * current stream. Internal to cuda.
 */
#include "device.h"

/** Bytes of ConvArgs.scratch that the three ask for; by one sample's sizes. */
size_t dg_cuda_conv_mma_scratch(const ConvArgs *a);

/**
 * Twins of dg_cuda_conv(), dg_cuda_conv_input_grad() and of the weights' part
 * of dg_cuda_conv_weight_grad(). Each returns 1, or 0 with nothing done where
 * it is not made for the arguments: other kernels than 3 x 3, strides beyond
 * 2, channels that are no multiple of 8, places not aligned to 16 bytes.
 */
int dg_cuda_conv_mma(const ConvArgs *a);
int dg_cuda_conv_mma_input_grad(const ConvArgs *a);

#endif
