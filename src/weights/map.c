#include "mapped.h"

#include "base/error.h"
#include "base/in_file.h"
#include "base/signal_chain.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a thread is reading, and where it goes on if that cannot be read. */
typedef struct Guard {
    const char *bytes;
    size_t num_bytes;
    sigjmp_buf out;
} Guard;

static _Thread_local Guard *guard;
static struct sigaction before; /* of MPI, or the system's own */

/* The page of a mapping is not there any more: the system has no other way to
 * tell so. What is not guarded is told as it was before. */
static void on_bus_error(int signal, siginfo_t *info, void *context)
{
    Guard *g = guard;
    const char *at = info->si_addr;

    if (g != NULL && at >= g->bytes && at < g->bytes + g->num_bytes)
        siglongjmp(g->out, 1);
    dg_signal_pass_on(signal, info, context, &before);
}

static void listen(void)
{
    dg_signal_take(SIGBUS, on_bus_error, &before);
}

int dg_map_open(const char *path, const unsigned char **bytes,
                size_t *num_bytes, int64_t *changed_ns)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct stat st;
    int64_t size;
    void *map = NULL;
    int fd;
    int err = dg_in_open(&fd, &size, path);

    if (err)
        return err;
    pthread_once(&once, listen);
    if (fstat(fd, &st) != 0)
        err = dg_fail(DG_EIO, "%s: cannot read: %s", path, strerror(errno));
    if (!err && size > 0) {
        map = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            err = dg_fail(DG_EIO, "%s: cannot map: %s", path, strerror(errno));
    }
    close(fd);
    if (err)
        return err;
    *bytes = map;
    *num_bytes = (size_t)size;
    *changed_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return DG_OK;
}

void dg_map_close(const unsigned char *bytes, size_t num_bytes)
{
    if (num_bytes > 0)
        munmap((void *)(uintptr_t)bytes, num_bytes);
}

int dg_map_guard(const char *path, const unsigned char *bytes, size_t num_bytes,
                 void (*work)(void *user), void *user)
{
    Guard mine = { .bytes = (const char *)bytes, .num_bytes = num_bytes };
    Guard *const outer = guard;

    if (sigsetjmp(mine.out, 1) != 0) { /* the handler's signals are let in */
        guard = outer;
        return dg_fail(DG_EIO,
                       "%s: cannot read: it has become shorter since it was "
                       "opened, or its disk or file server fails",
                       path);
    }
    guard = &mine;
    work(user);
    guard = outer;
    return DG_OK;
}

/* Bytes on their way to memory of the reader's own. */
typedef struct Copy {
    void *dst;
    const unsigned char *from;
    size_t num;
} Copy;

static void copy(void *user)
{
    const Copy *c = user;

    memcpy(c->dst, c->from, c->num);
}

int dg_bytes_copy(void *dst, const FileBytes *f, uint64_t at, size_t num)
{
    Copy c = { dst, f->p + at, num };

    return num == 0 ? DG_OK : dg_map_guard(f->path, f->p, f->num, copy, &c);
}

int dg_bytes_take(unsigned char **out, const FileBytes *f, uint64_t at,
                  uint64_t num)
{
    unsigned char *p;
    int err;

    if (num > (uint64_t)DG_IN_MOST)
        return dg_fail(DG_EFORMAT,
                       "%s: %" PRIu64 " bytes of what says which tensors there "
                       "are, at most %" PRId64 " are read into memory",
                       f->path, num, DG_IN_MOST);
    p = malloc((size_t)num + 1);
    if (p == NULL)
        return dg_fail(DG_ENOMEM, "%s: %" PRIu64 " bytes to read", f->path,
                       num);
    err = dg_bytes_copy(p, f, at, (size_t)num);
    if (err)
        free(p);
    else
        *out = p;
    return err;
}
