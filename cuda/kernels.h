#ifndef DG_CUDA_KERNELS_H
#define DG_CUDA_KERNELS_H
/* The entries of the cuda table, twins of src/cpu/kernels.h; contracts stand
 * with the argument structs in tensor/backend.h. Internal to cuda. */
#include "device.h"

void dg_cuda_gemm(const GemmArgs *g);
void dg_cuda_linear(const LinearArgs *a);
void dg_cuda_linear_grad(const LinearGradArgs *a);

void dg_cuda_act(const ActArgs *a);
void dg_cuda_act_grad(const ActArgs *a);
void dg_cuda_gated(const GatedArgs *a);
void dg_cuda_gated_grad(const GatedArgs *a);

void dg_cuda_norm(const NormArgs *a);
void dg_cuda_norm_grad(const NormArgs *a);
void dg_cuda_qk(const QkArgs *a);
void dg_cuda_qk_grad(const QkArgs *a);

size_t dg_cuda_attention_scratch(int64_t sq, int64_t sk, int64_t d,
                                 int backward);
void dg_cuda_attention(const AttentionArgs *a);
void dg_cuda_attention_grad(const AttentionArgs *a);

void dg_cuda_gate(const GateArgs *a);
void dg_cuda_gate_grad(const GateArgs *a);
void dg_cuda_copy(const CopyArgs *a);
void dg_cuda_embed(const EmbedArgs *a);
void dg_cuda_embed_grad(const EmbedArgs *a);

size_t dg_cuda_conv_scratch(const ConvArgs *a);
void dg_cuda_conv(const ConvArgs *a);
void dg_cuda_conv_input_grad(const ConvArgs *a);
void dg_cuda_conv_weight_grad(const ConvArgs *a);
size_t dg_cuda_group_norm_scratch(int64_t width);
void dg_cuda_group_norm(const GroupNormArgs *a);
void dg_cuda_group_norm_grad(const GroupNormArgs *a);
void dg_cuda_add_rows(const AddRowsArgs *a);
void dg_cuda_add_rows_grad(const AddRowsArgs *a);

void dg_cuda_add(float *y, const float *a, const float *b, int64_t count);
void dg_cuda_scale(float *y, const float *x, float alpha, int64_t count);
void dg_cuda_fill(float *y, float value, int64_t count);
void dg_cuda_combine(float *u, const float *uncond, const float *cond, double w,
                     int64_t count);
void dg_cuda_replay(void (*step)(void *), void *user, const float **moving,
                    int64_t num, int64_t count);
void dg_cuda_flag(int64_t *least, int64_t value, const float *x, int64_t count);
int64_t dg_cuda_first_nonfinite(const float *x, int64_t count);

#endif
