#include "comm_down.h"
#include "stream.h"

extern "C" {
#include "base/clock.h"
#include "cuda/comm.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef DG_NCCL
#define DG_NCCL 0
#endif

#if DG_NCCL
#include <nccl.h>

/* Launches between two looks at how far the device is: dg_cuda_link_launches() */
#ifndef DG_LINK_LAUNCHES
#define DG_LINK_LAUNCHES 128
#endif

/* what a stream that was joined keeps */
struct CudaLink {
    ncclComm_t nccl;
    const Comm *comm;
    int rank, size;
    double patience_s;
    cudaStream_t side;               /* of sums beside the kernels */
    cudaEvent_t ready;               /* what is sent next has been made */
    cudaEvent_t left[DG_COMM_SLOTS]; /* what was in a slot has arrived */
    int in_slots;                    /* some are used */
    cudaEvent_t pace;                /* what was queued at the last pace */
    int paced;
    cudaEvent_t look;      /* what was launched at the last look */
    int launches;          /* since then */
    int turned;            /* the streams have changed places */
    int under_way;         /* kernels may wait for what others do not send */
    int heard;             /* that another rank has failed */
    struct CudaDown *down; /* to sums of the host's, or NULL */
};

int dg_cuda_comm_built(void)
{
    return 1;
}

static int side_create(CudaLink *link)
{
    cudaError_t e =
        cudaStreamCreateWithFlags(&link->side, cudaStreamNonBlocking);

    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&link->ready, cudaEventDisableTiming);
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&link->pace, cudaEventDisableTiming);
    if (e == cudaSuccess)
        e = cudaEventCreateWithFlags(&link->look, cudaEventDisableTiming);
    for (int i = 0; i < DG_COMM_SLOTS && e == cudaSuccess; ++i)
        e = cudaEventCreateWithFlags(&link->left[i], cudaEventDisableTiming);
    return e == cudaSuccess ? DG_OK
                            : dg_fail(DG_EDEVICE, "CUDA: a stream for sums: %s",
                                      cudaGetErrorString(e));
}

/* What is under way will not arrive, here or elsewhere. */
static void drop(CudaLink *link)
{
    if (link->down != NULL)
        dg_cuda_down_drop(link->down);
    if (link->nccl != NULL)
        ncclCommAbort(link->nccl);
    link->nccl = NULL;
    link->under_way = 0;
}

/* Of a stream, or where there is one of an event. The runtime counts it as an
 * error, which somebody who asks for the last one would take for his own. */
static int not_ready(cudaStream_t stream, cudaEvent_t event)
{
    const cudaError_t e =
        event != NULL ? cudaEventQuery(event) : cudaStreamQuery(stream);

    if (e == cudaErrorNotReady)
        cudaGetLastError();
    else if (e != cudaSuccess)
        dg_cuda_note(e, "waiting for the device");
    return e == cudaErrorNotReady;
}

/* NCCL finds what has become of the device too, and tells no more than that. Of
 * all else the name of an error says little; what it warned of last, more: that
 * there is no network interface, or not enough of /dev/shm. */
static int link_error(ncclResult_t e, const char *what)
{
    const char *why = ncclGetLastError(NULL);
    CudaStream *s = dg_cuda_current();

    if (why == NULL)
        why = "";
    if (e == ncclUnhandledCudaError)
        not_ready(s->stream, NULL);
    return s->failed ? dg_cuda_wait()
                     : dg_fail(DG_EDEVICE, "NCCL: %s: %s%s%.*s", what,
                               ncclGetErrorString(e), *why ? ": " : "",
                               (int)strcspn(why, "\n"), why);
}

static void lose_patience(const CudaLink *link, double most, const char *what)
{
    char host[64];

    dg_comm_host(link->comm, host, sizeof host);
    dg_panic("rank %d of %d%s%s waits for the other ranks since %.0f s in "
             "NCCL's %s (parallel.timeout_seconds)",
             link->rank, link->size, host[0] != '\0' ? " on " : "", host, most,
             what);
}

/*
 * Waits with an eye on the other ranks. Where all wait for one that stays away,
 * a rank's patience is up to half longer the higher its number, so that one
 * of them tells of it and takes the others down. One that has failed, and
 * could not tell them otherwise, gives an alarm.
 */
static int watch_for(CudaStream *s, cudaStream_t stream, cudaEvent_t event,
                     const char *what)
{
    CudaLink *link = s->link;
    const double began = dg_clock_now();
    const double most = link->patience_s * (1 + 0.5 * link->rank / link->size);
    ncclResult_t e = ncclSuccess;

    while (not_ready(stream, event)) {
        if (link->nccl != NULL)
            ncclCommGetAsyncError(link->nccl, &e);
        if (e != ncclSuccess) {
            drop(link);
            return link_error(e, what);
        }
        if (link->under_way && dg_comm_alarmed(link->comm)) {
            link->heard = 1;
            drop(link);
            dg_cuda_note_text(what, "another rank has failed");
        }
        if (dg_clock_now() - began > most)
            lose_patience(link, most, what);
        usleep(50);
    }
    return DG_OK;
}

static int watch(CudaStream *s, cudaStream_t stream, const char *what)
{
    const int err = watch_for(s, stream, NULL, what);

    return err ? err : dg_cuda_wait();
}

/* What a wait has found is told by the next one that tells anything. */
static void keep_last_error(CudaStream *s)
{
    static const char before[] = "CUDA: "; /* it will stand there again */
    const size_t num = sizeof before - 1;
    const char *text = dg_last_error()->text;

    if (s->failed)
        return;
    s->failed = 1;
    snprintf(s->text, sizeof s->text, "%.*s", (int)sizeof s->text - 1,
             strncmp(text, before, num) == 0 ? text + num : text);
}

void dg_cuda_link_wait(CudaStream *s, cudaEvent_t event)
{
    if (s->link != NULL && s->link->under_way &&
        watch_for(s, s->stream, event, "values or sums") != DG_OK)
        keep_last_error(s);
}

/* The driver takes some thousand launches ahead of the device. Then a launch waits,
 * and nobody could tell it that another rank has failed: it is not to come to that.
 * A library's call counts as one; a kernel or two more come on top. */
void dg_cuda_link_launches(CudaStream *s)
{
    CudaLink *link = s->link;

    if (s->mode != DG_STREAM_RUNS || link == NULL || !link->under_way ||
        link->turned || ++link->launches < DG_LINK_LAUNCHES)
        return;
    link->launches = 0;
    if (watch_for(s, NULL, link->look, "values or sums") != DG_OK)
        keep_last_error(s);
    dg_cuda_note(cudaEventRecord(link->look, s->stream), "a look");
}

/* What is on its way down is waited for by the driver as well. */
void dg_cuda_link_quiet(CudaStream *s)
{
    const CudaLink *link = s->link;
    int err = DG_OK;

    if (link == NULL || !link->under_way)
        return;
    const cudaStream_t all[] = {
        s->stream, link->side,
        link->down != NULL ? dg_cuda_down_way(link->down, 0) : s->stream,
        link->down != NULL ? dg_cuda_down_way(link->down, 1) : s->stream
    };
    for (size_t i = 0; i < sizeof all / sizeof *all && !err; ++i)
        err = watch_for(s, all[i], NULL, "values or sums");
    if (err)
        keep_last_error(s);
}

/* The library would connect GPUs at the first call of each kind and size, which
 * waits then, on the host and without end: for a rank that has failed, too. And it
 * would take memory that was free when the plan was compared with it. All is to be
 * connected when ranks join; whoever asks the library for something else gets it. */
static void connect_early(void)
{
    setenv("NCCL_RUNTIME_CONNECT", "0", 0);
}

/* Older ones connect at the first sum: no rank is to be missing there. */
static int connect(const Comm *c, CudaStream *s)
{
    dg_cuda_note(cudaMemsetAsync(s->result, 0, sizeof *s->result, s->stream),
                 "first sum");
    return dg_cuda_comm_sum(c, s->result, 1, 1);
}

int dg_cuda_comm_join(const Comm *c, double patience_s)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = (CudaLink *)calloc(1, sizeof *link);
    ncclResult_t e = ncclSuccess;
    ncclUniqueId id;
    int err = link != NULL ? DG_OK : dg_fail(DG_ENOMEM, "NCCL");

    connect_early(); /* before the first call */
    if (!err)
        err = dg_cuda_load_kernels();
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
    link->comm = c;
    link->rank = c->rank;
    link->size = c->size;
    link->patience_s = patience_s;
    s->link = link;
    err = dg_agree(c, side_create(link));
    return err ? err : connect(c, s);
}

void dg_cuda_link_destroy(struct CudaLink *link)
{
    if (link == NULL)
        return;
    dg_cuda_down_destroy(link->down);
    ncclCommDestroy(link->nccl);
    for (int i = 0; i < DG_COMM_SLOTS; ++i)
        if (link->left[i] != NULL)
            cudaEventDestroy(link->left[i]);
    if (link->ready != NULL)
        cudaEventDestroy(link->ready);
    if (link->pace != NULL)
        cudaEventDestroy(link->pace);
    if (link->look != NULL)
        cudaEventDestroy(link->look);
    if (link->side != NULL)
        cudaStreamDestroy(link->side);
    free(link);
}

int dg_cuda_comm_joined(const Comm *c)
{
    const CudaLink *link = dg_cuda_current()->link;

    return link != NULL && link->size == c->size && link->rank == c->rank;
}

/* Those who wait for this rank's part would do so for ever. */
static int give_up(const Comm *c, CudaLink *link, int err)
{
    drop(link);
    dg_comm_alarm_end(c);
    return err;
}

/* On an error of this rank, of which others have not heard. */
static int agree(const Comm *c, const CudaLink *link, int err)
{
    if (err && !link->heard)
        dg_comm_alarm(c);
    return dg_agree(c, link->heard ? DG_OK : err);
}

/* All that was sent has arrived, where it is the host's too. */
static int arrive(CudaStream *s)
{
    const struct CudaDown *down = s->link->down;
    int err = watch(s, s->link->side, "sum of gradients, int64");

    for (int i = 0; i < 2 && !err && down != NULL; ++i)
        err = watch(s, dg_cuda_down_way(down, i),
                    "sums on their way to the host");
    return err;
}

/* --- that are waited for ---------------------------------------------------- */

/* What was asked of NCCL with this answer; a rank that fails meanwhile tells. */
static int finish(const Comm *c, CudaStream *s, ncclResult_t e,
                  const char *what)
{
    CudaLink *link = s->link;
    const int was = link->under_way;
    int err;

    link->under_way = 1;
    err = agree(c, link,
                e == ncclSuccess ? watch(s, s->stream, what)
                                 : link_error(e, what));
    link->under_way = was;
    return err ? give_up(c, link, err) : DG_OK;
}

int dg_cuda_comm_sum(const Comm *c, void *v, int64_t num, int whole)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclAllReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32,
                      ncclSum, s->link->nccl, s->stream);

    return finish(c, s, e,
                  whole ? "sum of gradients, int64"
                        : "sum of gradients, float32");
}

int dg_cuda_comm_sum_to(const Comm *c, void *v, int64_t num, int whole,
                        int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclReduce(v, v, (size_t)num, whole ? ncclInt64 : ncclFloat32, ncclSum,
                   root, s->link->nccl, s->stream);

    return finish(c, s, e, "sum of gradients to an owner");
}

int dg_cuda_comm_bcast(const Comm *c, void *v, size_t bytes, int root)
{
    CudaStream *s = dg_cuda_current();
    const ncclResult_t e =
        ncclBroadcast(v, v, bytes, ncclInt8, root, s->link->nccl, s->stream);

    return finish(c, s, e, "values from an owner");
}

/* --- beside the kernels ---------------------------------------------------- */

/* The link's stream comes after what has been queued so far. */
static void follow(const CudaStream *s)
{
    const CudaLink *link = s->link;

    dg_cuda_note(cudaEventRecord(link->ready, s->stream), "a sum's part");
    dg_cuda_note(cudaStreamWaitEvent(link->side, link->ready, 0),
                 "a sum's part");
}

/* All have given up, or this rank has heard that they will; or a wait has found
 * out why, which nobody has told yet. */
static int is_gone(const CudaStream *s)
{
    if (s->link->nccl != NULL)
        return DG_OK;
    return s->failed ? dg_cuda_wait()
                     : dg_fail(DG_EDEVICE, "NCCL: a rank has failed before");
}

int dg_cuda_comm_send(void *v, int64_t num, int whole, int root)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = s->link;
    const ncclDataType_t type = whole ? ncclInt64 : ncclFloat32;
    ncclResult_t e;

    if (is_gone(s))
        return DG_EDEVICE;
    follow(s);
    link->under_way = 1; /* kernels that want its place again wait for it */
    e = root < 0 ? ncclAllReduce(v, v, (size_t)num, type, ncclSum, link->nccl,
                                 link->side)
                 : ncclReduce(v, v, (size_t)num, type, ncclSum, root,
                              link->nccl, link->side);
    return e == ncclSuccess ? DG_OK : link_error(e, "a sum's part");
}

int dg_cuda_comm_descends(void)
{
    CudaLink *link = dg_cuda_current()->link;

    return link->down != NULL ? DG_OK : dg_cuda_down_create(&link->down);
}

int dg_cuda_comm_descend(const ExactSend *x)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = s->link;
    int full, err = DG_OK;

    while (!err && !s->failed && link->nccl != NULL &&
           dg_cuda_down_full(link->down, &full))
        err = watch_for(s, dg_cuda_down_way(link->down, full), NULL,
                        "sums on their way to the host");
    if (!err && s->failed)
        err = dg_cuda_wait();
    if (err || is_gone(s))
        return DG_EDEVICE;
    dg_cuda_down_queue(link->down, link->side, x);
    return DG_OK;
}

void dg_cuda_comm_turn(void)
{
    CudaStream *s = dg_cuda_current();
    const cudaStream_t was = s->stream;

    s->stream = s->link->side;
    s->link->side = was;
    s->link->turned = !s->link->turned;
}

void dg_cuda_comm_leaves(int slot)
{
    const CudaLink *link = dg_cuda_current()->link;

    dg_cuda_note(cudaEventRecord(link->left[slot], link->side), "a sum's slot");
}

void dg_cuda_comm_slot(int slot)
{
    const CudaStream *s = dg_cuda_current();

    s->link->in_slots = 1;
    dg_cuda_note(cudaStreamWaitEvent(s->stream, s->link->left[slot], 0),
                 "a sum's slot");
}

/* What is under way gets on while this rank waits for others. They may wait
 * for what this device, or its link, as it shows only now, does not send. */
void dg_cuda_comm_nudge(void)
{
    const CudaStream *s = dg_cuda_current();
    const CudaLink *link = s->link;
    ncclResult_t e = ncclSuccess;

    not_ready(link->side, NULL);
    if (link->nccl != NULL)
        ncclCommGetAsyncError(link->nccl, &e);
    if (s->failed || e != ncclSuccess)
        dg_comm_alarm(link->comm);
}

int dg_cuda_comm_fetch(const Comm *c, const CommFetch *f)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = s->link;
    ncclResult_t e, end;

    if (is_gone(s))
        return DG_EDEVICE;
    follow(s);
    link->under_way = 1;
    e = ncclGroupStart();
    for (int r = 0; r < c->size && e == ncclSuccess; ++r) {
        char *to = (char *)f->at + f->first[r];

        if (f->bytes[r] > 0)
            e = ncclBroadcast(r == c->rank ? f->own : to, to, f->bytes[r],
                              ncclInt8, r, link->nccl, link->side);
    }
    end = ncclGroupEnd();
    if (e == ncclSuccess)
        e = end;
    dg_cuda_comm_leaves(f->slot);
    return e == ncclSuccess ? DG_OK : link_error(e, "owners' values");
}

void dg_cuda_comm_beside(void)
{
    CudaStream *s = dg_cuda_current();

    follow(s);
    s->link->under_way = 1;
}

int dg_cuda_comm_pace(void)
{
    CudaStream *s = dg_cuda_current();
    CudaLink *link = s->link;
    int err = DG_OK;

    if (link->paced)
        err = watch_for(s, NULL, link->pace, "values of the next block");
    dg_cuda_note(cudaEventRecord(link->pace, s->stream), "a block's end");
    link->paced = 1;
    return err || !s->failed ? err : dg_cuda_wait();
}

/* All come here first, and what is under way gets on meanwhile: one that has new
 * products to load waits for its sums before it comes, and one whose kernels wait
 * for a slot. */
static int meet(const Comm *c, CudaLink *link, int err)
{
    ncclResult_t e = ncclSuccess;
    int64_t here = 1;

    /* others may not come here before; in slots all but a lost device goes on */
    if (err && !link->heard && (!link->in_slots || err == DG_EDEVICE))
        dg_comm_alarm(c);
    dg_comm_min_i64_while(c, &here, 1, dg_cuda_comm_nudge);
    if (link->nccl != NULL)
        ncclCommGetAsyncError(link->nccl, &e);
    return err || e == ncclSuccess ? err : link_error(e, "a sum's part");
}

int dg_cuda_comm_sent(const Comm *c, int err, int wait)
{
    CudaStream *s = dg_cuda_current();

    err = meet(c, s->link, err);
    if (!err && s->failed)
        err = dg_cuda_wait();
    err = agree(c, s->link, err);
    if (!err && wait) {
        err = agree(c, s->link, arrive(s));
        s->link->under_way = s->link->paced = 0;
    }
    return err ? give_up(c, s->link, err) : DG_OK;
}

#endif
