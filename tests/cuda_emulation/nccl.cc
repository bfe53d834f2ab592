/* NCCL's calls by MPI: every rank of the job, each on a device of its own. */
#define OMPI_SKIP_MPICXX  1 /* of MPI the C calls alone */
#define MPICH_SKIP_MPICXX 1
#include "nccl.h"

#include <mpi.h>
#include <stdlib.h>

struct ncclComm {
    MPI_Comm mpi;
    cudaStream_t used; /* last */
};

const char *ncclGetErrorString(ncclResult_t e)
{
    return e == ncclSuccess ? "no error" : "invalid usage";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 7, sizeof *id);
    return ncclSuccess;
}

/* Collective. Refuses an id that is not rank 0's, and two ranks of a node on
 * one device, as NCCL does. */
ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id,
                              int rank)
{
    int mine[2] = { 0, 0 }, size, me;

    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    mine[0] = cuda_emulation_device();
    int *all = (int *)malloc((size_t)size * sizeof *all);
    MPI_Allgather(mine, 1, MPI_INT, all, 1, MPI_INT, MPI_COMM_WORLD);
    for (int i = 0; i < size; ++i)
        mine[1] |= i != me && all[i] == mine[0];
    free(all);
    if (mine[1])
        return ncclInvalidUsage;
    if (ranks != size || rank != me || id.internal[0] != 7)
        return ncclInvalidArgument;
    *out = (ncclComm_t)calloc(1, sizeof **out);
    MPI_Comm_dup(MPI_COMM_WORLD, &(*out)->mpi);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (c != nullptr)
        MPI_Comm_free(&c->mpi);
    free(c);
    return ncclSuccess;
}

/* What it has not yet done is never done; others may wait for it in vain, so
 * that MPI_Comm_free() would as well. */
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    if (c->used != nullptr)
        cuda_emulation_forget(c->used);
    free(c);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t *e)
{
    *e = ncclSuccess;
    return ncclSuccess;
}

/* With CUDA_EMULATION_STUCK="N" in the environment nothing is done from the
 * N-th sum on and no stream gets ready any more: as where one rank has stayed
 * away. */
static bool stuck()
{
    static long sums;
    const char *text = getenv("CUDA_EMULATION_STUCK");

    if (text != nullptr && ++sums == atol(text))
        cuda_emulation_stick();
    return text != nullptr && sums >= atol(text);
}

/* MPI may hand a buffer to another process: it gets one of the host's, with
 * what stands at from in it. */
static void *host_copy(const void *from, size_t bytes)
{
    void *host = malloc(bytes > 0 ? bytes : 1);
    const CudaEmulationOpen open;

    memcpy(host, from, bytes);
    return host;
}

/* to nullptr: nobody wants it */
static void take_back(void *to, void *host, size_t bytes)
{
    if (to != nullptr) {
        const CudaEmulationOpen open;
        memcpy(to, host, bytes);
    }
    free(host);
}

static MPI_Datatype mpi_type(ncclDataType_t type, size_t *bytes)
{
    *bytes = type == ncclInt64 ? 8 : type == ncclFloat32 ? 4 : 1;
    return type == ncclInt64     ? MPI_INT64_T
           : type == ncclFloat32 ? MPI_FLOAT
                                 : MPI_BYTE;
}

static cudaError_t reduce(const void *from, void *to, size_t count,
                          ncclDataType_t type, int root, MPI_Comm mpi)
{
    size_t bytes;
    const MPI_Datatype of = mpi_type(type, &bytes);
    void *host = host_copy(from, count * bytes);
    int me;

    MPI_Comm_rank(mpi, &me);
    if (root < 0)
        MPI_Allreduce(MPI_IN_PLACE, host, (int)count, of, MPI_SUM, mpi);
    else
        MPI_Reduce(me == root ? MPI_IN_PLACE : host, host, (int)count, of,
                   MPI_SUM, root, mpi);
    take_back(root < 0 || me == root ? to : nullptr, host, count * bytes);
    return cudaSuccess;
}

/* Sums of one stream are done in the order in which they were asked for, as
 * the other ranks' are. */
static ncclResult_t queue(ncclComm_t c, cudaStream_t s,
                          std::function<cudaError_t()> call)
{
    if (stuck())
        return ncclSuccess;
    c->used = s;
    cuda_emulation_queue(s, [=] {
        return cuda_emulation_failed() ? cudaErrorLaunchFailure : call();
    });
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                           ncclDataType_t type, ncclRedOp_t, ncclComm_t c,
                           cudaStream_t s)
{
    return queue(c, s, [=, mpi = c->mpi] {
        return reduce(from, to, count, type, -1, mpi);
    });
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count,
                        ncclDataType_t type, ncclRedOp_t, int root,
                        ncclComm_t c, cudaStream_t s)
{
    return queue(c, s, [=, mpi = c->mpi] {
        return reduce(from, to, count, type, root, mpi);
    });
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count,
                           ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s)
{
    return queue(c, s, [=, mpi = c->mpi] {
        size_t bytes;
        const MPI_Datatype of = mpi_type(type, &bytes);
        void *host = host_copy(from, count * bytes);

        MPI_Bcast(host, (int)count, of, root, mpi);
        take_back(to, host, count * bytes);
        return cudaSuccess;
    });
}
