extern "C" {
#include "cuda/cuda.h"
#include "cuda/engine.h"
}

#include "kernels.h"

static Backend table_make(void)
{
    Backend t = {};

    t.name = "cuda";
    t.computes = 1;
    t.attention_scratch = dg_cuda_attention_scratch;
    t.conv_scratch = dg_cuda_conv_scratch;
    t.group_norm_scratch = dg_cuda_group_norm_scratch;
    t.gemm = dg_cuda_gemm;
    t.linear = dg_cuda_linear;
    t.linear_grad = dg_cuda_linear_grad;
    t.act = dg_cuda_act;
    t.act_grad = dg_cuda_act_grad;
    t.gated = dg_cuda_gated;
    t.gated_grad = dg_cuda_gated_grad;
    t.norm = dg_cuda_norm;
    t.norm_grad = dg_cuda_norm_grad;
    t.qk = dg_cuda_qk;
    t.qk_grad = dg_cuda_qk_grad;
    t.attention = dg_cuda_attention;
    t.attention_grad = dg_cuda_attention_grad;
    t.gate = dg_cuda_gate;
    t.gate_grad = dg_cuda_gate_grad;
    t.copy = dg_cuda_copy;
    t.embed = dg_cuda_embed;
    t.embed_grad = dg_cuda_embed_grad;
    t.conv = dg_cuda_conv;
    t.conv_input_grad = dg_cuda_conv_input_grad;
    t.conv_weight_grad = dg_cuda_conv_weight_grad;
    t.group_norm = dg_cuda_group_norm;
    t.group_norm_grad = dg_cuda_group_norm_grad;
    t.add_rows = dg_cuda_add_rows;
    t.add_rows_grad = dg_cuda_add_rows_grad;
    t.add = dg_cuda_add;
    t.scale = dg_cuda_scale;
    t.fill = dg_cuda_fill;
    t.first_nonfinite = dg_cuda_first_nonfinite;
    t.combine = dg_cuda_combine;
    t.apart = 1;
    t.take = dg_cuda_take;
    t.give = dg_cuda_free;
    t.room = dg_cuda_room;
    t.upload = dg_cuda_stage_up;
    t.download = dg_cuda_stage_down;
    t.engine = dg_engine_cuda();
    return t;
}

static const Backend table = table_make();

extern "C" const Backend *dg_backend_cuda(void)
{
    return &table;
}
