#ifndef DG_PARALLEL_COMM_INTERNAL_H
#define DG_PARALLEL_COMM_INTERNAL_H
/* MPI's handles behind a Comm: for the files of this folder alone. */
#include "parallel/comm.h"

#include <mpi.h>

struct CommWatch;

struct CommImpl {
    MPI_Comm mpi;
    MPI_Comm node;           /* the ranks of this node, in the same order */
    struct CommWatch *watch; /* comm_watch.c; NULL: nobody watches */
    MPI_Request *alarms;     /* comm_alarm.c; NULL: this rank gave none */
};

/** Around each call of MPI that waits for other ranks; all: that all ranks
 *  meet in. By the main thread. */
void dg_comm_enter(const Comm *c, const char *what, int all);
void dg_comm_leave(const Comm *c);

/** Ends the watch, if there is one. Collective. */
void dg_comm_unwatch(Comm *c);

#endif
