#ifndef DG_CUDA_CONV_TURN_H
#define DG_CUDA_CONV_TURN_H
/*
 * What is around a library's convolution: weights in its order and gradients of
 * them back in the files', a zoomed map as windows see it and its gradient back,
 * of ONE sample. Maps have channels by 4, and so do weights. Queued on the current
 * stream. Internal to cuda.
 */
#include "device.h"

/** to [out, kernel_h, kernel_w, in] bfloat16 out: a->weight. At most 190 taps. */
void dg_cuda_conv_turn(float *to, const ConvArgs *a);
/** a->dweight += sums [out, kernel_h, kernel_w, in] float32. The same. */
void dg_cuda_conv_turn_back(const float *sums, const ConvArgs *a);

/** to [zoom h - cut_h, zoom w - cut_w, in] out, bfloat16: x, a sample's map. */
void dg_cuda_conv_zoom(float *to, const float *x, const ConvArgs *a);
/** dx, a sample's [h, w, in] bfloat16, becomes, or with a->accumulate gets added,
 *  what sums [zoom h - cut_h, zoom w - cut_w, in] float32 have for its pixels:
 *  rounded once. */
void dg_cuda_conv_pool(float *dx, const float *sums, const ConvArgs *a);

#endif
