#define _GNU_SOURCE /* memfd_create, fallocate */
#include "parallel/node_memory.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Copies go by way of so much; KEPT: ranges of a rank. */
enum { HUGE_PAGE = 1 << 21, PIECE = 1 << 26, KEPT = 4 };

struct NodeMemory {
    char *at;
    size_t bytes;
    int together, first; /* first: of the node's ranks */
    int published;
    /* together: */
    void *reserved; /* addresses, at among them */
    size_t reserved_bytes;
    int file;
};

/* How another process finds the file, and knows that it has the right one: a
 * process of that number may be somebody else's in another container. */
typedef struct Ticket {
    pid_t process;
    int file;
    dev_t device;
    ino_t node;
    off_t bytes;
} Ticket;

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* --- making it -------------------------------------------------------------- */

/* So many pages are there from now on. A signal interrupts it, and what a call has
 * taken by then is given back: each takes little, and is made again. */
static int take_pages(int file, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += HUGE_PAGE) {
        const size_t num = bytes - at < HUGE_PAGE ? bytes - at : HUGE_PAGE;

        while (fallocate(file, 0, (off_t)at, (off_t)num) != 0)
            if (errno != EINTR)
                return -1;
    }
    return 0;
}

/* A file of memory alone, all of it there. -1: none, as where files may not
 * become as long; errno says why. */
static int make_file(size_t bytes)
{
    struct rlimit limit;
    int file;

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes) {
        errno = EFBIG;
        return -1;
    }
    file = memfd_create("dancegrpo-weights", MFD_CLOEXEC);
    if (file >= 0 &&
        (ftruncate(file, (off_t)bytes) != 0 || take_pages(file, bytes) != 0)) {
        const int why = errno;

        close(file);
        errno = why;
        file = -1;
    }
    return file;
}

static int fill_ticket(Ticket *t, int file)
{
    struct stat st;

    memset(t, 0, sizeof *t);
    t->file = -1;
    if (file < 0 || fstat(file, &st) != 0)
        return -1;
    *t = (Ticket) { getpid(), file, st.st_dev, st.st_ino, st.st_size };
    return 0;
}

/* What is not that file is not opened either: of another's pipe that would wait. */
static int open_file(const Ticket *t)
{
    char path[64];
    struct stat st;

    if (t->file < 0) { /* the first rank's reason is told */
        errno = ENOENT;
        return -1;
    }
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)t->process, t->file);
    if (stat(path, &st) != 0)
        return -1;
    if (st.st_dev != t->device || st.st_ino != t->node ||
        st.st_size != t->bytes) {
        errno = ESTALE;
        return -1;
    }
    return open(path, O_RDWR | O_CLOEXEC);
}

/* Addresses alone, in which the file will be. */
static int reserve(NodeMemory *m)
{
    void *p;

    m->reserved_bytes = m->bytes + 2 * (size_t)HUGE_PAGE;
    p = mmap(NULL, m->reserved_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    m->reserved = p;
    m->at =
        (char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    return 0;
}

static int map(NodeMemory *m, int how)
{
    return mmap(m->at, m->bytes, PROT_READ | PROT_WRITE, how | MAP_FIXED,
                m->file, 0) == MAP_FAILED
               ? -1
               : 0;
}

static void let_go(NodeMemory *m)
{
    if (m->reserved != NULL)
        munmap(m->reserved, m->reserved_bytes);
    if (m->file >= 0)
        close(m->file);
    m->reserved = NULL;
    m->at = NULL;
    m->file = -1;
}

/* Whether all ranks have it, or else none. Collective. */
static int share(NodeMemory *m, const Comm *c)
{
    Ticket ticket;
    int err = DG_OK, why;

    if (m->first)
        m->file = make_file(m->bytes);
    why = errno;
    fill_ticket(&ticket, m->file);
    dg_comm_node_bcast(c, &ticket, sizeof ticket, 0);
    errno = why;
    if (!m->first)
        m->file = open_file(&ticket);
    if (m->file < 0 || reserve(m) != 0 || map(m, MAP_SHARED) != 0)
        err = dg_fail(DG_EDEVICE, "%s", strerror(errno));
    err = dg_agree(c, err);
    if (!err)
        return 1;
    dg_info("each rank holds all weights that are loaded: those of a node "
            "cannot have them together (%s)",
            dg_last_error()->text);
    dg_clear_error();
    let_go(m);
    return 0;
}

int dg_node_memory_new(NodeMemory **out, const Comm *c, size_t bytes)
{
    NodeMemory *m = calloc(1, sizeof *m);
    int64_t several = c->node_size > 1;
    int err = dg_agree(c, m != NULL ? DG_OK : dg_fail(DG_ENOMEM, "weights"));

    if (err) {
        free(m);
        return err;
    }
    bytes = bytes > 0 ? bytes : 1;
    *m = (NodeMemory) { .bytes = (bytes + page_bytes() - 1) / page_bytes() *
                                 page_bytes(),
                        .first = c->node_rank == 0,
                        .file = -1 };
    dg_comm_max_i64(c, &several, 1);
    if (several)
        m->together = share(m, c);
    if (!m->together) {
        m->at = dg_memory_new(m->bytes);
        err = m->at != NULL ? DG_OK
                            : dg_fail(DG_ENOMEM, "weights: %zu bytes", bytes);
    }
    err = dg_agree(c, err);
    if (err) {
        dg_node_memory_free(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_node_memory_free(NodeMemory *m)
{
    if (m == NULL)
        return;
    if (m->together)
        let_go(m);
    else
        free(m->at);
    free(m);
}

void *dg_node_memory_at(const NodeMemory *m)
{
    return m->at;
}

int dg_node_memory_together(const NodeMemory *m)
{
    return m->together;
}

int dg_node_memory_fills(const NodeMemory *m)
{
    return m->first || !m->together;
}

int dg_node_memory_publish(NodeMemory *m, const Comm *c)
{
    int err = DG_OK;

    if (!m->together || m->published)
        return DG_OK;
    if (map(m, MAP_PRIVATE) != 0)
        err = dg_fail(DG_ENOMEM, "weights: %zu bytes of the node's: %s",
                      m->bytes, strerror(errno));
    m->published = 1;
    return dg_agree(c, err); /* nobody reads before all have filled it */
}

/* --- giving back -------------------------------------------------------------- */

/* The pages that have some of a range, as offsets. */
static NodeRange pages_of(const NodeRange *r)
{
    const size_t page = page_bytes();
    const size_t from = r->first / page * page;
    const size_t end = (r->first + r->num + page - 1) / page * page;

    return (NodeRange) { from, r->num > 0 ? end - from : 0 };
}

/* Fresh memory of this rank alone there, in huge pages where there are any: kernels
 * will walk it. */
static int map_own(char *p, size_t bytes)
{
    if (mmap(p, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return dg_fail(DG_ENOMEM, "weights: %zu bytes of this rank's: %s",
                       bytes, strerror(errno));
#ifdef MADV_HUGEPAGE
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish */
#endif
    return DG_OK;
}

/* A range's pages with what they have. */
static int make_own(NodeMemory *m, const NodeRange *range)
{
    const NodeRange r = pages_of(range);
    void *copy = malloc(r.num < PIECE ? r.num + 1 : PIECE);
    int err =
        copy != NULL ? DG_OK : dg_fail(DG_ENOMEM, "weights: a part to copy by");

    for (size_t i = 0; i < r.num && !err; i += PIECE) {
        const size_t n = r.num - i < PIECE ? r.num - i : PIECE;
        char *p = m->at + r.first + i;

        memcpy(copy, p, n);
        err = map_own(p, n);
        if (!err)
            memcpy(p, copy, n);
    }
    free(copy);
    return err;
}

static int by_first(const void *a, const void *b)
{
    const NodeRange *s = a, *t = b;

    return (s->first > t->first) - (s->first < t->first);
}

/* Gives the file's pages back that are in none of num ranges; only whole ones
 * go. That a kernel cannot is no harm: they stay. */
static void punch(const NodeMemory *m, NodeRange *kept, int num)
{
    size_t done = 0;

    qsort(kept, (size_t)num, sizeof *kept, by_first);
    for (int i = 0; i <= num; i++) {
        const NodeRange r =
            i < num ? pages_of(&kept[i]) : (NodeRange) { m->bytes, 0 };

        if (i < num && r.num == 0)
            continue;
        if (r.first > done)
            (void)fallocate(m->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)done, (off_t)(r.first - done));
        if (r.first + r.num > done)
            done = r.first + r.num;
    }
}

/* Where this rank has neither own nor kept pages there is memory of its own from
 * now on, untouched. all: both, num of them. */
static int leave_rest(const NodeMemory *m, NodeRange *all, int num)
{
    size_t done = 0;
    int err = DG_OK;

    qsort(all, (size_t)num, sizeof *all, by_first);
    for (int i = 0; i <= num && !err; i++) {
        const NodeRange r =
            i < num ? pages_of(&all[i]) : (NodeRange) { m->bytes, 0 };

        if (i < num && r.num == 0)
            continue;
        if (r.first > done)
            err = map_own(m->at + done, r.first - done);
        if (r.first + r.num > done)
            done = r.first + r.num;
    }
    return err;
}

/* Every rank of the node says what it keeps; the first gives the rest back. */
static int give_back(NodeMemory *m, const Comm *c, const NodeRange *kept)
{
    const int each = KEPT * (int)sizeof *kept;
    NodeRange *all = malloc((size_t)c->node_size * (size_t)each);
    int err = all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "weights: their ranges");

    err = dg_agree(c, err);
    if (!err) {
        dg_comm_enter(c, "an exchange on a node", 0);
        MPI_Allgather(kept, each, MPI_BYTE, all, each, MPI_BYTE, c->impl->node);
        dg_comm_leave(c);
        if (m->first)
            punch(m, all, KEPT * c->node_size);
    }
    free(all);
    return err;
}

int dg_node_memory_settle(NodeMemory *m, const Comm *c, const NodeRange *own,
                          int num_own, const NodeRange *kept, int num_kept)
{
    NodeRange said[KEPT] = { { 0 } };
    NodeRange *all;
    int err = DG_OK;

    if (!m->together)
        return DG_OK;
    all = malloc((size_t)(num_own + num_kept + 1) * sizeof *all);
    if (all == NULL || num_kept > KEPT)
        err = dg_fail(DG_ENOMEM, "weights: %d ranges", num_own + num_kept);
    for (int i = 0; i < num_own && !err; i++) {
        all[i] = own[i];
        err = make_own(m, &own[i]);
    }
    for (int i = 0; i < num_kept && !err; i++)
        all[num_own + i] = said[i] = kept[i];
    if (!err)
        err = leave_rest(m, all, num_own + num_kept);
    free(all);
    err = dg_agree(c, err);
    return err ? err : give_back(m, c, said);
}
