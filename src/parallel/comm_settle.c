/* The threads that MPI began with, until they sleep. */
#include "comm_internal.h"

#include "base/clock.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PAUSE_NS = 50000, LAST_PAUSE_NS = 5000000 };

/* One that never sleeps is not waited for longer. */
static const double most_s = 2;

/* One look at all threads but the first. */
typedef struct Look {
    int asleep;         /* all are */
    long long switches; /* how often they have been put on or off a processor */
} Look;

/* Its state first, its switches last: one that was asleep at two looks, with
 * the same number, slept from the end of the one to the beginning of the other.
 * Of what cannot be read nothing is waited for. */
static void look_at(Look *l, const char *thread)
{
    char path[64], line[128], state = 'S';
    long long n;
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/task/%.20s/status", thread);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "State: %c", &state);
        if (sscanf(line, "voluntary_ctxt_switches: %lld", &n) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %lld", &n) == 1)
            l->switches += n;
    }
    if (f != NULL)
        fclose(f);
    l->asleep &= state == 'S';
}

static Look look(void)
{
    Look l = { .asleep = 1, .switches = 0 };
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *e;

    while (tasks != NULL && (e = readdir(tasks)) != NULL)
        if (e->d_name[0] != '.' && atol(e->d_name) != (long)getpid())
            look_at(&l, e->d_name);
    if (tasks != NULL)
        closedir(tasks);
    return l;
}

void dg_comm_settle(void)
{
    const double began = dg_clock_now();
    struct timespec pause = { 0, FIRST_PAUSE_NS };
    Look before = look(), now = look();

    while (!(before.asleep && now.asleep && before.switches == now.switches) &&
           dg_clock_now() - began < most_s) {
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < LAST_PAUSE_NS)
            pause.tv_nsec *= 2;
        before = look();
        now = look();
    }
}
