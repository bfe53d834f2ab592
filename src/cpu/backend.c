#include "cpu/cpu.h"

#include "diffusion/guidance.h"
#include "kernels.h"

#define ENTRY(name, Args) .name = dg_cpu_##name,

static const Backend table = { .name = "cpu",
                               .computes = 1,
                               .attention_scratch = dg_cpu_attention_scratch,
                               .conv_scratch = dg_cpu_conv_scratch,
                               .group_norm_scratch = dg_cpu_group_norm_scratch,
                               .add = dg_cpu_add,
                               .scale = dg_cpu_scale,
                               .fill = dg_cpu_fill,
                               .first_nonfinite = dg_cpu_first_nonfinite,
                               .combine = dg_guidance_combine,
                               DG_KERNELS(ENTRY) };

const Backend *dg_backend_cpu(void)
{
    return &table;
}
