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

/* As the system does what is there before us: by default a process ends. What
 * somebody sent comes once; what the processor met comes again. */
static void fall_back(int signal, const siginfo_t *info,
                      const struct sigaction *before)
{
    const int sent = info->si_code <= 0;

    if (sent && before->sa_handler == SIG_IGN)
        return;
    sigaction(signal, before, NULL);
    if (sent)
        raise(signal);
}

void dg_signal_pass_on(int signal, siginfo_t *info, void *context,
                       const struct sigaction *before)
{
    const struct sigaction once = { .sa_handler = SIG_DFL };

    if ((before->sa_flags & SA_SIGINFO) == 0 &&
        (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN)) {
        fall_back(signal, info, before);
        return;
    }
    /* it counts on that: what it returns to meets the same again */
    if ((before->sa_flags & SA_RESETHAND) != 0)
        sigaction(signal, &once, NULL);
    if ((before->sa_flags & SA_SIGINFO) != 0)
        before->sa_sigaction(signal, info, context);
    else
        before->sa_handler(signal);
}
