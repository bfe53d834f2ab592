#include "kernels.h"

#include "act.h"
#include "stream.h"

/*
 * All kernels here: a thread takes elements first_index(), + index_step() ..;
 * no shared memory, blocks of THREADS.
 */

template <typename T> __global__ void act_kernel(ActArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step())
        put<T>(a.out, i, act_value(a.act, get<T>(a.x, i)));
}

template <typename T> __global__ void act_grad_kernel(ActArgs a)
{
    for (int64_t i = first_index(); i < a.count; i += index_step()) {
        float grad;
        act_both(a.act, get<T>(a.x, i), &grad);
        const float dx = get<T>(a.dy, i) * grad;
        put<T>(a.out, i, a.accumulate ? get<T>(a.out, i) + dx : dx);
    }
}

/* all elements, and where the i-th stands in a, g, da, dg */
__host__ __device__ inline int64_t gated_count(const GatedArgs &a)
{
    return a.rows > 1 ? a.rows * a.count : a.count;
}

__device__ inline int64_t gated_at(const GatedArgs &a, int64_t i)
{
    return a.rows > 1 ? i / a.count * a.ld + i % a.count : i;
}

template <typename T> __global__ void gated_kernel(GatedArgs a)
{
    for (int64_t i = first_index(); i < gated_count(a); i += index_step()) {
        const int64_t at = gated_at(a, i);
        put<T>(a.y, i, get<T>(a.a, at) * act_value(a.act, get<T>(a.g, at)));
    }
}

template <typename T> __global__ void gated_grad_kernel(GatedArgs a)
{
    for (int64_t i = first_index(); i < gated_count(a); i += index_step()) {
        const int64_t at = gated_at(a, i);
        const float dy = get<T>(a.dy, i);
        float grad;
        const float f = act_both(a.act, get<T>(a.g, at), &grad);
        const float da = dy * f, dg = dy * get<T>(a.a, at) * grad;
        put<T>(a.da, at, da);
        put<T>(a.dg, at, dg);
    }
}

template <typename T> void dg_cuda_act(const ActArgs *a)
{
    DG_LAUNCH(act_kernel<T>, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}

template <typename T> void dg_cuda_act_grad(const ActArgs *a)
{
    DG_LAUNCH(act_grad_kernel<T>, dg_blocks(a->count, THREADS), THREADS, 0, *a);
}

template <typename T> void dg_cuda_gated(const GatedArgs *a)
{
    DG_LAUNCH(gated_kernel<T>, dg_blocks(gated_count(*a), THREADS), THREADS, 0,
              *a);
}

template <typename T> void dg_cuda_gated_grad(const GatedArgs *a)
{
    DG_LAUNCH(gated_grad_kernel<T>, dg_blocks(gated_count(*a), THREADS),
              THREADS, 0, *a);
}

DG_BOTH(dg_cuda_act, ActArgs)
DG_BOTH(dg_cuda_act_grad, ActArgs)
DG_BOTH(dg_cuda_gated, GatedArgs)
DG_BOTH(dg_cuda_gated_grad, GatedArgs)
