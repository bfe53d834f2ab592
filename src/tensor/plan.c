#include "tensor/backend.h"

/* Kernels of a plan: the ops count bytes and FLOPs, nothing is computed. */
#define PLAN_KERNEL(name, Args)            \
    static void plan_##name(const Args *a) \
    {                                      \
        (void)a;                           \
    }

PLAN_KERNEL(gemm, GemmArgs)
PLAN_KERNEL(linear, LinearArgs)
PLAN_KERNEL(linear_grad, LinearGradArgs)
PLAN_KERNEL(act, ActArgs)
PLAN_KERNEL(gated, GatedArgs)
PLAN_KERNEL(norm, NormArgs)
PLAN_KERNEL(qk, QkArgs)
PLAN_KERNEL(attention, AttentionArgs)
PLAN_KERNEL(gate, GateArgs)
PLAN_KERNEL(copy, CopyArgs)
PLAN_KERNEL(embed, EmbedArgs)
PLAN_KERNEL(conv, ConvArgs)
PLAN_KERNEL(group_norm, GroupNormArgs)
PLAN_KERNEL(add_rows, AddRowsArgs)

static void plan_add(float *y, const float *a, const float *b, int64_t count)
{
    (void)y, (void)a, (void)b, (void)count;
}

static void plan_scale(float *y, const float *x, float alpha, int64_t count)
{
    (void)y, (void)x, (void)alpha, (void)count;
}

static void plan_fill(float *y, float value, int64_t count)
{
    (void)y, (void)value, (void)count;
}

static int64_t plan_first_nonfinite(const float *x, int64_t count)
{
    (void)x, (void)count;
    return -1;
}

static void plan_combine(float *u, const float *uncond, const float *cond,
                         double w, int64_t count)
{
    (void)u, (void)uncond, (void)cond, (void)w, (void)count;
}

static void plan_cast(void *to, DType to_type, const void *from,
                      DType from_type, int64_t count)
{
    (void)to, (void)to_type, (void)from, (void)from_type, (void)count;
}

void dg_backend_plan(Backend *out, const Backend *model)
{
    *out = (Backend) {
        .name = "plan",
        .computes = 0,
        .attention_scratch = model->attention_scratch,
        .conv_scratch = model->conv_scratch,
        .group_norm_scratch = model->group_norm_scratch,
        .gemm = plan_gemm,
        .linear = plan_linear,
        .linear_grad = plan_linear_grad,
        .act = plan_act,
        .act_grad = plan_act,
        .gated = plan_gated,
        .gated_grad = plan_gated,
        .norm = plan_norm,
        .norm_grad = plan_norm,
        .qk = plan_qk,
        .qk_grad = plan_qk,
        .attention = plan_attention,
        .attention_grad = plan_attention,
        .gate = plan_gate,
        .gate_grad = plan_gate,
        .copy = plan_copy,
        .embed = plan_embed,
        .embed_grad = plan_embed,
        .conv = plan_conv,
        .conv_input_grad = plan_conv,
        .conv_weight_grad = plan_conv,
        .group_norm = plan_group_norm,
        .group_norm_grad = plan_group_norm,
        .add_rows = plan_add_rows,
        .add_rows_grad = plan_add_rows,
        .add = plan_add,
        .scale = plan_scale,
        .fill = plan_fill,
        .first_nonfinite = plan_first_nonfinite,
        .combine = plan_combine,
        .apart = model->apart,
        .bf16 = out, /* nothing is computed of either type */
        .cast = plan_cast,
    };
}
