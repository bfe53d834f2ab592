/* Ranks that learn of each other's failures while they do not meet, and
 * meetings during which something else goes on. */
#include "parallel/comm.h"

#include "comm_internal.h"

#include <stdlib.h>
#include <time.h>

/* Apart from those of dg_comm_pass(). */
enum { ALARM_TAG = 1 };

/* How long a rank only looks, and then how often it does what else it has. */
enum { LOOKS_NS = 2000000, PAUSE_NS = 50000 };

void dg_comm_alarm(const Comm *c)
{
    struct CommImpl *impl = c->impl;

    if (impl->alarms != NULL || c->size == 1)
        return;
    impl->alarms = calloc((size_t)c->size, sizeof *impl->alarms);
    if (impl->alarms == NULL)
        return; /* they will lose their patience */
    for (int r = 0; r < c->size; r++)
        impl->alarms[r] = MPI_REQUEST_NULL;
    for (int r = 0; r < c->size; r++)
        if (r != c->rank)
            MPI_Isend(NULL, 0, MPI_BYTE, r, ALARM_TAG, impl->mpi,
                      &impl->alarms[r]);
}

int dg_comm_alarmed(const Comm *c)
{
    int there = 0;

    if (c->size > 1)
        MPI_Iprobe(MPI_ANY_SOURCE, ALARM_TAG, c->impl->mpi, &there,
                   MPI_STATUS_IGNORE);
    return there;
}

void dg_comm_alarm_end(const Comm *c)
{
    struct CommImpl *impl = c->impl;
    const int mine = impl->alarms != NULL;
    int gave[c->size];

    dg_comm_allgather(c, gave, &mine, sizeof mine);
    for (int r = 0; r < c->size; r++)
        if (gave[r] && r != c->rank)
            MPI_Recv(NULL, 0, MPI_BYTE, r, ALARM_TAG, impl->mpi,
                     MPI_STATUS_IGNORE);
    for (int r = 0; mine && r < c->size; r++)
        MPI_Wait(&impl->alarms[r], MPI_STATUS_IGNORE);
    free(impl->alarms);
    impl->alarms = NULL;
}

void dg_comm_min_i64_while(const Comm *c, int64_t *v, int num,
                           void (*meanwhile)(void))
{
    const struct timespec pause = { 0, PAUSE_NS };
    MPI_Request request;
    int64_t waited = 0;

    if (c->size == 1)
        return;
    dg_comm_enter(c, "a meeting", 1);
    MPI_Iallreduce(MPI_IN_PLACE, v, num, MPI_INT64_T, MPI_MIN, c->impl->mpi,
                   &request);
    while (!dg_comm_is_done(&request)) {
        nanosleep(&pause, NULL);
        waited += PAUSE_NS;
        if (waited < LOOKS_NS)
            continue;
        meanwhile();
        waited = 0;
    }
    dg_comm_leave(c);
}
