#ifndef DG_CUDA_ATTENTION_CUDNN_H
#define DG_CUDA_ATTENTION_CUDNN_H
/*
 * Attention of values stored as bfloat16 by cuDNN, in place of cuda's own
 * kernels, where a run asks for it (run.attention). Queued on the current
 * stream. Not collective.
 *
 * The library is asked for one sample's shape, forward and backward, when that
 * comes first, and never while a step is captured; each sample is a call of its
 * own, so that a batch does not show in its bits. A shape for which it lacks
 * either, for which dS of a head has no room, with a bias, a mask or d no
 * multiple of 8, has own kernels for both; the log says which it is, once.
 */
#include "cuda/cuda.h"
#include "cuda/cudnn_room.h"

/**
 * From now on s asks cuDNN first, and so do its side streams, which have no
 * way back. version [bytes] out, as 9.19.0.
 * Errors: DG_EDEVICE without the library, DG_ENOMEM.
 */
int dg_cuda_attention_library(CudaStream *s, char *version, size_t bytes);

/** Backend.attention, Backend.attention_grad; 0 and nothing done where own
 *  kernels have it. lse is log sum exp, as theirs is. */
int dg_cuda_attention_cudnn(const AttentionArgs *a);
int dg_cuda_attention_cudnn_grad(const AttentionArgs *a);

#endif
