#include "base/clock.h"
#include "base/error.h"
#include "comm_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * A thread beside the one that uses a Comm looks at what that waits in, and for
 * how long. It makes no MPI call, since MPI may leave those to the main thread
 * (MPI_THREAD_FUNNELED), MPI_Abort among them: it writes one line and leaves
 * the process, whereupon the launcher ends the other ranks. A Comm of another
 * thread has records and a watch of its own: its waits are compared with its
 * like alone.
 *
 * Who is missed it reads from memory that the ranks of a node share: a rank
 * that has entered fewer meetings of all ranks than this one is not there, and
 * one whose own such thread stands still is stopped, wherever it is. Where only
 * some ranks meet, those are named that wait in nothing.
 *
 * What ranks of other hosts do is not seen. So a rank of whose host all others
 * wait as it does is more patient: the host of the one that is missed tells
 * first, if it has another rank. A rank that waits at an earlier meeting than
 * this one may itself wait for another host, and is not called missing then.
 */
enum { WHAT_BYTES = 48, HOST_BYTES = 64 };

/* where a rank is */
enum { OUTSIDE, MEETS_ALL, MEETS_SOME, AT_END };

/* A rank's record; written by the thread that waits, read by all of the node. */
typedef struct Slot {
    atomic_llong met;   /* meetings of all ranks that it has entered */
    atomic_llong waits; /* calls of MPI that it has entered */
    atomic_int place;
    atomic_llong beat; /* counted up by its watching thread */
    atomic_int told;   /* of the node's first slot: a rank has told */
    int rank, process;
    char what[WHAT_BYTES]; /* the last one; of use once nothing moves */
} Slot;

struct CommWatch {
    Comm comm; /* a copy: the thread's own */
    double patience;
    const char *doing;     /* what its waits are part of; "" */
    char host[HOST_BYTES]; /* " on NAME" where ranks have several, else "" */
    atomic_int *told;      /* by this watch or another of the job */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int over; /* under the lock */
    MPI_Win window;
    Slot *own;
    Slot **node;      /* of all ranks of the node */
    long long *beats; /* theirs when this wait began */
};

void dg_comm_enter(const Comm *c, const char *what, int all)
{
    struct CommWatch *w = c->impl->watch;

    if (w == NULL)
        return;
    snprintf(w->own->what, WHAT_BYTES, "%s", what);
    if (all)
        atomic_fetch_add(&w->own->met, 1);
    atomic_fetch_add(&w->own->waits, 1);
    atomic_store(&w->own->place, all ? MEETS_ALL : MEETS_SOME);
}

void dg_comm_leave(const Comm *c)
{
    if (c->impl->watch != NULL)
        atomic_store(&c->impl->watch->own->place, OUTSIDE);
}

/* --- the thread ---------------------------------------------------------- */

static int is_stopped(const struct CommWatch *w, int i)
{
    return atomic_load(&w->node[i]->beat) == w->beats[i];
}

/* Whether rank i of the node is what this one waits for. */
static int is_missing(const struct CommWatch *w, int i)
{
    const Slot *s = w->node[i], *own = w->own;
    const int place = atomic_load(&s->place);

    if (s == own || place == AT_END)
        return 0;
    if (is_stopped(w, i))
        return 1;
    if (w->host[0] != '\0' && place != OUTSIDE)
        return 0;
    return atomic_load(&s->met) < atomic_load(&own->met) ||
           (atomic_load(&own->place) == MEETS_SOME && place == OUTSIDE);
}

static int num_missing(const struct CommWatch *w)
{
    int num = 0;

    for (int i = 0; i < w->comm.node_size; i++)
        num += is_missing(w, i);
    return num;
}

/* The ranks of this node that are elsewhere: "; not there: rank 1 ...". */
static void name_missing(char *text, size_t size, const struct CommWatch *w)
{
    size_t used = 0;

    text[0] = '\0';
    for (int i = 0; i < w->comm.node_size && used < size; i++) {
        const Slot *s = w->node[i];

        if (is_missing(w, i))
            used += (size_t)snprintf(
                text + used, size - used, "%s rank %d (process %d, %s%s %s)",
                used == 0 ? "; not there:" : ",", s->rank, s->process,
                is_stopped(w, i) ? "stopped, " : "",
                atomic_load(&s->place) == OUTSIDE ? "last in" : "in", s->what);
    }
    if (used == 0 && w->host[0] == '\0')
        snprintf(text, size, "; all ranks of this node are there");
    else if (used == 0)
        snprintf(text, size,
                 "; of this host's ranks (%d) all wait, those of other hosts "
                 "and the network between are not seen from here",
                 w->comm.node_size);
}

/* The first of a node tells, and all that wait leave: the others a little later,
 * so that the launcher, which then ends all, does not cut off what it says. */
static void end_job(const struct CommWatch *w, double waited)
{
    char missing[1024];

    if (atomic_exchange(w->told, 1) == 0) {
        name_missing(missing, sizeof missing, w);
        fprintf(stderr,
                "dancegrpo: panic: rank %d of %d%s waits for the other ranks "
                "since %.0f s in %s%s (parallel.host_timeout_seconds)%s\n",
                w->comm.rank, w->comm.size, w->host, waited, w->own->what,
                w->doing, missing);
        fflush(stderr);
    } else {
        sleep(1);
    }
    _exit(1);
}

/* Sleeps; 1 once the watch is over. */
static int pause_for(struct CommWatch *w, double seconds)
{
    struct timespec until;
    int over;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&w->lock);
    while (!w->over &&
           pthread_cond_timedwait(&w->changed, &w->lock, &until) == 0)
        ;
    over = w->over;
    pthread_mutex_unlock(&w->lock);
    return over;
}

/*
 * Counts the time in which it was awake itself, so that a job which was
 * suspended as a whole does not end when it goes on. Ranks of higher numbers
 * are up to half more patient, and half more who misses nobody of its host's
 * where there are several: one of a job's nodes tells first.
 */
static void *watch(void *user)
{
    struct CommWatch *w = user;
    const double most = w->patience * (1 + 0.5 * w->comm.rank / w->comm.size);
    const double more = w->host[0] != '\0' ? 0.5 * w->patience : 0;
    const double tick = most < 10 ? most / 10 : 1;
    long long seen = -1;
    double waited = 0, last = dg_clock_now();

    while (!pause_for(w, tick)) {
        const long long waits = atomic_load(&w->own->waits);
        const double now = dg_clock_now();

        atomic_fetch_add(&w->own->beat, 1);
        if (waits != seen || atomic_load(&w->own->place) == OUTSIDE) {
            waited = 0;
            for (int i = 0; i < w->comm.node_size; i++)
                w->beats[i] = atomic_load(&w->node[i]->beat);
        } else {
            waited += now - last < 2 * tick ? now - last : 2 * tick;
        }
        seen = waits;
        last = now;
        if (waited > most && (waited > most + more || num_missing(w) > 0))
            end_job(w, waited);
    }
    return NULL;
}

/* --- life ---------------------------------------------------------------- */

static void free_watch(struct CommWatch *w)
{
    if (w == NULL)
        return;
    free(w->beats);
    free(w->node);
    free(w);
}

/* NULL: no memory */
static struct CommWatch *new_watch(const Comm *c)
{
    struct CommWatch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->comm = *c;
    w->node = calloc((size_t)c->node_size, sizeof(Slot *));
    w->beats = calloc((size_t)c->node_size, sizeof *w->beats);
    if (w->node != NULL && w->beats != NULL)
        return w;
    free_watch(w);
    return NULL;
}

/* Collective over the node. */
static int share_slots(struct CommWatch *w)
{
    const Comm *c = &w->comm;

    if (MPI_Win_allocate_shared(sizeof(Slot), 1, MPI_INFO_NULL, c->impl->node,
                                (void *)&w->own, &w->window) != MPI_SUCCESS)
        return dg_fail(DG_EDEVICE, "parallel.host_timeout_seconds: MPI has no "
                                   "memory that ranks share");
    memset(w->own, 0, sizeof *w->own);
    w->own->rank = c->rank;
    w->own->process = (int)getpid();
    for (int i = 0; i < c->node_size; i++) {
        MPI_Aint bytes;
        int unit;

        MPI_Win_shared_query(w->window, i, &bytes, &unit, (void *)&w->node[i]);
    }
    return DG_OK;
}

static int start(struct CommWatch *w)
{
    sigset_t all, before;
    pthread_condattr_t clock;
    int code;

    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &clock);
    pthread_condattr_destroy(&clock);
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    code = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0 ? DG_OK
                     : dg_fail(DG_ENOMEM, "parallel.host_timeout_seconds: no "
                                          "thread to watch");
}

static void stop(struct CommWatch *w)
{
    pthread_mutex_lock(&w->lock);
    w->over = 1;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
}

/* Collective over the node: also where a rank's thread has not begun. */
static void end_watch(struct CommWatch *w, int runs)
{
    atomic_store(&w->own->place, AT_END);
    if (runs)
        stop(w);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    MPI_Win_free(&w->window);
    free_watch(w);
}

/* of: the main thread's, or NULL */
static int watch_comm(Comm *c, double patience_s, const char *doing,
                      const struct CommWatch *of)
{
    struct CommWatch *w = new_watch(c);
    char host[HOST_BYTES - 4];
    int own, err;

    err = dg_agree(
        c, w != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "parallel.host_timeout_seconds: records"));
    if (err) {
        free_watch(w);
        return err;
    }
    w->patience = patience_s;
    w->doing = doing;
    dg_comm_host(c, host, sizeof host);
    snprintf(w->host, sizeof w->host, "%s%s", host[0] != '\0' ? " on " : "",
             host);
    err = dg_agree(c, share_slots(w)); /* all are zero behind it */
    if (err)
        return err;
    w->told = of != NULL ? of->told : &w->node[0]->told;
    own = start(w);
    err = dg_agree(c, own);
    if (err)
        end_watch(w, !own);
    else
        c->impl->watch = w;
    return err;
}

int dg_comm_watch(Comm *c, double patience_s)
{
    return c->size == 1 || patience_s <= 0
               ? DG_OK
               : watch_comm(c, patience_s, "", NULL);
}

int dg_comm_watch_beside(Comm *c, const Comm *of, const char *doing)
{
    const struct CommWatch *w = of->impl->watch;

    return w == NULL ? DG_OK : watch_comm(c, w->patience, doing, w);
}

void dg_comm_unwatch(Comm *c)
{
    struct CommWatch *w = c->impl->watch;

    if (w == NULL)
        return;
    dg_comm_barrier(c); /* watched, as what follows is not */
    c->impl->watch = NULL;
    end_watch(w, 1);
}
