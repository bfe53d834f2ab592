#define _GNU_SOURCE /* RTLD_NEXT */
#include "mpi_test.h"

#include "base/error.h"
#include "parallel/comm_file.h"

#include <dlfcn.h>
#include <errno.h>
#include <mpi.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void test_share_range_covers_once(void **state)
{
    (void)state;
    for (int size = 1; size <= 9; size++)
        for (int64_t total = 0; total <= 40; total++) {
            int64_t next = 0, least = total, most = 0;

            for (int r = 0; r < size; r++) {
                int64_t first, num;

                dg_share_range(total, r, size, &first, &num);
                EXPECT(first == next);
                for (int64_t i = first; i < first + num; i++)
                    EXPECT(dg_share_owner(total, size, i) == r);
                next = first + num;
                least = num < least ? num : least;
                most = num > most ? num : most;
            }
            EXPECT(next == total && most - least <= 1);
        }
    VERDICT();
}

static void test_agree_passes_lowest_failure(void **state)
{
    (void)state;
    dg_clear_error();
    EXPECT(dg_agree(&comm, DG_OK) == DG_OK);
    for (int bad = 0; bad < comm.size; bad++) {
        int err = DG_OK;

        dg_clear_error();
        if (comm.rank >= bad)
            err = dg_fail(DG_EIO, "file %d", comm.rank);
        err = dg_agree(&comm, err);
        EXPECT(err == DG_EIO);
        EXPECT(dg_last_error()->rank == bad);
        EXPECT(atoi(dg_last_error()->text + 5) == bad);
        err = dg_agree(&comm, err); /* again: the detector stays named */
        EXPECT(err == DG_EIO && dg_last_error()->rank == bad);
    }
    dg_clear_error();
    EXPECT(dg_agree(&comm, DG_ENOMEM) == DG_ENOMEM);
    EXPECT(strcmp(dg_last_error()->text, "out of memory") == 0);
    VERDICT();
}

static void test_bcast_any_root(void **state)
{
    (void)state;
    for (int root = 0; root < comm.size; root++) {
        char text[16] = "", *block = NULL;
        size_t bytes = 0;

        if (comm.rank == root) {
            snprintf(text, sizeof text, "root%d", root);
            block = strdup(text);
            bytes = strlen(text);
        }
        EXPECT(dg_comm_bcast_alloc(&comm, &block, &bytes, root) == DG_OK);
        dg_comm_bcast(&comm, text, sizeof text, root);
        EXPECT(atoi(text + 4) == root);
        EXPECT(bytes == strlen(text) && strcmp(block, text) == 0);
        free(block);
    }
    VERDICT();
}

static void test_gathers_in_rank_order(void **state)
{
    int64_t mine = 7 * comm.rank, *all = calloc(comm.size, sizeof *all);
    int64_t total = 0, at = 0;
    int64_t *counts = calloc(comm.size, sizeof *counts);

    (void)state;
    dg_comm_allgather(&comm, all, &mine, sizeof mine);
    for (int r = 0; r < comm.size; r++) {
        EXPECT(all[r] == 7 * r);
        counts[r] = (r + 1) % 3; /* some ranks bring nothing */
        total += counts[r];
    }
    float block[2] = { 10.0F * (float)comm.rank, 10.0F * (float)comm.rank + 1 };
    float *joined = calloc((size_t)total + 1, sizeof *joined);
    dg_comm_allgatherv(&comm, joined, block, counts, sizeof(float));
    for (int r = 0; r < comm.size; r++)
        for (int64_t i = 0; i < counts[r]; i++)
            EXPECT(joined[at++] == 10.0F * (float)r + (float)i);
    free(joined);
    free(counts);
    free(all);
    VERDICT();
}

static void test_share_items_fills_the_others(void **state)
{
    (void)state;
    for (int64_t total = 0; total < 7; total++) {
        int32_t v[7][2] = { { 0 } };
        int64_t first, num;

        dg_share_range(total, comm.rank, comm.size, &first, &num);
        for (int64_t i = first; i < first + num; i++)
            v[i][0] = v[i][1] = (int32_t)i + 1;
        dg_comm_share_items(&comm, v, total, sizeof *v);
        for (int64_t i = 0; i < 7; i++)
            EXPECT(v[i][0] == (i < total ? i + 1 : 0) && v[i][0] == v[i][1]);
    }
    VERDICT();
}

static void test_reductions_match_closed_forms(void **state)
{
    const int64_t R = comm.size, r = comm.rank;
    int64_t sum[2] = { r, (int64_t)1 << 60 >> (r + 2) }, low = -r, high = r;
    double most = (double)r, total = 0.5;
    float totalf = 2.0F;
    int64_t expect = 0;

    (void)state;
    dg_comm_sum_i64(&comm, sum, 2);
    for (int64_t i = 0; i < R; i++)
        expect += (int64_t)1 << 60 >> (i + 2);
    EXPECT(sum[0] == R * (R - 1) / 2 && sum[1] == expect);
    dg_comm_min_i64(&comm, &low, 1);
    dg_comm_max_i64(&comm, &high, 1);
    dg_comm_max_f64(&comm, &most, 1);
    dg_comm_sum_f64(&comm, &total, 1);
    dg_comm_sum_f32(&comm, &totalf, 1);
    EXPECT(low == 1 - R && high == R - 1 && most == (double)(R - 1));
    EXPECT(total == 0.5 * (double)R && totalf == 2.0F * (float)R);
    VERDICT();
}

/* To each rank in turn; what the others have after it is nobody's. */
static void test_sums_reach_their_root(void **state)
{
    const int64_t R = comm.size, r = comm.rank;

    (void)state;
    for (int root = 0; root < comm.size; root++) {
        int64_t whole[2] = { r + 1, root };
        float part[2] = { 0.5F * (float)r, 2 };

        dg_comm_sum_i64_to(&comm, whole, 2, root);
        dg_comm_sum_f32_to(&comm, part, 2, root);
        if (comm.rank != root)
            continue;
        EXPECT(whole[0] == R * (R + 1) / 2 && whole[1] == R * root);
        EXPECT(part[0] == 0.25F * (float)(R * (R - 1)) &&
               part[1] == 2 * (float)R);
    }
    VERDICT();
}

/* More than one piece: 2^24 elements is where the pieces are cut. */
static void test_sum_crosses_pieces(void **state)
{
    const int64_t num = ((int64_t)1 << 24) + 5;
    int64_t *v = malloc((size_t)num * sizeof *v), wrong = 0;

    (void)state;
    for (int64_t i = 0; i < num; i++)
        v[i] = i + comm.rank;
    dg_comm_sum_i64(&comm, v, num);
    for (int64_t i = 0; i < num; i++)
        wrong += v[i] != i * comm.size + comm.size * (comm.size - 1) / 2;
    EXPECT(wrong == 0);
    free(v);
    VERDICT();
}

/* Differs from piece to piece, and within each. */
static unsigned char byte_at(int64_t i, int of)
{
    return (unsigned char)(31 * (i >> 24) + 7 * i + (i >> 9) + of);
}

static int64_t num_wrong(const unsigned char *v, int64_t num, int of)
{
    int64_t wrong = 0;

    for (int64_t i = 0; i < num; i++)
        wrong += v[i] != byte_at(i, of);
    return wrong;
}

/* Bytes are cut as elements are: from all to all, on a node, from one to one. */
static void test_bytes_cross_pieces(void **state)
{
    const int64_t num = ((int64_t)1 << 24) + 5;
    const int last = comm.size - 1;
    unsigned char *v = malloc((size_t)num);

    (void)state;
    for (int way = 0; way < 3; way++) {
        const int from = way == 1 ? comm.node_size - 1 : last;
        const int mine = (way == 1 ? comm.node_rank : comm.rank) == from;

        for (int64_t i = 0; i < num; i++)
            v[i] = mine ? byte_at(i, way) : 0;
        if (way == 0)
            dg_comm_bcast(&comm, v, (size_t)num, from);
        else if (way == 1)
            dg_comm_node_bcast(&comm, v, (size_t)num, from);
        else
            dg_comm_pass(&comm, v, (size_t)num, from, 0);
        EXPECT((way == 2 && comm.rank > 0) || num_wrong(v, num, way) == 0);
    }
    free(v);
    VERDICT();
}

static void test_node_and_hosts_are_filled(void **state)
{
    char hosts[256], library[128], host[64], cut[3];
    int64_t nodes = comm.node_rank == 0, names = 1;

    (void)state;
    dg_comm_hosts(&comm, hosts, sizeof hosts);
    dg_comm_library(library, sizeof library);
    dg_comm_host(&comm, host, sizeof host);
    dg_comm_host(&comm, cut, sizeof cut);
    EXPECT(hosts[0] != '\0' && library[0] != '\0');
    EXPECT(comm.node_size >= 1 && comm.node_rank < comm.node_size);
    for (const char *at = hosts; (at = strchr(at, ',')) != NULL; at++)
        names++;
    dg_comm_sum_i64(&comm, &nodes, 1);
    EXPECT(nodes == names);
    EXPECT((host[0] != '\0') == (nodes > 1) && strstr(hosts, host) != NULL);
    EXPECT(strlen(cut) < sizeof cut && strncmp(host, cut, strlen(cut)) == 0);
    VERDICT();
}

/* Each rank in turn cannot open what the others do, as on a host that does not
 * share a file system: nobody waits for it. */
static void test_a_file_that_one_lacks_is_named(void **state)
{
    char folder[256], path[300];
    CommFile *f = NULL;

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/file", folder);
    if (comm.rank == 0)
        fclose(fopen(path, "w"));
    dg_comm_barrier(&comm);
    for (int r = 0; r < comm.size; r++) {
        EXPECT(dg_comm_file_open(&f, &comm,
                                 comm.rank == r ? "/nowhere/file" : path) ==
               DG_EIO);
        EXPECT(f == NULL && dg_last_error()->rank == r &&
               strstr(dg_last_error()->text, "/nowhere/file: cannot open"));
    }
    EXPECT(dg_comm_file_open(&f, &comm, path) == DG_OK);
    EXPECT(dg_comm_file_write(f, comm.rank, "abcdefgh" + comm.rank % 8, 1) ==
           DG_OK);
    EXPECT(dg_comm_file_sync(f) == DG_OK && dg_comm_file_close(f) == DG_OK);
    if (comm.rank == 0) {
        char text[16] = "";
        FILE *in = fopen(path, "r");

        EXPECT(in && fread(text, 1, 8, in) == (size_t)comm.size);
        EXPECT(strncmp(text, "abcdefgh", (size_t)comm.size) == 0);
        fclose(in);
    }
    drop_folder(folder);
    VERDICT();
}

/* --- beside the main thread -------------------------------------------------- */

/* All of the above with waits that sleep. */
static void test_beside_gives_the_same(void **state)
{
    const Comm plain = comm;
    Comm other = { 0 };

    EXPECT(comm.threads && dg_comm_beside(&other, &comm, "") == DG_OK);
    VERDICT();
    comm = other;
    test_agree_passes_lowest_failure(state);
    test_bcast_any_root(state);
    test_gathers_in_rank_order(state);
    test_share_items_fills_the_others(state);
    test_reductions_match_closed_forms(state);
    test_sums_reach_their_root(state);
    test_node_and_hosts_are_filled(state);
    dg_comm_barrier(&comm);
    comm = plain;
    dg_comm_beside_free(&other);
    VERDICT();
}

enum { ROUNDS = 100 };

/* Sums, messages and agreements, each of which says whose round it is. */
static int64_t rounds(const Comm *c, int64_t of)
{
    const int last = c->size - 1;
    int64_t bad = 0;

    for (int64_t i = 0; i < ROUNDS; i++) {
        int64_t sum = of + i, passed = c->rank == last ? of * i : -1;

        dg_comm_sum_i64(c, &sum, 1);
        dg_comm_pass(c, &passed, sizeof passed, last, 0);
        bad += sum != c->size * (of + i);
        bad += c->rank == 0 && passed != of * i;
        bad += dg_agree(c, c->rank == i % c->size ? (int)of : DG_OK) != of;
    }
    return bad;
}

static void *beside(void *user)
{
    const Comm *other = user;

    return (void *)(intptr_t)rounds(other, DG_EFORMAT);
}

/* Two threads of a rank in meetings of their own, which no two ranks begin in
 * the same order. */
static void test_threads_do_not_meet(void **state)
{
    Comm other = { 0 };
    pthread_t thread;
    void *bad = NULL;

    (void)state;
    EXPECT(dg_comm_beside(&other, &comm, "") == DG_OK);
    VERDICT();
    if (comm.rank % 2 == 1)
        EXPECT(rounds(&comm, DG_ENUMERIC) == 0);
    EXPECT(pthread_create(&thread, NULL, beside, &other) == 0);
    if (comm.rank % 2 == 0)
        EXPECT(rounds(&comm, DG_ENUMERIC) == 0);
    EXPECT(rounds(&comm, DG_EDEVICE) == 0);
    pthread_join(thread, &bad);
    EXPECT(bad == NULL);
    dg_comm_beside_free(&other);
    VERDICT();
}

/* --- one that is waited for ----------------------------------------------------- */

static int times;

static void count(void)
{
    times++;
}

/* The last rank comes so late: how often the others did something else, at
 * least. */
static int64_t times_within(long ms)
{
    const int last = comm.size - 1;
    int64_t v[2] = { 5 - comm.rank, 10 + comm.rank }, least;

    times = 0;
    dg_comm_barrier(&comm);
    if (comm.rank == last && last > 0)
        nanosleep(&(struct timespec) { ms / 1000, ms % 1000 * 1000000 }, NULL);
    dg_comm_min_i64_while(&comm, v, 2, count);
    EXPECT(v[0] == 5 - last && v[1] == 10);
    least = comm.rank == last ? INT64_MAX : times;
    dg_comm_min_i64_while(&comm, &least, 1, count);
    return least;
}

/* Where other programs have the processors, that takes longer. */
static void test_who_waits_does_something_else(void **state)
{
    long ms = 100;

    (void)state;
    while (times_within(ms) == 0 && ms < 10000)
        ms *= 2;
    EXPECT(ms < 10000);
    VERDICT();
}

/* --- a rank that may have no more threads -------------------------------- */

static int no_threads;

int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                   void *(*begin)(void *), void *user)
{
    union {
        void *found;
        int (*call)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                    void *);
    } real = { dlsym(RTLD_NEXT, "pthread_create") };

    return no_threads ? EAGAIN : real.call(thread, attr, begin, user);
}

/* Nobody is watched, and the ranks that had begun go on with the one that could
 * not. */
static void test_a_watch_without_a_thread_is_refused_by_all(void **state)
{
    (void)state;
    for (int bad = 0; bad < comm.size && comm.size > 1; bad++) {
        Comm other = { .impl = NULL };

        no_threads = comm.rank == bad;
        EXPECT(dg_comm_beside(&other, &comm, "") == DG_ENOMEM);
        EXPECT(dg_last_error()->rank == bad);
        no_threads = 0;
        dg_comm_beside_free(&other);
        EXPECT(dg_comm_beside(&other, &comm, "") == DG_OK);
        dg_comm_barrier(&other);
        dg_comm_beside_free(&other);
    }
    VERDICT();
}

/* --- MPI's own threads, on a busy machine -------------------------------- */

enum { LATE_MS = 100, MOST_MS = 1000 };

static atomic_int mpi_began, went_on, late, times_late, not_waited_for;

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* What a thread is woken for it does after MPI_Init() has returned. It keeps
 * its processor: as one does that is ready, and not asleep. */
static void be_late(void)
{
    const double until = now_ms() + MOST_MS;
    double began = 0;

    late++;
    times_late++;
    while (now_ms() < until && (began == 0 || now_ms() < began + LATE_MS))
        if (began == 0 && mpi_began)
            began = now_ms();
    late--;
}

int poll(struct pollfd *files, nfds_t num, int timeout)
{
    union {
        void *found;
        int (*call)(struct pollfd *, nfds_t, int);
    } real = { dlsym(RTLD_NEXT, "poll") };
    const int ready = real.call(files, num, timeout);

    if (!went_on && gettid() != getpid())
        be_late();
    return ready;
}

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided)
{
    const int code = PMPI_Init_thread(argc, argv, wanted, provided);

    mpi_began = 1;
    return code;
}

/* What dg_comm_init() calls next. */
int MPI_Comm_rank(MPI_Comm c, int *rank)
{
    if (mpi_began && !went_on)
        not_waited_for = late;
    went_on = mpi_began;
    return PMPI_Comm_rank(c, rank);
}

/* Else MPI_Finalize() may take their code from under them. */
static void test_threads_of_mpi_are_done_when_a_rank_begins(void **state)
{
    (void)state;
    EXPECT(went_on && !not_waited_for);
#if defined OMPI_MAJOR_VERSION && OMPI_MAJOR_VERSION == 4
    EXPECT(times_late > 0); /* else nothing was seen */
#endif
    VERDICT();
}

/* One rank's alarm is heard by all others, until they have met. */
static void test_an_alarm_is_heard_where_nobody_meets(void **state)
{
    (void)state;
    for (int from = 0; from < comm.size; from++) {
        EXPECT(!dg_comm_alarmed(&comm));
        dg_comm_barrier(&comm);
        if (comm.rank == from) {
            dg_comm_alarm(&comm);
            dg_comm_alarm(&comm); /* once is enough */
        } else {
            while (!dg_comm_alarmed(&comm))
                nanosleep(&(struct timespec) { 0, 1000000 }, NULL);
        }
        dg_comm_alarm_end(&comm);
        EXPECT(!dg_comm_alarmed(&comm));
        dg_comm_barrier(&comm);
    }
    dg_comm_alarm(&comm); /* of all */
    dg_comm_alarm_end(&comm);
    EXPECT(!dg_comm_alarmed(&comm));
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_share_range_covers_once),
    cmocka_unit_test(test_agree_passes_lowest_failure),
    cmocka_unit_test(test_bcast_any_root),
    cmocka_unit_test(test_gathers_in_rank_order),
    cmocka_unit_test(test_share_items_fills_the_others),
    cmocka_unit_test(test_reductions_match_closed_forms),
    cmocka_unit_test(test_sums_reach_their_root),
    cmocka_unit_test(test_sum_crosses_pieces),
    cmocka_unit_test(test_bytes_cross_pieces),
    cmocka_unit_test(test_node_and_hosts_are_filled),
    cmocka_unit_test(test_a_file_that_one_lacks_is_named),
    cmocka_unit_test(test_beside_gives_the_same),
    cmocka_unit_test(test_threads_do_not_meet),
    cmocka_unit_test(test_who_waits_does_something_else),
    cmocka_unit_test(test_a_watch_without_a_thread_is_refused_by_all),
    cmocka_unit_test(test_threads_of_mpi_are_done_when_a_rank_begins),
    cmocka_unit_test(test_an_alarm_is_heard_where_nobody_meets),
};

MPI_MAIN(mpi_comm, tests)
