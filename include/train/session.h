#ifndef DG_TRAIN_SESSION_H
#define DG_TRAIN_SESSION_H
/*
 * What every long command has: ranks, configuration, kernels, provenance.
 */
#include "config/config.h"
#include "parallel/comm.h"
#include "store/h5.h"
#include "tensor/backend.h"

typedef struct Session {
    const Comm *comm;
    const Config *config; /* the same on all ranks */
    const Backend *backend;
    FileInfo info;    /* goes into every file */
    int num_threads;  /* workers of this rank */
    int host_threads; /* of the host beside a GPU's worker; 0: one */
    /* ranks on this rank's device, where the backend's memory is apart */
    int device_ranks;
    int gpu; /* this rank's, by its number among those that it sees; there too */
    int unlike; /* a rank that computes otherwise than rank 0 by what is known of
                   its kernels; 0: none */
    int links;  /* 1: they sum on their own, as plans of GPUs have it; else ask
                  dg_session_links() */
    /* whose sizes plans of GPUs count: a GPU's, which need not be there, or
     * NULL where the program knows none, for those of backend */
    const Backend *gpu_kernels;
} Session;

/** Whether the devices of all ranks sum on their own: not through the host. Not
 *  collective. */
int dg_session_links(const Session *s);

/** The number of this rank's GPU, -1 where its kernels are the host's. Not
 *  collective. */
int dg_session_gpu(const Session *s);

/** From now on this thread's digests are taken by all of the rank's threads,
 *  which have nothing else to do, unless the session says otherwise; to the
 *  end. */
void dg_session_digests_begin(const Session *s);
void dg_session_digests_end(void);

/** Ends of a run that are not errors. */
typedef enum RunEnd {
    DG_RUN_DONE,
    DG_RUN_STOPPED,
    DG_RUN_NOT_BEGUN /* stopped while it was set up: all is as it was */
} RunEnd;

/** From now on SIGTERM, SIGINT, SIGUSR1, SIGUSR2, and SIGHUP unless it is ignored,
 *  ask for a stop; a second SIGINT ends the program at once. A screen that nobody
 *  reads any more (SIGPIPE) ends nothing: log.txt has all. Before MPI's start, which
 *  takes a while in which a scheduler may send them. */
void dg_stop_install(void);

/** 1 if this rank was asked to stop. Not collective. */
int dg_stop_asked(void);

/** 1 if any rank was asked to stop or seconds have passed since the start of
 *  the program (0: no limit). Collective. */
int dg_stop_wanted(const Comm *c, double seconds);

#endif
