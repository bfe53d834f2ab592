#include "cpu/cpu.h"

#include "diffusion/guidance.h"
#include "kernels.h"

static const Backend table = {
    .name = "cpu",
    .computes = 1,
    .attention_scratch = dg_cpu_attention_scratch,
    .conv_scratch = dg_cpu_conv_scratch,
    .group_norm_scratch = dg_cpu_group_norm_scratch,
    .gemm = dg_cpu_gemm,
    .linear = dg_cpu_linear,
    .linear_grad = dg_cpu_linear_grad,
    .act = dg_cpu_act,
    .act_grad = dg_cpu_act_grad,
    .gated = dg_cpu_gated,
    .gated_grad = dg_cpu_gated_grad,
    .norm = dg_cpu_norm,
    .norm_grad = dg_cpu_norm_grad,
    .qk = dg_cpu_qk,
    .qk_grad = dg_cpu_qk_grad,
    .attention = dg_cpu_attention,
    .attention_grad = dg_cpu_attention_grad,
    .gate = dg_cpu_gate,
    .gate_grad = dg_cpu_gate_grad,
    .copy = dg_cpu_copy,
    .embed = dg_cpu_embed,
    .embed_grad = dg_cpu_embed_grad,
    .conv = dg_cpu_conv,
    .conv_input_grad = dg_cpu_conv_input_grad,
    .conv_weight_grad = dg_cpu_conv_weight_grad,
    .group_norm = dg_cpu_group_norm,
    .group_norm_grad = dg_cpu_group_norm_grad,
    .add_rows = dg_cpu_add_rows,
    .add_rows_grad = dg_cpu_add_rows_grad,
    .add = dg_cpu_add,
    .scale = dg_cpu_scale,
    .fill = dg_cpu_fill,
    .first_nonfinite = dg_cpu_first_nonfinite,
    .combine = dg_guidance_combine,
};

const Backend *dg_backend_cpu(void)
{
    return &table;
}
