#include "train/session.h"

#include "base/clock.h"
#include "train/engine.h"

#include <omp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

int dg_session_links(const Session *s)
{
    const Engine *e = dg_engine_of(s->backend);

    return s->links || (e->sends != NULL && e->sends(s->comm));
}

int dg_session_gpu(const Session *s)
{
    return s->backend->apart ? s->gpu : -1;
}

/* A signal comes to any thread, of MPI's too. */
static atomic_int asked;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler may wait for nobody");
static double started;

static void ask(int signal)
{
    (void)signal;
    atomic_store(&asked, 1);
}

static void pass_over(int signal)
{
    (void)signal;
}

void dg_stop_install(void)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGUSR1, SIGUSR2 };
    struct sigaction action, was;

    memset(&action, 0, sizeof action);
    action.sa_handler = ask;
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &action, NULL);
    /* a terminal that is closed; under nohup the run goes on without */
    if (sigaction(SIGHUP, NULL, &was) == 0 && was.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
    action.sa_flags = SA_RESTART | SA_RESETHAND; /* who insists, may */
    sigaction(SIGINT, &action, NULL);
    /* Ctrl-C ends what reads the screen, such as tee, before the checkpoint;
     * not ignored, which programs that score would inherit */
    action.sa_handler = pass_over;
    action.sa_flags = SA_RESTART;
    sigaction(SIGPIPE, &action, NULL);
    started = dg_clock_now();
}

void dg_session_digests_begin(const Session *s)
{
    omp_set_num_threads(s->host_threads > 0 ? s->host_threads : s->num_threads);
}

void dg_session_digests_end(void)
{
    omp_set_num_threads(1); /* as dg_team_create() left it */
}

int dg_stop_asked(void)
{
    return atomic_load(&asked);
}

int dg_stop_wanted(const Comm *c, double seconds)
{
    int64_t stop =
        dg_stop_asked() || (seconds > 0 && dg_clock_now() - started >= seconds);

    dg_comm_max_i64(c, &stop, 1);
    return stop != 0;
}
