#include "kernels.h"

#include "act.h"
#include "stream.h"

/*
 * All kernels here: a thread takes elements first_index(), + index_step() ..;
 * no shared memory, blocks of THREADS.
 */

__global__ void act_kernel(ActArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step())
        put(a.out, i, act_value(a.act, get(a.x, i)));
}

__global__ void act_grad_kernel(ActArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step()) {
        float grad;
        act_both(a.act, get(a.x, i), &grad);
        const float dx = get(a.dy, i) * grad;
        put(a.out, i, a.accumulate ? get(a.out, i) + dx : dx);
    }
}

__global__ void gated_kernel(GatedArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step())
        put(a.y, i, get(a.a, i) * act_value(a.act, get(a.g, i)));
}

__global__ void gated_grad_kernel(GatedArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step()) {
        const float dy = get(a.dy, i);
        float grad;
        const float f = act_both(a.act, get(a.g, i), &grad);
        const float da = dy * f, dg = dy * get(a.a, i) * grad;
        put(a.da, i, da);
        put(a.dg, i, dg);
    }
}

void dg_cuda_act(const ActArgs *a)
{
    DG_LAUNCH(act_kernel, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}

void dg_cuda_act_grad(const ActArgs *a)
{
    DG_LAUNCH(act_grad_kernel, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}

void dg_cuda_gated(const GatedArgs *a)
{
    DG_LAUNCH(gated_kernel, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}

void dg_cuda_gated_grad(const GatedArgs *a)
{
    DG_LAUNCH(gated_grad_kernel, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}
