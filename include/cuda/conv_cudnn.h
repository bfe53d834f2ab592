#ifndef DG_CUDA_CONV_CUDNN_H
#define DG_CUDA_CONV_CUDNN_H
/*
 * Convolutions of values stored as bfloat16 by cuDNN, in place of cuda's own
 * kernels, where a run asks for it (run.convolution). Queued on the current
 * stream. Not collective.
 *
 * The library is asked for one sample's shape when that comes first, forward and
 * each gradient by themselves, and never while a step is captured; each sample is
 * a call of its own, so that a batch does not show in its bits. Sums are float32
 * and split by nobody; weights' gradients are added as float32, sample after
 * sample. What it has no plan for has own kernels, by the shape alone; the log
 * says which, once. One tap at each pixel is a product, cuBLASLt's in any case.
 * Side streams, which nobody gives convolutions of bfloat16, have own kernels.
 */
#include "cuda/cuda.h"
#include "cuda/cudnn_room.h"

/**
 * From now on s asks cuDNN first. version [bytes] out, as 9.19.0.
 * Errors: DG_EDEVICE without the library, DG_ENOMEM.
 */
int dg_cuda_conv_library(CudaStream *s, char *version, size_t bytes);

/** Backend.conv, Backend.conv_input_grad, and Backend.conv_weight_grad but for
 *  dbias; 0 and nothing done where own kernels have it. scratch is not used. */
int dg_cuda_conv_cudnn(const ConvArgs *a);
int dg_cuda_conv_cudnn_input_grad(const ConvArgs *a);
int dg_cuda_conv_cudnn_weight_grad(const ConvArgs *a);

#endif
