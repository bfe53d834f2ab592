/*
 * To be preloaded: what a run meets on other machines.
 * SLOW_DISK_MS   each fsync() takes so much longer
 * BUSY_DISK      the first HDF5 file that is not written by the main thread opens
 *                when the others have computed for a while, or after 20 s, and
 *                it is said which: whether files are written beside something,
 *                on a machine as busy as you like
 * ONE_THREAD_MPI MPI lets one thread call it, whatever is asked for
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef int Sync(int fd);
typedef int Open(const char *path, int how, ...);
typedef int OpenAll(MPI_Comm c, const char *path, int how, MPI_Info info,
                    MPI_File *file);
typedef int Start(int *argc, char ***argv, int wanted, int *provided);

static double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* of processors, by all threads but this */
static double others(void)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID) - seconds(CLOCK_THREAD_CPUTIME_ID);
}

static void wait_for_others(void)
{
    const struct timespec pause = { 0, 1000000 };
    const double began = others(), at = seconds(CLOCK_MONOTONIC);
    static int asked;

    if (asked || getenv("BUSY_DISK") == NULL || syscall(SYS_gettid) == getpid())
        return;
    asked = 1;
    while (others() - began < 1e-3 && seconds(CLOCK_MONOTONIC) - at < 20)
        nanosleep(&pause, NULL);
    fprintf(stderr, "slow disk: %s meanwhile\n",
            others() - began < 1e-3 ? "nobody computes" : "others compute");
}

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

static void open_it(const char *path)
{
    const char *end = strstr(path, ".h5.tmp");

    if (end != NULL && end[7] == '\0')
        wait_for_others();
}

int open(const char *path, int how, ...)
{
    unsigned rights = 0;
    va_list list;
    Open *real;

    if ((how & O_CREAT) != 0) {
        va_start(list, how);
        rights = va_arg(list, unsigned);
        va_end(list);
    }
    open_it(path);
    *(void **)&real = dlsym(RTLD_NEXT, "open");
    return real(path, how, rights);
}

int MPI_File_open(MPI_Comm c, const char *path, int how, MPI_Info info,
                  MPI_File *file)
{
    OpenAll *real;

    open_it(path);
    *(void **)&real = dlsym(RTLD_NEXT, "MPI_File_open");
    return real(c, path, how, info, file);
}

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided)
{
    Start *real;

    *(void **)&real = dlsym(RTLD_NEXT, "MPI_Init_thread");
    return real(argc, argv,
                getenv("ONE_THREAD_MPI") != NULL ? MPI_THREAD_FUNNELED : wanted,
                provided);
}
