#ifndef DG_PARALLEL_COMM_INTERNAL_H
#define DG_PARALLEL_COMM_INTERNAL_H
/* MPI's handles behind a Comm: for the files of this folder alone. */
#include "parallel/comm.h"

#include <mpi.h>

struct CommWatch;

struct CommImpl {
    MPI_Comm mpi;
    MPI_Comm node;           /* the ranks of this node, in the same order */
    MPI_Comm firsts;         /* the first ranks of all nodes; null on others */
    struct CommWatch *watch; /* comm_watch.c; NULL: nobody watches */
    int sleeps;              /* who waits: dg_comm_beside() */
    MPI_Request *alarms;     /* comm_alarm.c; NULL: this rank gave none */
};

/** Around each call of MPI that waits for other ranks; all: that all ranks
 *  meet in. By the one thread that uses c. */
void dg_comm_enter(const Comm *c, const char *what, int all);
void dg_comm_leave(const Comm *c);

/** Watches c as 'of' is watched, if it is: of both, one tells. doing: says
 *  behind a wait's name what it is part of. Collective. Errors, agreed: those
 *  of dg_comm_watch(). */
int dg_comm_watch_beside(Comm *c, const Comm *of, const char *doing);

/** One look whether what was begun is done, for those who sleep between looks.
 *  Not collective. */
int dg_comm_is_done(MPI_Request *request);

/** Waits, for a bounded time, until all other threads of the process sleep: by
 *  the first thread, right behind MPI_Init(). Not collective.
 *
 *  Open MPI 4 leaves its threads an event that MPI_Init() does not wait for, nor
 *  MPI_Finalize() before it unloads the code that takes it: where all
 *  processors were busy, a short command had said all it should and then ended
 *  by a segmentation fault. What is not Linux is not waited for. */
void dg_comm_settle(void);

#endif
