#include "base/signal_chain.h"

#include <string.h>

void dg_signal_take(int signal, SignalHandler *handler,
                    struct sigaction *before)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, before);
}

void dg_signal_pass_on(int signal, siginfo_t *info, void *context,
                       const struct sigaction *before)
{
    if ((before->sa_flags & SA_SIGINFO) != 0)
        before->sa_sigaction(signal, info, context);
    else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
        before->sa_handler(signal);
    else
        sigaction(signal, before, NULL); /* and again, with what follows */
}
