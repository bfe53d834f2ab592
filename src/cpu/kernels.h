#ifndef DG_CPU_KERNELS_H
#define DG_CPU_KERNELS_H
/* The entries of the cpu table, one file per family; contracts stand with
 * the argument structs in tensor/backend.h. Internal to src/cpu. */
#include "tensor/backend.h"

void dg_cpu_gemm(const GemmArgs *g);
void dg_cpu_linear(const LinearArgs *a);
void dg_cpu_linear_grad(const LinearGradArgs *a);

void dg_cpu_act(const ActArgs *a);
void dg_cpu_act_grad(const ActArgs *a);
void dg_cpu_gated(const GatedArgs *a);
void dg_cpu_gated_grad(const GatedArgs *a);

void dg_cpu_norm(const NormArgs *a);
void dg_cpu_norm_grad(const NormArgs *a);
void dg_cpu_qk(const QkArgs *a);
void dg_cpu_qk_grad(const QkArgs *a);

size_t dg_cpu_attention_scratch(int64_t sq, int64_t sk, int64_t d,
                                int backward);
void dg_cpu_attention(const AttentionArgs *a);
void dg_cpu_attention_grad(const AttentionArgs *a);

void dg_cpu_gate(const GateArgs *a);
void dg_cpu_gate_grad(const GateArgs *a);
void dg_cpu_copy(const CopyArgs *a);
void dg_cpu_embed(const EmbedArgs *a);
void dg_cpu_embed_grad(const EmbedArgs *a);

size_t dg_cpu_conv_scratch(const ConvArgs *a);
void dg_cpu_conv(const ConvArgs *a);
void dg_cpu_conv_input_grad(const ConvArgs *a);
void dg_cpu_conv_weight_grad(const ConvArgs *a);

size_t dg_cpu_group_norm_scratch(int64_t width);
void dg_cpu_group_norm(const GroupNormArgs *a);
void dg_cpu_group_norm_grad(const GroupNormArgs *a);
void dg_cpu_add_rows(const AddRowsArgs *a);
void dg_cpu_add_rows_grad(const AddRowsArgs *a);

/** sums[width] += the rows of x [rows, width], in order of blocks of rows. */
void dg_cpu_add_columns(float *sums, const float *x, int64_t rows,
                        int64_t width);

void dg_cpu_add(float *y, const float *a, const float *b, int64_t count);
void dg_cpu_scale(float *y, const float *x, float alpha, int64_t count);
void dg_cpu_fill(float *y, float value, int64_t count);
int64_t dg_cpu_first_nonfinite(const float *x, int64_t count);

#endif
