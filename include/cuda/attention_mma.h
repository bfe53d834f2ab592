#ifndef DG_CUDA_ATTENTION_MMA_H
#define DG_CUDA_ATTENTION_MMA_H
/*
 * Attention of values stored as bfloat16, on tensor cores: q, k, v, o, d_o,
 * dq, dk, dv of AttentionArgs are then addresses of bfloat16, lse is float32.
 * Sums are float32; weights, and dS in backward, are rounded to bfloat16 where
 * they are multiplied, results where they are stored. Queued on the current
 * stream. Not collective.
 *
 * Each returns 1, or 0 with nothing done where it is not made for the
 * arguments: a bias, d beyond 160 or no multiple of 8, places not aligned to
 * 16 bytes, more queries or keys of a sample, over all heads, than a stream's
 * workspace holds (4 million). Which it is does not depend on the batch.
 */
#include "tensor/backend.h"

/** Backend.attention. */
int dg_cuda_attention_mma(const AttentionArgs *a);

/** Backend.attention_grad; writes in the stream's workspace. */
int dg_cuda_attention_mma_grad(const AttentionArgs *a);

#endif
