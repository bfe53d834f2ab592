/*
 * To be preloaded: what a run meets on other machines.
 * SLOW_DISK_MS   each fsync() takes so much longer
 * ONE_THREAD_MPI MPI lets one thread call it, whatever is asked for
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <stdlib.h>
#include <time.h>

typedef int Sync(int fd);
typedef int Start(int *argc, char ***argv, int wanted, int *provided);

int fsync(int fd)
{
    const char *ms = getenv("SLOW_DISK_MS");
    const long ns = ms != NULL ? 1000000 * atol(ms) : 0;
    const struct timespec pause = { ns / 1000000000, ns % 1000000000 };
    Sync *real;

    *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    nanosleep(&pause, NULL);
    return real(fd);
}

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided)
{
    Start *real;

    *(void **)&real = dlsym(RTLD_NEXT, "MPI_Init_thread");
    return real(argc, argv,
                getenv("ONE_THREAD_MPI") != NULL ? MPI_THREAD_FUNNELED : wanted,
                provided);
}
