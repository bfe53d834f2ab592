/* NCCL's calls by MPI: every rank of the job, each on a device of its own. */
#define OMPI_SKIP_MPICXX  1 /* of MPI the C calls alone */
#define MPICH_SKIP_MPICXX 1
#include "nccl.h"

#include <mpi.h>
#include <stdlib.h>

#include <memory>
#include <vector>

enum { TREE, RING, ALGORITHMS };

struct ncclComm {
    MPI_Comm mpi;
    cudaStream_t used; /* last */
    bool connected[ALGORITHMS];
    bool broken;
};

const char *ncclGetErrorString(ncclResult_t e)
{
    return e == ncclSuccess              ? "no error"
           : e == ncclUnhandledCudaError ? "unhandled cuda error"
           : e == ncclRemoteError
               ? "remote process exited or there was a network error"
               : "invalid usage";
}

/* CUDA_EMULATION_NCCL in the environment is what joining failed of */
static const char *why_not(void)
{
    return getenv("CUDA_EMULATION_NCCL");
}

const char *ncclGetLastError(ncclComm_t)
{
    return why_not() != nullptr ? why_not() : "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    if (why_not() != nullptr)
        return ncclInvalidUsage;
    memset(id, 7, sizeof *id);
    return ncclSuccess;
}

/* Whether two ranks of any node are on one device. */
static bool shared_device(void)
{
    MPI_Comm node;
    cudaDeviceProp p;
    int size, me, same = 0;

    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL,
                        &node);
    MPI_Comm_size(node, &size);
    MPI_Comm_rank(node, &me);
    cudaGetDeviceProperties(&p, cuda_emulation_device());
    int *all = new int[(size_t)size];
    MPI_Allgather(&p.pciBusID, 1, MPI_INT, all, 1, MPI_INT, node);
    for (int i = 0; i < size; ++i)
        same |= i != me && all[i] == p.pciBusID;
    delete[] all;
    MPI_Comm_free(&node);
    MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return same;
}

/* Collective. Refuses an id that is not rank 0's, and two ranks of a node on
 * one device, as NCCL does. */
ncclResult_t ncclCommInitRank(ncclComm_t *out, int ranks, ncclUniqueId id,
                              int rank)
{
    int size, me;

    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    if (shared_device())
        return ncclInvalidUsage;
    if (ranks != size || rank != me || id.internal[0] != 7)
        return ncclInvalidArgument;
    *out = new ncclComm();
    MPI_Comm_dup(MPI_COMM_WORLD, &(*out)->mpi);
    const char *later = getenv("NCCL_RUNTIME_CONNECT");
    for (bool &connected : (*out)->connected)
        connected = later != nullptr && atoi(later) == 0;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    if (c != nullptr)
        MPI_Comm_free(&c->mpi);
    delete c;
    return ncclSuccess;
}

/* What it has not yet done is never done; others may wait for it in vain, so
 * that MPI_Comm_free() would as well, and MPI may still look at buffers. */
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    if (c->used != nullptr)
        cuda_emulation_forget(c->used);
    delete c;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *e)
{
    *e = c->broken ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

static long calls;

long cuda_emulation_nccl_calls(void)
{
    return calls;
}

/* With CUDA_EMULATION_LINK in the environment this rank's link is broken from the
 * next call on, or if it is a number N from the N-th on: nothing that is asked for
 * is done any more. */
static bool broken(ncclComm_t c, cudaStream_t s)
{
    const char *text = getenv("CUDA_EMULATION_LINK");

    c->broken |= text != nullptr && calls >= atol(text);
    if (!c->broken)
        return false;
    c->used = s;
    cuda_emulation_queue(s, [] { return cudaErrorNotReady; });
    return true;
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

namespace
{

/* What all ranks do together. MPI may hand a buffer to another process: it
 * gets one of the host's. */
struct Part {
    const void *from;
    void *to; /* nullptr: nobody here wants it */
    size_t count;
    ncclDataType_t type;
    int root; /* -1: all */
    bool sums;
    MPI_Comm mpi;
    void *host;
};

/* of what was given up under way: MPI may look at them until the end */
std::vector<void *> *const given_up = new std::vector<void *>;

/* Asked for when the stream gets there; others may not be there yet. */
struct Group {
    ~Group()
    {
        for (const Part &p : parts)
            if (p.host != nullptr)
                given_up->push_back(p.host);
    }
    std::vector<Part> parts;
    std::vector<MPI_Request> asked;
    cudaStream_t stream;
};

std::shared_ptr<Group> open_group;

size_t size_of(ncclDataType_t type)
{
    return type == ncclInt64 ? 8 : type == ncclFloat32 ? 4 : 1;
}

void add_floats(const Part *p, int me)
{
    const int count = (int)p->count;

    if (p->root < 0)
        MPI_Allreduce(MPI_IN_PLACE, p->host, count, MPI_FLOAT, MPI_SUM, p->mpi);
    else
        MPI_Reduce(me == p->root ? MPI_IN_PLACE : p->host, p->host, count,
                   MPI_FLOAT, MPI_SUM, p->root, p->mpi);
}

/* Sums of floats by the host's call, to its bits: they wait here. */
MPI_Request ask(Part *p)
{
    const size_t bytes = p->count * size_of(p->type);
    const int count = (int)p->count;
    MPI_Request r = MPI_REQUEST_NULL;
    int me;

    p->host = ::operator new(bytes > 0 ? bytes : 1);
    {
        const CudaEmulationOpen open;
        memcpy(p->host, p->from, bytes);
    }
    if (p->sums && p->type == ncclInt64 && cuda_emulation_wrong("sum"))
        *(uint64_t *)p->host &= *(uint64_t *)p->host - 1;
    MPI_Comm_rank(p->mpi, &me);
    if (!p->sums)
        MPI_Ibcast(p->host, (int)bytes, MPI_BYTE, p->root, p->mpi, &r);
    else if (p->type == ncclFloat32)
        add_floats(p, me);
    else if (p->root < 0)
        MPI_Iallreduce(MPI_IN_PLACE, p->host, count, MPI_INT64_T, MPI_SUM,
                       p->mpi, &r);
    else
        MPI_Ireduce(me == p->root ? MPI_IN_PLACE : p->host, p->host, count,
                    MPI_INT64_T, MPI_SUM, p->root, p->mpi, &r);
    return r;
}

void take_back(Part &p)
{
    if (p.to != nullptr) {
        const CudaEmulationOpen open;
        memcpy(p.to, p.host, p.count * size_of(p.type));
    }
    ::operator delete(p.host);
    p.host = nullptr;
}

cudaError_t run(Group *g)
{
    int done = 0;

    if (cuda_emulation_failed())
        return cudaErrorLaunchFailure;
    if (g->asked.empty())
        for (Part &p : g->parts)
            g->asked.push_back(ask(&p));
    for (int i = 0; i < 8 && !done; ++i) /* Open MPI asks sockets at the 8th */
        MPI_Testall((int)g->asked.size(), g->asked.data(), &done,
                    MPI_STATUSES_IGNORE);
    if (!done)
        return cudaErrorNotReady;
    for (Part &p : g->parts)
        take_back(p);
    return cudaSuccess;
}

/* Groups of one stream are done in the order in which they were asked for, as
 * the other ranks' are. */
void queue(const std::shared_ptr<Group> &g)
{
    cuda_emulation_queue(g->stream, [g] { return run(g.get()); });
}

/* Small sums to all go by a tree, everything else round a ring. */
void connect(ncclComm_t c, const Part &p)
{
    const int algorithm = p.root < 0 && p.count < 1024 ? TREE : RING;

    if (!c->connected[algorithm])
        MPI_Barrier(c->mpi);
    c->connected[algorithm] = true;
}

ncclResult_t add(ncclComm_t c, cudaStream_t s, const Part &p)
{
    ++calls;
    if (stuck() || broken(c, s))
        return ncclSuccess;
    if (cuda_emulation_failed())
        return ncclUnhandledCudaError;
    connect(c, p);
    c->used = s;
    if (open_group == nullptr) {
        queue(std::make_shared<Group>(Group { { p }, {}, s }));
        return ncclSuccess;
    }
    open_group->parts.push_back(p);
    open_group->stream = s;
    return ncclSuccess;
}

} // namespace

ncclResult_t ncclGroupStart(void)
{
    open_group = std::make_shared<Group>();
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (!open_group->parts.empty())
        queue(open_group);
    open_group = nullptr;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                           ncclDataType_t type, ncclRedOp_t, ncclComm_t c,
                           cudaStream_t s)
{
    return add(c, s, Part { from, to, count, type, -1, true, c->mpi, nullptr });
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count,
                        ncclDataType_t type, ncclRedOp_t, int root,
                        ncclComm_t c, cudaStream_t s)
{
    int me;

    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    return add(c, s,
               Part { from, me == root ? to : nullptr, count, type, root, true,
                      c->mpi, nullptr });
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count,
                           ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s)
{
    return add(c, s,
               Part { from, to, count, type, root, false, c->mpi, nullptr });
}
