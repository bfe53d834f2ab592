/*
 * To be preloaded: one call of the program's own code that fails, or all from it
 * on, as memory, a disk or threads may. Calls of libraries are not counted.
 * FAULTY=KIND:RANK:N     the N-th call of the kind on that rank fails
 * FAULTY=KIND:RANK:N:on  and all that come after it
 * FAULTY_IN=FROM+SIZE    calls of that part of the program alone, as nm -S has it
 * FAULTY_DIR             for files: those below it alone
 * FAULTY_COUNT=FILE      into FILE.RANK a line "KIND N WHERE" for each place in
 *                        the program, by the calls that led there: its first
 *                        call, and its own address
 * FAULTY_TOLD=FILE       where the first one was that failed: addresses in the
 *                        program, for addr2line
 * Kinds: memory (malloc and its like), disk (what writes, names or makes files),
 * read (what opens and reads them), thread (threads, and maps of memory).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MEMORY, DISK, READ, THREAD, KINDS };
static const char *const names[KINDS] = { "memory", "disk", "read", "thread" };

static long calls[KINDS], at;
static int kind = -1, on, ready, count_fd = -1;
/* call stacks seen, as sums: whether a call is the first of its place */
static uint64_t seen[1 << 14];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t begin, end, base; /* the program's code */
static const char *dir;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long rank_here(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_RANK");

    return text != NULL ? atol(text) : 0;
}

static int find_code(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    (void)data;
    base = info->dlpi_addr; /* the first is the program */
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD &&
            (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
            begin = base + info->dlpi_phdr[i].p_vaddr;
            end = begin + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

static void narrow(const char *to)
{
    unsigned long from, size;

    if (to == NULL || sscanf(to, "%lx+%lx", &from, &size) != 2)
        return;
    begin = base + from;
    end = begin + size;
}

__attribute__((constructor)) static void get_ready(void)
{
    const char *text = getenv("FAULTY"), *counts = getenv("FAULTY_COUNT");
    void *frames[1];
    char path[4096] = "", self[1024] = "";
    long n = 0;

    /* not a shell, mpirun or a program of the user's */
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 ||
        strcmp(strrchr(self, '/'), "/dancegrpo") != 0)
        return;
    dl_iterate_phdr(find_code, NULL);
    dir = getenv("FAULTY_DIR");
    backtrace(frames, 1); /* it takes memory the first time */
    for (int i = 0; text != NULL && i < KINDS; i++)
        if (sscanf(text, "%63[a-z]:%ld:%ld", path, &n, &at) == 3 &&
            strcmp(path, names[i]) == 0 && n == rank_here())
            kind = i;
    snprintf(path, sizeof path, "%s.%ld", counts, rank_here());
    if (counts != NULL)
        count_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    narrow(getenv("FAULTY_IN"));
    on = text != NULL && strstr(text, ":on") != NULL;
    ready = 1;
}

/* "kind n" for the first call of each place in the program, into the file */
static void count_place(int which, long n)
{
    void *frames[12];
    const int num = backtrace(frames, 12);
    uint64_t sum = 14695981039346656037u;
    char text[128];
    size_t at_seen;
    uintptr_t first = 0;

    for (int i = 2; i < num; i++)
        if ((uintptr_t)frames[i] >= begin && (uintptr_t)frames[i] < end) {
            first = first != 0 ? first : (uintptr_t)frames[i] - base;
            sum = (sum ^ ((uintptr_t)frames[i] - base)) * 1099511628211u;
        }
    sum |= 1;
    pthread_mutex_lock(&lock);
    at_seen = sum >> 50;
    while (seen[at_seen] != 0 && seen[at_seen] != sum)
        at_seen = (at_seen + 1) % (sizeof seen / sizeof *seen);
    if (seen[at_seen] == 0) {
        seen[at_seen] = sum;
        snprintf(text, sizeof text, "%s %ld 0x%lx\n", names[which], n,
                 (unsigned long)first);
        if (syscall(SYS_write, count_fd, text, strlen(text)) < 0)
            abort();
    }
    pthread_mutex_unlock(&lock);
}

static void tell_place(void)
{
    const char *file = getenv("FAULTY_TOLD");
    void *frames[24];
    char text[1024] = "";
    int n, fd, used = 0;

    if (file == NULL)
        return;
    n = backtrace(frames, 24);
    for (int i = 0; i < n; i++)
        if ((uintptr_t)frames[i] >= begin && (uintptr_t)frames[i] < end)
            used += snprintf(text + used, sizeof text - (size_t)used, "0x%lx ",
                             (unsigned long)((uintptr_t)frames[i] - base));
    fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd >= 0 && write(fd, text, (size_t)used) >= 0)
        close(fd);
}

/* whether this call of the program's fails */
static int fails(int which, const void *from)
{
    static __thread int inside;
    long n;

    if (!ready || inside || (uintptr_t)from < begin || (uintptr_t)from >= end)
        return 0;
    n = __atomic_add_fetch(&calls[which], 1, __ATOMIC_RELAXED);
    if (count_fd >= 0) {
        inside = 1;
        count_place(which, n);
        inside = 0;
    }
    if (which != kind || (on ? n < at : n != at))
        return 0;
    if (n == at) {
        inside = 1;
        tell_place();
        inside = 0;
    }
    return 1;
}

#define FROM __builtin_return_address(0)
#define REAL(type, name) \
    static type *real;   \
    if (real == NULL)    \
    *(void **)&real = dlsym(RTLD_NEXT, #name)

static int below(const char *path)
{
    return dir != NULL && path != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static int below_fd(int fd)
{
    char link[64], path[4096];
    ssize_t n;

    if (!ready)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return below(path);
}

static int failed(int error)
{
    errno = error;
    return -1;
}

/* --- memory ------------------------------------------------------------------ */

static int no_memory(const void *from)
{
    if (!fails(MEMORY, from))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n)
{
    return no_memory(FROM) ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    return no_memory(FROM) ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    return no_memory(FROM) ? NULL : __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n)
{
    return no_memory(FROM) ? NULL : __libc_memalign(alignment, n);
}
char *strdup(const char *text)
{
    char *copy = no_memory(FROM) ? NULL : __libc_malloc(strlen(text) + 1);

    return copy != NULL ? strcpy(copy, text) : NULL;
}

/* --- files ------------------------------------------------------------------- */

typedef int Open(const char *, int, ...);
typedef FILE *Fopen(const char *, const char *);
typedef ssize_t Write(int, const void *, size_t);
typedef ssize_t Pwrite(int, const void *, size_t, off_t);
typedef ssize_t Read(int, void *, size_t);
typedef ssize_t Pread(int, void *, size_t, off_t);
typedef int OfFd(int);
typedef int Two(const char *, const char *);
typedef int Mode(const char *, mode_t);
typedef int Truncate(int, off_t);
typedef DIR *Opendir(const char *);

static int opened(const char *path, int how, unsigned mode, const void *from)
{
    const int writes = (how & O_ACCMODE) != O_RDONLY;

    REAL(Open, open);
    if (below(path) && fails(writes ? DISK : READ, from))
        return failed(writes ? ENOSPC : EIO);
    return real(path, how, mode);
}
int open(const char *path, int how, ...)
{
    unsigned mode;
    va_list list;

    va_start(list, how);
    mode = (how & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, unsigned) : 0;
    va_end(list);
    return opened(path, how, mode, FROM);
}
int open64(const char *path, int how, ...) __attribute__((alias("open")));
FILE *fopen(const char *path, const char *how)
{
    const int writes = strpbrk(how, "wa+") != NULL;

    REAL(Fopen, fopen);
    if (below(path) && fails(writes ? DISK : READ, FROM)) {
        errno = writes ? ENOSPC : EIO;
        return NULL;
    }
    return real(path, how);
}
DIR *opendir(const char *path)
{
    REAL(Opendir, opendir);
    if (below(path) && fails(READ, FROM)) {
        errno = EIO;
        return NULL;
    }
    return real(path);
}
ssize_t write(int fd, const void *p, size_t n)
{
    REAL(Write, write);
    if (ready && below_fd(fd) && fails(DISK, FROM))
        return failed(ENOSPC);
    return real(fd, p, n);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t place)
{
    REAL(Pwrite, pwrite);
    if (ready && below_fd(fd) && fails(DISK, FROM))
        return failed(ENOSPC);
    return real(fd, p, n, place);
}
ssize_t read(int fd, void *p, size_t n)
{
    REAL(Read, read);
    if (ready && below_fd(fd) && fails(READ, FROM))
        return failed(EIO);
    return real(fd, p, n);
}
ssize_t pread(int fd, void *p, size_t n, off_t place)
{
    REAL(Pread, pread);
    if (ready && below_fd(fd) && fails(READ, FROM))
        return failed(EIO);
    return real(fd, p, n, place);
}
int fsync(int fd)
{
    REAL(OfFd, fsync);
    return below_fd(fd) && fails(DISK, FROM) ? failed(EIO) : real(fd);
}
int rename(const char *a, const char *b)
{
    REAL(Two, rename);
    return below(a) && fails(DISK, FROM) ? failed(EACCES) : real(a, b);
}
int mkdir(const char *path, mode_t mode)
{
    REAL(Mode, mkdir);
    return below(path) && fails(DISK, FROM) ? failed(ENOSPC) : real(path, mode);
}
int ftruncate(int fd, off_t n)
{
    REAL(Truncate, ftruncate);
    return fails(below_fd(fd) ? DISK : THREAD, FROM) ? failed(ENOSPC)
                                                     : real(fd, n);
}
/* --- threads, maps -------------------------------------------------------------- */

typedef int Create(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                   void *);
typedef void *Map(void *, size_t, int, int, int, off_t);

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*run)(void *),
                   void *data)
{
    REAL(Create, pthread_create);
    return fails(THREAD, FROM) ? EAGAIN : real(t, a, run, data);
}
void *mmap(void *p, size_t n, int prot, int how, int fd, off_t place)
{
    REAL(Map, mmap);
    /* the emulated GPU's own are left alone */
    if (((how & MAP_NORESERVE) == 0 || prot == PROT_NONE) &&
        fails(THREAD, FROM)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return real(p, n, prot, how, fd, place);
}
