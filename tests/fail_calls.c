/*
 * To be preloaded: a call of the system that fails, or at which the process dies.
 *
 *   FAIL_AT=CALL:N       the N-th call of this name in a process, from 1
 *   FAIL_HOW=NAME        what happens there: EIO, ENOSPC, ENOMEM or EINTR, the
 *                        call fails so; kill, term, stop, the process gets this
 *                        signal and then makes the call
 *   FAIL_ON=FROM         from then on all calls of this name fail
 *   FAIL_RANK=R          in this rank of Open MPI alone
 *   FAIL_FOLDER=TEXT     of calls on files: those whose path has this in it
 *   FAIL_COUNTS=FILE     how many there were of each, "CALL N" a line, at the end
 *
 * Memory and threads are counted where the program's own code asks for them,
 * calls on files wherever they come from: HDF5 and MPI make most of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MEMORY,
    MAP,
    THREAD,
    OPEN,
    READ,
    WRITE,
    SYNC,
    RENAME,
    ROOM,
    FOLDER,
    REMOVE,
    STREAM,
    NUM_CALLS
};

static const char *const names[NUM_CALLS] = {
    "memory", "map",  "thread", "open",   "read",   "write",
    "sync",   "name", "room",   "folder", "remove", "stream",
};

static volatile long counts[NUM_CALLS];
static int chosen = -1, error, signal_no, from_then_on, mine = 1;
static long at;
static const char *folder;
static uintptr_t begin, end;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

/* the first object is the program */
static int find_text(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + p->p_vaddr;

        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0) {
            begin = start;
            end = start + p->p_memsz;
        }
    }
    return 1;
}

static int is_ours(const void *from)
{
    return (uintptr_t)from >= begin && (uintptr_t)from < end;
}

static void find_how(const char *how)
{
    static const struct {
        const char *name;
        int error, signal;
    } all[] = { { "EIO", EIO, 0 },       { "ENOSPC", ENOSPC, 0 },
                { "ENOMEM", ENOMEM, 0 }, { "EINTR", EINTR, 0 },
                { "kill", 0, SIGKILL },  { "term", 0, SIGTERM },
                { "stop", 0, SIGSTOP } };

    for (size_t i = 0; how != NULL && i < sizeof all / sizeof all[0]; i++)
        if (strcmp(how, all[i].name) == 0) {
            error = all[i].error;
            signal_no = all[i].signal;
        }
}

__attribute__((constructor)) static void begin_it(void)
{
    const char *which = getenv("FAIL_AT"), *rank = getenv("FAIL_RANK"),
               *me = getenv("OMPI_COMM_WORLD_RANK");
    const char *colon = which != NULL ? strchr(which, ':') : NULL;

    /* of the programs that are run on the way, and by it, none */
    if (strcmp(program_invocation_short_name, "dancegrpo") != 0)
        return;
    folder = getenv("FAIL_FOLDER");
    from_then_on = getenv("FAIL_ON") != NULL;
    mine = rank == NULL || strcmp(rank, me != NULL ? me : "0") == 0;
    find_how(getenv("FAIL_HOW"));
    dl_iterate_phdr(find_text, NULL);
    for (int i = 0; colon != NULL && i < NUM_CALLS; i++)
        if (strlen(names[i]) == (size_t)(colon - which) &&
            strncmp(which, names[i], (size_t)(colon - which)) == 0) {
            at = atol(colon + 1);
            chosen = i;
        }
}

__attribute__((destructor)) static void end_it(void)
{
    const char *path = getenv("FAIL_COUNTS");
    FILE *f;

    chosen = -1;
    if (path == NULL || end == begin || (f = fopen(path, "w")) == NULL)
        return;
    for (int i = 0; i < NUM_CALLS; i++)
        fprintf(f, "%s %ld\n", names[i], counts[i]);
    fclose(f);
}

/* whether this call fails, errno then says why */
static int fails(int call)
{
    const long n = __atomic_add_fetch(&counts[call], 1, __ATOMIC_RELAXED);

    if (call != chosen || !mine || n < at || (n > at && !from_then_on))
        return 0;
    if (signal_no != 0 && n == at)
        raise(signal_no);
    errno = error;
    return error != 0;
}

static int fails_on(int call, const char *path)
{
    return folder != NULL && path != NULL && strstr(path, folder) != NULL &&
           fails(call);
}

static int fails_in(int call, int fd)
{
    char link[64], path[1024];
    ssize_t num;

    if (folder == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    num = readlink(link, path, sizeof path - 1);
    path[num > 0 ? num : 0] = '\0';
    return fails_on(call, path);
}

/* the library's own */
static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* --- memory and threads ------------------------------------------------------- */

__attribute__((noinline)) void *malloc(size_t size)
{
    return is_ours(__builtin_return_address(0)) && fails(MEMORY)
               ? NULL
               : __libc_malloc(size);
}

__attribute__((noinline)) void *calloc(size_t num, size_t size)
{
    return is_ours(__builtin_return_address(0)) && fails(MEMORY)
               ? NULL
               : __libc_calloc(num, size);
}

__attribute__((noinline)) void *realloc(void *p, size_t size)
{
    return is_ours(__builtin_return_address(0)) && fails(MEMORY)
               ? NULL
               : __libc_realloc(p, size);
}

__attribute__((noinline)) void *aligned_alloc(size_t alignment, size_t size)
{
    return is_ours(__builtin_return_address(0)) && fails(MEMORY)
               ? NULL
               : __libc_memalign(alignment, size);
}

__attribute__((noinline)) int posix_memalign(void **p, size_t alignment,
                                             size_t size)
{
    if (is_ours(__builtin_return_address(0)) && fails(MEMORY))
        return ENOMEM;
    *p = __libc_memalign(alignment, size);
    return *p != NULL ? 0 : ENOMEM;
}

__attribute__((noinline)) char *strdup(const char *text)
{
    char *copy = is_ours(__builtin_return_address(0)) && fails(MEMORY)
                     ? NULL
                     : __libc_malloc(strlen(text) + 1);

    return copy != NULL ? strcpy(copy, text) : NULL;
}

__attribute__((noinline)) void *mmap(void *address, size_t length, int rights,
                                     int flags, int fd, off_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off_t);

    if (next == NULL)
        *(void **)&next = real("mmap");
    return is_ours(__builtin_return_address(0)) && fails(MAP)
               ? MAP_FAILED
               : next(address, length, rights, flags, fd, offset);
}

__attribute__((noinline)) int pthread_create(pthread_t *t,
                                             const pthread_attr_t *how,
                                             void *(*run)(void *), void *arg)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);

    if (next == NULL)
        *(void **)&next = real("pthread_create");
    return is_ours(__builtin_return_address(0)) && fails(THREAD)
               ? EAGAIN
               : next(t, how, run, arg);
}

/* --- files -------------------------------------------------------------------- */

int open(const char *path, int how, ...)
{
    static int (*next)(const char *, int, ...);
    unsigned rights = 0;
    va_list list;

    if ((how & O_CREAT) != 0) {
        va_start(list, how);
        rights = va_arg(list, unsigned);
        va_end(list);
    }
    if (next == NULL)
        *(void **)&next = real("open");
    return fails_on(OPEN, path) ? -1 : next(path, how, rights);
}

int open64(const char *path, int how, ...) __attribute__((alias("open")));

ssize_t read(int fd, void *to, size_t num)
{
    static ssize_t (*next)(int, void *, size_t);

    if (next == NULL)
        *(void **)&next = real("read");
    return fails_in(READ, fd) ? -1 : next(fd, to, num);
}

ssize_t pread(int fd, void *to, size_t num, off_t where)
{
    static ssize_t (*next)(int, void *, size_t, off_t);

    if (next == NULL)
        *(void **)&next = real("pread");
    return fails_in(READ, fd) ? -1 : next(fd, to, num, where);
}

ssize_t write(int fd, const void *from, size_t num)
{
    static ssize_t (*next)(int, const void *, size_t);

    if (next == NULL)
        *(void **)&next = real("write");
    return fails_in(WRITE, fd) ? -1 : next(fd, from, num);
}

ssize_t pread64(int fd, void *to, size_t num, off_t where)
{
    return pread(fd, to, num, where);
}

ssize_t pwrite(int fd, const void *from, size_t num, off_t where)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);

    if (next == NULL)
        *(void **)&next = real("pwrite");
    return fails_in(WRITE, fd) ? -1 : next(fd, from, num, where);
}

ssize_t pwrite64(int fd, const void *from, size_t num, off_t where)
{
    return pwrite(fd, from, num, where);
}

int fsync(int fd)
{
    static int (*next)(int);

    if (next == NULL)
        *(void **)&next = real("fsync");
    return fails_in(SYNC, fd) ? -1 : next(fd);
}

int rename(const char *from, const char *to)
{
    static int (*next)(const char *, const char *);

    if (next == NULL)
        *(void **)&next = real("rename");
    return fails_on(RENAME, from) ? -1 : next(from, to);
}

int fallocate(int fd, int how, off_t from, off_t num)
{
    static int (*next)(int, int, off_t, off_t);

    if (next == NULL)
        *(void **)&next = real("fallocate");
    return fails_in(ROOM, fd) ? -1 : next(fd, how, from, num);
}

int ftruncate(int fd, off_t num)
{
    static int (*next)(int, off_t);

    if (next == NULL)
        *(void **)&next = real("ftruncate");
    return fails_in(ROOM, fd) ? -1 : next(fd, num);
}

int fallocate64(int fd, int how, off_t from, off_t num)
{
    return fallocate(fd, how, from, num);
}

int ftruncate64(int fd, off_t num)
{
    return ftruncate(fd, num);
}

int mkdir(const char *path, mode_t rights)
{
    static int (*next)(const char *, mode_t);

    if (next == NULL)
        *(void **)&next = real("mkdir");
    return fails_on(FOLDER, path) ? -1 : next(path, rights);
}

int unlink(const char *path)
{
    static int (*next)(const char *);

    if (next == NULL)
        *(void **)&next = real("unlink");
    return fails_on(REMOVE, path) ? -1 : next(path);
}

FILE *fopen(const char *path, const char *how)
{
    static FILE *(*next)(const char *, const char *);

    if (next == NULL)
        *(void **)&next = real("fopen");
    return fails_on(OPEN, path) ? NULL : next(path, how);
}

FILE *fopen64(const char *path, const char *how)
{
    return fopen(path, how);
}

/* a stream's bytes go down inside of the library, and are lost there */
int fflush(FILE *f)
{
    static int (*next)(FILE *);

    if (next == NULL)
        *(void **)&next = real("fflush");
    return f != NULL && fails_in(STREAM, fileno(f)) ? EOF : next(f);
}

int fclose(FILE *f)
{
    static int (*next)(FILE *);
    const int lost = fails_in(STREAM, fileno(f));

    if (next == NULL)
        *(void **)&next = real("fclose");
    return next(f) == 0 && !lost ? 0 : EOF;
}
