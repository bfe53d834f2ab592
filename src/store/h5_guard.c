#include "h5_internal.h"

#include "base/signal_chain.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

/*
 * HDF5 1.10 trusts what its own checksums confirm: a file that somebody made, or
 * that an error of another program wrote, may end it by a signal. A process
 * cannot go on from there, but it can say which file it was.
 */
static const int signals[] = { SIGSEGV, SIGFPE, SIGABRT };
enum { NUM_SIGNALS = sizeof signals / sizeof *signals };

static struct sigaction before[NUM_SIGNALS]; /* of MPI, or the system's own */

/* What this thread reads at the moment, within how many calls of ours. */
static _Thread_local struct {
    const char *path;
    int depth;
} reading;

static void put(const char *text)
{
    /* nothing can be done where it is not written */
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

/* What comes from elsewhere is told as it was before. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
    int i = 0;

    while (signals[i] != signal)
        i++;
    dg_signal_pass_on(signal, info, context, &before[i]);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    /* another process is no fault of a file's */
    if (reading.depth == 0 || info->si_code == SI_USER) {
        pass_on(signal, info, context);
        return;
    }
    put("ERROR ");
    put(reading.path);
    put(": ended HDF5 by a signal, while it was read: the file is damaged, or "
        "was made to\n");
    _exit(1);
}

static void listen(void)
{
    for (int i = 0; i < NUM_SIGNALS; i++)
        dg_signal_take(signals[i], on_signal, &before[i]);
}

void dg_h5_enter(const char *path)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, listen);
    if (reading.depth++ == 0)
        reading.path = path;
}

int dg_h5_leave(int result)
{
    reading.depth--;
    return result;
}
