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

/* what a stream that was joined keeps */
struct CudaLink {
    ncclComm_t nccl;
    int rank, size;
    double patience_s;
};

static int link_error(ncclResult_t e, const char *what)
{
    return dg_fail(DG_EDEVICE, "NCCL: %s: %s", what, ncclGetErrorString(e));
}

int dg_cuda_comm_built(void)
{
    return 1;
}

int dg_cuda_comm_join(const Comm *c, double patience_s)
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
    link->patience_s = patience_s;
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

/*
 * Waits with an eye on the other ranks. Where all wait for one that stays away,
 * a rank's patience is up to half longer the higher its number, so that one
 * of them tells of it and takes the others down.
 */
static int watch(CudaStream *s, const char *what)
{
    const CudaLink *link = s->link;
    const double began = dg_clock_now();
    const double most = link->patience_s * (1 + 0.5 * link->rank / link->size);
    ncclResult_t e = ncclSuccess;

    while (cudaStreamQuery(s->stream) == cudaErrorNotReady) {
        ncclCommGetAsyncError(link->nccl, &e);
        if (e != ncclSuccess) {
            ncclCommAbort(s->link->nccl);
            s->link->nccl = NULL;
            return link_error(e, what);
        }
        if (dg_clock_now() - began > most)
            dg_panic("rank %d of %d waits for the other ranks since %.0f s in "
                     "NCCL's %s (parallel.timeout_seconds)",
                     link->rank, link->size, most, what);
        usleep(50);
    }
    return dg_cuda_wait();
}

int dg_cuda_comm_sum(const Comm *c, void *v, int64_t num, int whole)
{
    const char *what =
        whole ? "sum of gradients, int64" : "sum of gradients, float32";
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclAllReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32,
                      ncclSum, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess ? watch(s, what) : link_error(e, what));
}

int dg_cuda_comm_sum_to(const Comm *c, void *v, int64_t num, int whole,
                        int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32, ncclSum,
                   root, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess
                           ? watch(s, "sum of gradients to an owner")
                           : link_error(e, "sum to an owner"));
}

int dg_cuda_comm_bcast(const Comm *c, void *v, size_t bytes, int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclBroadcast(v, v, bytes, ncclInt8, root, s->link->nccl, s->stream);

    return dg_agree(c, e == ncclSuccess ? watch(s, "values from an owner")
                                        : link_error(e, "an owner's values"));
}

#else

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

#endif
