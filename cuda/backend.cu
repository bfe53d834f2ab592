extern "C" {
#include "cuda/cuda.h"
#include "cuda/engine.h"
}

#include "kernels.h"
#include "stream.h"

#define ENTRY(name, Args) t.name = dg_cuda_##name<T>;

/* T: how stored values are stored */
template <typename T> static Backend table_make(const Backend *bf16)
{
    Backend t = {};

    t.name = "cuda";
    t.computes = 1;
    t.attention_scratch = dg_cuda_attention_scratch;
    t.conv_scratch = dg_cuda_conv_scratch;
    t.group_norm_scratch = dg_cuda_group_norm_scratch;
    DG_KERNELS(ENTRY)
    t.add = dg_cuda_add<T>;
    t.scale = dg_cuda_scale<T>;
    t.fill = dg_cuda_fill<T>;
    t.first_nonfinite = dg_cuda_first_nonfinite<T>;
    t.combine = dg_cuda_combine;
    t.cast = dg_cuda_cast;
    t.bf16 = bf16;
    t.apart = 1;
    t.take = dg_cuda_take;
    t.give = dg_cuda_free;
    t.room = dg_cuda_room;
    t.later = DG_LATER_BYTES;
    t.upload = dg_cuda_stage_up;
    t.download = dg_cuda_stage_down;
    t.drain = dg_cuda_drain;
    t.side = DG_SIDE_BYTES;
    t.side_new = dg_cuda_side_new;
    t.side_free = dg_cuda_side_free;
    t.side_use = dg_cuda_side_use;
    t.side_after = dg_cuda_side_after;
    t.replay = dg_cuda_replay;
    t.engine = dg_engine_cuda();
    return t;
}

static const Backend table_bf16 = table_make<__nv_bfloat16>(NULL);
static const Backend table = table_make<float>(&table_bf16);

extern "C" const Backend *dg_backend_cuda(void)
{
    return &table;
}
