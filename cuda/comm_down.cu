#include "comm_down.h"

#include "stream.h"

extern "C" {
#include "cuda/comm.h"
}

#include <stdlib.h>

#include <atomic>

/* Bytes of a half of the pinned memory. */
enum { HALF = 4 << 20, WAYS = 2, MOST = 2048 };

/* A half that is to be added. */
struct Descent {
    struct CudaDown *down;
    ExactSum into, part;
    ExactTake take;
    void *user;
    int way;
};

/*
 * Half i of the pinned memory is way i's: the order of a stream keeps it until
 * it has been added. Parts are cut alike each time, so that elements always
 * take the same way, and one thread at a time adds to them.
 */
struct CudaDown {
    cudaStream_t way[WAYS];
    cudaEvent_t made, left[WAYS];
    char *half[WAYS];
    Descent ring[WAYS][MOST];
    int64_t queued[WAYS];
    std::atomic<int64_t> done[WAYS];
    pthread_mutex_t lock; /* held by who adds */
    int dropped;          /* under it */
    struct CudaDown *next;
};

/* Of a device that has failed: the driver may still look at them. */
static struct CudaDown *left_behind;

static cudaError_t reserve(CudaDown *d)
{
    cudaError_t e = cudaEventCreateWithFlags(&d->made, cudaEventDisableTiming);

    for (int i = 0; i < WAYS && e == cudaSuccess; ++i) {
        e = cudaStreamCreateWithFlags(&d->way[i], cudaStreamNonBlocking);
        if (e == cudaSuccess)
            e = cudaEventCreateWithFlags(&d->left[i], cudaEventDisableTiming);
        if (e == cudaSuccess)
            e = cudaMallocHost((void **)&d->half[i], HALF);
    }
    return e;
}

int dg_cuda_down_create(CudaDown **out)
{
    CudaDown *d = (CudaDown *)calloc(1, sizeof *d);

    if (d == NULL)
        return dg_fail(DG_ENOMEM, "sums that come down");
    pthread_mutex_init(&d->lock, NULL);
    const cudaError_t e = reserve(d);
    if (e != cudaSuccess) {
        cudaGetLastError();
        dg_cuda_down_destroy(d);
        return dg_fail(DG_EDEVICE, "CUDA: streams for sums that come down: %s",
                       cudaGetErrorString(e));
    }
    *out = d;
    return DG_OK;
}

void dg_cuda_down_destroy(CudaDown *d)
{
    cudaError_t e = cudaSuccess;

    if (d == NULL)
        return;
    for (int i = 0; i < WAYS && e == cudaSuccess; ++i)
        if (d->way[i] != NULL)
            e = cudaStreamSynchronize(d->way[i]);
    if (e != cudaSuccess) {
        dg_cuda_down_drop(d);
        d->next = left_behind;
        left_behind = d;
        return;
    }
    for (int i = 0; i < WAYS; ++i) {
        cudaFreeHost(d->half[i]);
        if (d->left[i] != NULL)
            cudaEventDestroy(d->left[i]);
        if (d->way[i] != NULL)
            cudaStreamDestroy(d->way[i]);
    }
    if (d->made != NULL)
        cudaEventDestroy(d->made);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void dg_cuda_down_drop(CudaDown *d)
{
    pthread_mutex_lock(&d->lock);
    d->dropped = 1;
    pthread_mutex_unlock(&d->lock);
}

cudaStream_t dg_cuda_down_way(const CudaDown *d, int i)
{
    return d->way[i];
}

/* The driver's thread may not call CUDA. */
static void CUDART_CB add(void *user)
{
    Descent *x = (Descent *)user;
    CudaDown *d = x->down;

    pthread_mutex_lock(&d->lock);
    if (!d->dropped)
        x->take(x->user, &x->into, &x->part);
    pthread_mutex_unlock(&d->lock);
    ++d->done[x->way];
}

static int64_t num_in_half(const ExactSum *s)
{
    return HALF / (int64_t)dg_exact_bytes(1, s->fixed != NULL);
}

static void *buffer_of(const ExactSum *s)
{
    return s->fixed != NULL ? (void *)s->fixed : (void *)s->plain;
}

int dg_cuda_down_full(const CudaDown *d, int *full)
{
    for (int i = 0; i < WAYS; ++i)
        /* a part has fewer halves than that */
        if (d->queued[i] - d->done[i] > MOST / 2) {
            *full = i;
            return 1;
        }
    return 0;
}

/* Elements 'at' and on, of which there are num, by a way of their own. */
static void descend(CudaDown *d, int way, const ExactSend *x, int64_t at,
                    int64_t num)
{
    Descent *to = &d->ring[way][d->queued[way]++ % MOST];
    const ExactSum from = dg_exact_part(&x->part, at, num);

    *to =
        Descent { d,  dg_exact_part(&x->into, at, num), from, x->take, x->user,
                  way };
    to->part.fixed = from.fixed != NULL ? (int64_t *)d->half[way] : NULL;
    to->part.plain = from.fixed != NULL ? NULL : (float *)d->half[way];
    dg_cuda_note(cudaMemcpyAsync(d->half[way], buffer_of(&from),
                                 dg_exact_bytes(num, from.fixed != NULL),
                                 cudaMemcpyDeviceToHost, d->way[way]),
                 "a sum's way to the host");
    dg_cuda_note(cudaEventRecord(d->left[way], d->way[way]),
                 "a sum's way to the host");
    dg_cuda_note(cudaLaunchHostFunc(d->way[way], add, to),
                 "a sum's way to the host");
}

void dg_cuda_down_queue(CudaDown *d, cudaStream_t side, const ExactSend *x)
{
    const int64_t most = num_in_half(&x->part);
    int way = 0;

    dg_cuda_note(cudaEventRecord(d->made, side), "a sum's part");
    for (int i = 0; i < WAYS; ++i)
        dg_cuda_note(cudaStreamWaitEvent(d->way[i], d->made, 0),
                     "a sum's part");
    for (int64_t at = 0; at < x->part.num; at += most, way = 1 - way)
        descend(d, way, x, at,
                x->part.num - at < most ? x->part.num - at : most);
    for (int i = 0; i < WAYS; ++i)
        dg_cuda_note(cudaStreamWaitEvent(side, d->left[i], 0), "a sum's part");
}
