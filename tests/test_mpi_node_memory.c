/* Memory that the ranks of a node have together: its values, whose they are after
 * a write, and how much of it there is. */
#define _GNU_SOURCE /* memfd_create */
#include "mpi_test.h"

#include "base/error.h"
#include "node_file.h"
#include "parallel/node_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 2000, BYTES = PAGES * PAGE + 100 };

/* In place of libc's: 1 fails on this rank; so many calls are interrupted first;
 * this rank is said to be another process. */
static int no_file, no_room, interruptions;
static pid_t another;

int fallocate(int fd, int mode, off_t from, off_t bytes)
{
    if (mode == 0 && interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, (long)from, (long)bytes);
}

pid_t getpid(void)
{
    return another != 0 ? another : (pid_t)syscall(SYS_getpid);
}

int memfd_create(const char *name, unsigned int flags)
{
    if (no_file) {
        errno = ENOSYS;
        return -1;
    }
    return (int)syscall(SYS_memfd_create, name, flags);
}

/* a sanitizer maps its own memory by it, before it can watch a call */
__attribute__((no_sanitize("thread"))) void *mmap(void *at, size_t bytes,
                                                  int prot, int flags, int fd,
                                                  off_t from)
{
    if (no_room && prot == PROT_NONE && bytes > BYTES) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, bytes, prot, flags, fd, (long)from);
}

static unsigned char value(size_t i)
{
    return (unsigned char)(i * 31 + i / PAGE + 7);
}

static void fill(unsigned char *v)
{
    for (size_t i = 0; i < BYTES; i++)
        v[i] = value(i);
}

/* i is where a value is not what was filled in; BYTES: nowhere */
static size_t first_wrong(const unsigned char *v, size_t from, size_t end)
{
    while (from < end && v[from] == value(from))
        from++;
    return from;
}

static NodeMemory *filled(void)
{
    NodeMemory *m = NULL;
    unsigned char *v;

    EXPECT(dg_node_memory_new(&m, &comm, BYTES) == DG_OK);
    v = dg_node_memory_at(m);
    EXPECT(dg_node_memory_together(m) == node_file_is_shared());
    EXPECT(dg_node_memory_fills(m) ==
           (comm.node_rank == 0 || !dg_node_memory_together(m)));
    if (dg_node_memory_fills(m)) {
        EXPECT(v[0] == 0 && v[BYTES / 2] == 0 && v[BYTES - 1] == 0);
        fill(v);
    }
    EXPECT(dg_node_memory_publish(m, &comm) == DG_OK);
    return m;
}

static void test_a_write_is_seen_by_nobody_else(void **state)
{
    NodeMemory *m = filled();
    unsigned char *v = dg_node_memory_at(m);
    const size_t mine = (size_t)(5 + comm.rank) * PAGE;

    (void)state;
    EXPECT((uintptr_t)v % 256 == 0);
    EXPECT(first_wrong(v, 0, BYTES) == BYTES);
    dg_comm_barrier(&comm);
    memset(v + mine, 0, PAGE); /* the first rank too */
    v[BYTES - 1] = (unsigned char)comm.rank;
    dg_comm_barrier(&comm);
    EXPECT(v[BYTES - 1] == comm.rank);
    EXPECT(first_wrong(v, 0, BYTES - 1) == mine);
    EXPECT(first_wrong(v, mine + PAGE, BYTES - 1) == BYTES - 1);
    dg_node_memory_free(m);
    EXPECT(node_file_bytes() == -1);
    VERDICT();
}

/* Filled in parts: one is all of a page's and another none of it. */
static void test_each_rank_may_fill_a_part(void **state)
{
    NodeMemory *m = NULL;
    unsigned char *v;
    int64_t from = 0, num = BYTES;

    (void)state;
    EXPECT(dg_node_memory_new(&m, &comm, BYTES) == DG_OK);
    v = dg_node_memory_at(m);
    if (dg_node_memory_together(m))
        dg_share_range(BYTES, comm.node_rank, comm.node_size, &from, &num);
    for (size_t i = (size_t)from; i < (size_t)(from + num); i++)
        v[i] = value(i);
    dg_comm_barrier(&comm);
    EXPECT(first_wrong(v, 0, BYTES) == BYTES); /* seen before as well */
    EXPECT(dg_node_memory_publish(m, &comm) == DG_OK);
    EXPECT(first_wrong(v, 0, BYTES) == BYTES);
    v[0] = (unsigned char)(value(0) + 1 + comm.rank);
    dg_comm_barrier(&comm);
    EXPECT(v[0] == (unsigned char)(value(0) + 1 + comm.rank));
    dg_node_memory_free(m);
    VERDICT();
}

/* Eight ranks have it once. */
static void test_it_is_there_once(void **state)
{
    NodeMemory *m = filled();
    const long long all = (BYTES + PAGE - 1) / PAGE * PAGE;

    (void)state;
    if (dg_node_memory_together(m)) {
        EXPECT(first_wrong(dg_node_memory_at(m), 0, BYTES) == BYTES);
        EXPECT(node_file_bytes() == all);
    }
    dg_node_memory_free(m);
    VERDICT();
}

/*
 * Each rank has a range of its own, of which bounds lie in pages, and all go on
 * reading another: what then is left of the file is that one.
 */
static void test_ranks_settle_on_ranges(void **state)
{
    const size_t from = (size_t)(100 + 50 * comm.rank) * PAGE + 17;
    const NodeRange own = { from, 40 * PAGE };
    const NodeRange kept = { 1000 * PAGE + 5, 300 * PAGE };
    const size_t kept_end = kept.first + kept.num;
    NodeMemory *m = filled();
    unsigned char *v = dg_node_memory_at(m);

    (void)state;
    v[from] = 77; /* written before */
    EXPECT(dg_node_memory_settle(m, &comm, &own, 1, &kept, 1) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(v[from] == 77);
    EXPECT(first_wrong(v, from + 1, from + own.num) == from + own.num);
    EXPECT(first_wrong(v, kept.first, kept_end) == kept_end);
    if (dg_node_memory_together(m)) {
        EXPECT(node_file_bytes() == 301 * PAGE);
        EXPECT(v[10 * PAGE] == 0 && v[BYTES - 1] == 0);
    }
    /* own and all else is this rank's to write, again and again */
    memset(v, comm.rank + 1, kept.first);
    dg_comm_barrier(&comm);
    EXPECT(v[0] == comm.rank + 1 && v[kept.first - 1] == comm.rank + 1);
    EXPECT(first_wrong(v, kept.first, kept_end) == kept_end);
    if (dg_node_memory_together(m))
        EXPECT(node_file_bytes() == 301 * PAGE);
    dg_node_memory_free(m);
    VERDICT();
}

/* A page that one rank alone keeps stays for it. */
static void test_what_one_rank_keeps_stays(void **state)
{
    const NodeRange kept[] = { { (size_t)comm.rank * 20 * PAGE, 2 * PAGE },
                               { 1900 * PAGE, BYTES - 1900 * PAGE } };
    const int num = comm.rank == comm.size - 1 ? 2 : 1;
    NodeMemory *m = filled();
    const unsigned char *v = dg_node_memory_at(m);

    (void)state;
    EXPECT(dg_node_memory_settle(m, &comm, NULL, 0, kept, num) == DG_OK);
    dg_comm_barrier(&comm);
    for (int i = 0; i < num; i++) {
        const size_t end = kept[i].first + kept[i].num;

        EXPECT(first_wrong(v, kept[i].first, end) == end);
    }
    if (dg_node_memory_together(m))
        EXPECT(node_file_bytes() ==
               (2 * comm.node_size + (node_has_last() ? 101 : 0)) * PAGE);
    dg_node_memory_free(m);
    VERDICT();
}

static void test_nothing_kept_is_nothing_left(void **state)
{
    NodeMemory *m = filled();

    (void)state;
    EXPECT(dg_node_memory_settle(m, &comm, NULL, 0, NULL, 0) == DG_OK);
    dg_comm_barrier(&comm);
    if (dg_node_memory_together(m))
        EXPECT(node_file_bytes() == 0);
    dg_node_memory_free(m);
    VERDICT();
}

/* memory of each rank's own, on all of them */
static void expect_alone(void)
{
    NodeMemory *m = NULL;
    unsigned char *v;

    EXPECT(dg_node_memory_new(&m, &comm, BYTES) == DG_OK);
    EXPECT(!dg_node_memory_together(m) && dg_node_memory_fills(m));
    EXPECT(node_file_bytes() == -1);
    v = dg_node_memory_at(m);
    EXPECT(v[0] == 0 && v[BYTES - 1] == 0);
    memset(v, comm.rank + 1, BYTES);
    EXPECT(dg_node_memory_publish(m, &comm) == DG_OK);
    EXPECT(dg_node_memory_settle(m, &comm, NULL, 0, NULL, 0) == DG_OK);
    EXPECT(v[0] == comm.rank + 1 && v[BYTES - 1] == comm.rank + 1);
    dg_node_memory_free(m);
}

static void test_where_it_cannot_be_each_has_its_own(void **state)
{
    struct rlimit was, less;

    (void)state;
    no_file = comm.node_rank == 0;
    expect_alone();
    no_file = 0;
    no_room = comm.rank == comm.size - 1; /* one rank alone cannot */
    expect_alone();
    no_room = 0;
    /* a longer file would be a signal */
    EXPECT(getrlimit(RLIMIT_FSIZE, &was) == 0);
    less = was;
    less.rlim_cur = BYTES / 2;
    if (comm.rank == 0)
        EXPECT(setrlimit(RLIMIT_FSIZE, &less) == 0);
    expect_alone();
    EXPECT(setrlimit(RLIMIT_FSIZE, &was) == 0);
    VERDICT();
}

/* By a signal nothing is lost. */
static void test_a_signal_only_interrupts(void **state)
{
    NodeMemory *m;

    (void)state;
    interruptions = comm.node_rank == 0 ? 3 : 0;
    m = filled(); /* together */
    EXPECT(interruptions == 0 || !dg_node_memory_together(m));
    interruptions = 0;
    EXPECT(first_wrong(dg_node_memory_at(m), 0, BYTES) == BYTES);
    dg_node_memory_free(m);
    VERDICT();
}

/* A process whose files are all a pipe that nobody writes to. */
static pid_t start_pipes(const char *folder)
{
    char path[300], ready = 0;
    int there[2], end;
    pid_t child;

    snprintf(path, sizeof path, "%s/pipe%d", folder, comm.rank);
    EXPECT(mkfifo(path, 0600) == 0 && pipe(there) == 0);
    child = fork();
    if (child != 0) {
        close(there[1]);
        EXPECT(read(there[0], &ready, 1) == 1);
        close(there[0]);
        return child;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* goes with the test */
    end = open(path, O_RDONLY | O_NONBLOCK);
    for (int i = 0; i < 256; i++)
        if (i != there[1])
            dup2(end, i);
    if (end < 0 || write(there[1], &ready, 1) != 1)
        _exit(1);
    dup2(end, there[1]);
    for (;;)
        pause();
}

/* Where ranks have processes of their own numbers, the first's is somebody else's
 * for others: whose files are none of theirs, and are not opened. */
static void test_another_process_is_left_alone(void **state)
{
    char folder[256];

    (void)state;
    make_folder(folder);
    if (comm.node_rank == 0)
        another = start_pipes(folder);
    alarm(60); /* who opens one waits for ever */
    expect_alone();
    alarm(0);
    if (another != 0) {
        kill(another, SIGKILL);
        waitpid(another, NULL, 0);
    }
    another = 0;
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_a_write_is_seen_by_nobody_else),
    cmocka_unit_test(test_each_rank_may_fill_a_part),
    cmocka_unit_test(test_it_is_there_once),
    cmocka_unit_test(test_ranks_settle_on_ranges),
    cmocka_unit_test(test_what_one_rank_keeps_stays),
    cmocka_unit_test(test_nothing_kept_is_nothing_left),
    cmocka_unit_test(test_where_it_cannot_be_each_has_its_own),
    cmocka_unit_test(test_a_signal_only_interrupts),
    cmocka_unit_test(test_another_process_is_left_alone),
};

MPI_MAIN(node_memory, tests)
