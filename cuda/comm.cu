#include "stream.h"

extern "C" {
#include "base/clock.h"
#include "cuda/comm.h"
}

#include <stdlib.h>
#include <unistd.h>

#ifndef DG_NCCL
#define DG_NCCL 0
#endif

#if DG_NCCL
#include <nccl.h>

static const double patience_s = 600;

/* what a stream that was joined keeps */
struct CudaLink {
    ncclComm_t nccl;
    int rank, size;
};

static int link_error(ncclResult_t e, const char *what)
{
    return dg_fail(DG_EDEVICE, "NCCL: %s: %s", what, ncclGetErrorString(e));
}

int dg_cuda_comm_built(void)
{
    return 1;
}

int dg_cuda_comm_join(const Comm *c)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = (CudaLink *)calloc(1, sizeof *link);
    ncclResult_t e = ncclSuccess;
    ncclUniqueId id;
    int err = link != NULL ? DG_OK : dg_fail(DG_ENOMEM, "NCCL");

    if (!err && c->rank == 0)
        e = ncclGetUniqueId(&id);
    if (e != ncclSuccess)
        err = link_error(e, "an id for all ranks");
    err = dg_agree(c, err);
    if (!err) {
        dg_comm_bcast(c, &id, sizeof id, 0);
        e = ncclCommInitRank(&link->nccl, c->size, id, c->rank);
        err = dg_agree(c, e == ncclSuccess ? DG_OK
                                           : link_error(e, "joining GPUs"));
    }
    if (err) {
        free(link);
        return err;
    }
    link->rank = c->rank;
    link->size = c->size;
    s->link = link;
    return DG_OK;
}

void dg_cuda_link_destroy(struct CudaLink *link)
{
    if (link != NULL)
        ncclCommDestroy(link->nccl);
    free(link);
}

int dg_cuda_comm_joined(const Comm *c)
{
    const CudaLink *link = dg_cuda_current()->link;

    return link != NULL && link->size == c->size && link->rank == c->rank;
}

/* Waits with an eye on the other ranks. */
static int watch(CudaStream *s)
{
    const double began = dg_clock_now();
    ncclResult_t e = ncclSuccess;

    while (cudaStreamQuery(s->stream) == cudaErrorNotReady) {
        ncclCommGetAsyncError(s->link->nccl, &e);
        if (e != ncclSuccess) {
            ncclCommAbort(s->link->nccl);
            s->link->nccl = NULL;
            return link_error(e, "sum over all ranks");
        }
        if (dg_clock_now() - began > patience_s)
            dg_panic("rank %d of %d waits for the others' sums since %.0f s",
                     s->link->rank, s->link->size, patience_s);
        usleep(50);
    }
    return dg_cuda_wait();
}

int dg_cuda_comm_sum(const Comm *c, void *v, int64_t num, int whole)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclAllReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32,
                      ncclSum, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess ? watch(s)
                                        : link_error(e, "sum over all ranks"));
}

int dg_cuda_comm_sum_to(const Comm *c, void *v, int64_t num, int whole,
                        int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32, ncclSum,
                   root, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess ? watch(s)
                                        : link_error(e, "sum to an owner"));
}

int dg_cuda_comm_bcast(const Comm *c, void *v, size_t bytes, int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclBroadcast(v, v, bytes, ncclInt8, root, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess ? watch(s)
                                        : link_error(e, "an owner's values"));
}

#else

int dg_cuda_comm_built(void)
{
    return 0;
}

int dg_cuda_comm_join(const Comm *)
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

#endif
