#ifndef DG_BASE_SIGNAL_CHAIN_H
#define DG_BASE_SIGNAL_CHAIN_H
/*
 * Handlers of signals that a fault sends, in front of those that are there: of MPI,
 * of a sanitizer, or the system's own.
 */
#include <signal.h>

typedef void SignalHandler(int signal, siginfo_t *info, void *context);

/** handler has the signal from now on; *before out: who had it. */
void dg_signal_take(int signal, SignalHandler *handler,
                    struct sigaction *before);

/** What is not the handler's own is told as it was before it came. By the handler,
 *  with its arguments. */
void dg_signal_pass_on(int signal, siginfo_t *info, void *context,
                       const struct sigaction *before);

#endif
