/* What comm.cu has, in a program that is built without NCCL: nobody joins, so
 * nothing else is ever called. */
#include "stream.h"

extern "C" {
#include "cuda/comm.h"
}

#ifndef DG_NCCL
#define DG_NCCL 0
#endif

#if !DG_NCCL
int dg_cuda_comm_built(void)
{
    return 0;
}

int dg_cuda_comm_join(const Comm *, double)
{
    return dg_fail(DG_EDEVICE, "this program was built without NCCL");
}

void dg_cuda_link_destroy(struct CudaLink *)
{
}

int dg_cuda_comm_joined(const Comm *)
{
    return 0;
}

int dg_cuda_comm_sum(const Comm *, void *, int64_t, int)
{
    dg_panic("a sum by NCCL without NCCL");
}

int dg_cuda_comm_sum_to(const Comm *, void *, int64_t, int, int)
{
    dg_panic("a sum by NCCL without NCCL");
}

int dg_cuda_comm_bcast(const Comm *, void *, size_t, int)
{
    dg_panic("a broadcast by NCCL without NCCL");
}

int dg_cuda_comm_send(void *, int64_t, int, int)
{
    dg_panic("a sum by NCCL without NCCL");
}

int dg_cuda_comm_descends(void)
{
    return DG_OK;
}

int dg_cuda_comm_descend(const ExactSend *)
{
    dg_panic("a sum by NCCL without NCCL");
}

void dg_cuda_comm_turn(void)
{
}

void dg_cuda_comm_leaves(int)
{
}

void dg_cuda_comm_slot(int)
{
}

void dg_cuda_link_wait(CudaStream *, cudaEvent_t)
{
}

void dg_cuda_link_quiet(CudaStream *)
{
}

void dg_cuda_link_launches(CudaStream *)
{
}

int dg_cuda_comm_fetch(const Comm *, const CommFetch *)
{
    dg_panic("a fetch by NCCL without NCCL");
}

void dg_cuda_comm_beside(void)
{
}

int dg_cuda_comm_pace(void)
{
    return DG_OK;
}

void dg_cuda_comm_nudge(void)
{
}

int dg_cuda_comm_sent(const Comm *, int, int)
{
    dg_panic("a sum by NCCL without NCCL");
}
#endif
