#include "parallel/comm.h"

#include "base/error.h"
#include "comm_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* MPI counts are int: larger buffers go in pieces of this many elements. */
enum { PIECE = 1 << 24 };

enum { SHORT_PAUSE_NS = 20000, LONG_PAUSE_NS = 1000000 };

/* Open MPI asks its sockets at each eighth call alone: of looks that are one
 * call, the eighth would find what has come from another host. */
enum { CALLS_PER_LOOK = 8 };

static void abort_job(void)
{
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void find_node(Comm *c)
{
    MPI_Comm_split_type(c->impl->mpi, MPI_COMM_TYPE_SHARED, c->rank,
                        MPI_INFO_NULL, &c->impl->node);
    MPI_Comm_rank(c->impl->node, &c->node_rank);
    MPI_Comm_size(c->impl->node, &c->node_size);
    MPI_Comm_split(c->impl->mpi, c->node_rank == 0 ? 0 : MPI_UNDEFINED, c->rank,
                   &c->impl->firsts);
}

static void free_handles(struct CommImpl *impl)
{
    if (impl->firsts != MPI_COMM_NULL)
        MPI_Comm_free(&impl->firsts);
    MPI_Comm_free(&impl->node);
    MPI_Comm_free(&impl->mpi);
}

/* What MPI is asked for. It begins before any configuration is read, so that
 * the environment has to say where a transport is bad at several threads. */
static int wanted_level(int *level)
{
    const char *text = getenv("DANCEGRPO_MPI_THREADS");

    *level = MPI_THREAD_MULTIPLE;
    if (text == NULL || strcmp(text, "multiple") == 0)
        return DG_OK;
    *level = MPI_THREAD_FUNNELED;
    return strcmp(text, "funneled") == 0
               ? DG_OK
               : dg_fail(DG_EINVAL,
                         "DANCEGRPO_MPI_THREADS = %s in the environment: "
                         "multiple or funneled is allowed",
                         text);
}

int dg_comm_init(Comm *c, int *argc, char ***argv)
{
    int wanted, provided = 0, have;
    const int err = wanted_level(&wanted);

    *c = (Comm) { .size = 1, .node_size = 1 };
    /* of Open MPI's pointers that ranks share in a file, which nobody wants
     * here, the one by a file of locks overruns its buffer by a long path */
    setenv("OMPI_MCA_sharedfp", "^lockedfile", 0);
    MPI_Init_thread(argc, argv, wanted, &provided);
    dg_comm_settle();
    if (provided < MPI_THREAD_FUNNELED)
        return dg_fail(DG_EDEVICE,
                       "MPI offers thread level %d only: at "
                       "least MPI_THREAD_FUNNELED is needed",
                       provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &c->rank);
    c->impl = calloc(1, sizeof *c->impl);
    have = c->impl != NULL;
    MPI_Allreduce(MPI_IN_PLACE, &have, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (!have) {
        free(c->impl);
        c->impl = NULL;
        return dg_fail(DG_ENOMEM, "communicator");
    }
    c->threads = provided >= MPI_THREAD_MULTIPLE;
    c->impl->node = c->impl->firsts = MPI_COMM_NULL;
    MPI_Comm_dup(MPI_COMM_WORLD, &c->impl->mpi);
    MPI_Comm_rank(c->impl->mpi, &c->rank);
    MPI_Comm_size(c->impl->mpi, &c->size);
    find_node(c);
    dg_set_panic_hook(abort_job);
    /* the same for all, whatever each one's environment says */
    MPI_Allreduce(MPI_IN_PLACE, &c->threads, 1, MPI_INT, MPI_MIN, c->impl->mpi);
    return dg_agree(c, err);
}

int dg_comm_self(Comm *out)
{
    Comm c = { .size = 1, .node_size = 1 };
    int level = 0;

    MPI_Query_thread(&level);
    c.threads = level >= MPI_THREAD_MULTIPLE;
    c.impl = calloc(1, sizeof *c.impl);
    if (c.impl == NULL)
        return dg_fail(DG_ENOMEM, "communicator");
    MPI_Comm_dup(MPI_COMM_SELF, &c.impl->mpi);
    MPI_Comm_dup(MPI_COMM_SELF, &c.impl->node);
    c.impl->firsts = MPI_COMM_NULL;
    *out = c;
    return DG_OK;
}

void dg_comm_self_free(Comm *c)
{
    if (c->impl != NULL)
        free_handles(c->impl);
    free(c->impl);
    c->impl = NULL;
}

int dg_comm_beside(Comm *out, const Comm *c, const char *doing)
{
    Comm other = *c;
    int err = DG_OK;

    other.impl = calloc(1, sizeof *other.impl);
    if (other.impl == NULL)
        err = dg_fail(DG_ENOMEM, "communicator");
    err = dg_agree(c, err);
    if (err) {
        free(other.impl);
        return err;
    }
    MPI_Comm_dup(c->impl->mpi, &other.impl->mpi);
    MPI_Comm_dup(c->impl->node, &other.impl->node);
    other.impl->firsts = MPI_COMM_NULL;
    other.impl->sleeps = 1;
    *out = other;
    return dg_comm_watch_beside(out, c, doing);
}

void dg_comm_beside_free(Comm *c)
{
    if (c->impl == NULL)
        return;
    dg_comm_unwatch(c);
    dg_comm_self_free(c);
}

void dg_comm_fini(Comm *c)
{
    int started = 0, ended = 0;

    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    if (c->impl != NULL && started && !ended) {
        dg_comm_unwatch(c);
        free_handles(c->impl);
    }
    dg_set_panic_hook(NULL);
    free(c->impl);
    c->impl = NULL;
    if (started && !ended)
        MPI_Finalize();
}

int dg_comm_is_done(MPI_Request *request)
{
    int done = 0;

    for (int i = 0; i < CALLS_PER_LOOK && !done; i++)
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
    return done;
}

/* Waits for what has begun. Who sleeps looks again after a while that grows: a
 * meeting of ranks that are all there costs little, a long one no core. */
static void complete(MPI_Request *request)
{
    struct timespec pause = { 0, SHORT_PAUSE_NS };

    while (!dg_comm_is_done(request)) {
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < LONG_PAUSE_NS)
            pause.tv_nsec *= 2;
    }
}

/* in may be MPI_IN_PLACE */
static void all_reduce(const Comm *c, const void *in, void *out, int num,
                       MPI_Datatype type, MPI_Op op)
{
    MPI_Request request;

    if (!c->impl->sleeps) {
        MPI_Allreduce(in, out, num, type, op, c->impl->mpi);
        return;
    }
    MPI_Iallreduce(in, out, num, type, op, c->impl->mpi, &request);
    complete(&request);
}

/* MPI_Reduce() of MPICH up to 4.1.1 reads what MPI_IN_PLACE points to where the
 * root is not rank 0 (its issue 6540); what it does without blocking does not. */
#ifdef MPICH_VERSION
enum { REDUCES_IN_PLACE = 0 };
#else
enum { REDUCES_IN_PLACE = 1 };
#endif

static void reduce(const Comm *c, void *v, int num, MPI_Datatype type,
                   MPI_Op op, int root)
{
    const void *in = c->rank == root ? MPI_IN_PLACE : v;
    MPI_Request request;

    if (!c->impl->sleeps && REDUCES_IN_PLACE) {
        MPI_Reduce(in, v, num, type, op, root, c->impl->mpi);
        return;
    }
    MPI_Ireduce(in, v, num, type, op, root, c->impl->mpi, &request);
    if (c->impl->sleeps)
        complete(&request);
    else
        MPI_Wait(&request, MPI_STATUS_IGNORE);
}

/* mpi: all ranks, or those of the node */
static void broadcast(const Comm *c, MPI_Comm mpi, void *at, int bytes,
                      int root)
{
    MPI_Request request;

    if (!c->impl->sleeps) {
        MPI_Bcast(at, bytes, MPI_BYTE, root, mpi);
        return;
    }
    MPI_Ibcast(at, bytes, MPI_BYTE, root, mpi, &request);
    complete(&request);
}

int dg_agree(const Comm *c, int err)
{
    struct {
        int ok, rank;
    } mine = { err == DG_OK, c->rank }, first;
    Error e = *dg_last_error();

    dg_comm_enter(c, "an agreement on errors", 1);
    all_reduce(c, &mine, &first, 1, MPI_2INT, MPI_MINLOC);
    dg_comm_leave(c);
    if (first.ok)
        return DG_OK;
    if (e.code != err) { /* a code without a record */
        e.rank = -1;
        snprintf(e.text, sizeof e.text, "%s", dg_error_name(err));
    }
    e.code = err;
    if (e.rank < 0) { /* else agreed on before: the detector stays named */
        e.rank = first.rank;
        dg_comm_host(c, e.host, sizeof e.host);
    }
    dg_comm_enter(c, "an error's text", 1);
    broadcast(c, c->impl->mpi, &e, sizeof e, first.rank);
    dg_comm_leave(c);
    dg_set_error(&e);
    return e.code;
}

void dg_comm_barrier(const Comm *c)
{
    if (c->impl->sleeps) {
        dg_comm_barrier_idle(c);
        return;
    }
    dg_comm_enter(c, "a barrier", 1);
    MPI_Barrier(c->impl->mpi);
    dg_comm_leave(c);
}

void dg_comm_barrier_idle(const Comm *c)
{
    MPI_Request request;

    dg_comm_enter(c, "a barrier", 1);
    MPI_Ibarrier(c->impl->mpi, &request);
    complete(&request);
    dg_comm_leave(c);
}

static void bcast(const Comm *c, MPI_Comm mpi, void *buf, size_t bytes,
                  int root)
{
    char *at = buf;

    while (bytes > 0) {
        const size_t n = bytes < (size_t)PIECE ? bytes : (size_t)PIECE;

        broadcast(c, mpi, at, (int)n, root);
        at += n;
        bytes -= n;
    }
}

void dg_comm_bcast(const Comm *c, void *buf, size_t bytes, int root)
{
    if (c->size == 1)
        return;
    dg_comm_enter(c, "a broadcast", 1);
    bcast(c, c->impl->mpi, buf, bytes, root);
    dg_comm_leave(c);
}

void dg_comm_node_bcast(const Comm *c, void *buf, size_t bytes, int node_root)
{
    if (c->node_size == 1)
        return;
    dg_comm_enter(c, "a broadcast on a node", 0);
    bcast(c, c->impl->node, buf, bytes, node_root);
    dg_comm_leave(c);
}

void dg_comm_nodes_bcast(const Comm *c, void *buf, size_t bytes)
{
    if (c->size == 1 || c->impl->firsts == MPI_COMM_NULL)
        return;
    dg_comm_enter(c, "a broadcast to all nodes", 0);
    bcast(c, c->impl->firsts, buf, bytes, 0);
    dg_comm_leave(c);
}

int dg_comm_bcast_alloc(const Comm *c, char **buf, size_t *bytes, int root)
{
    uint64_t n = c->rank == root ? *bytes : 0;
    char *p = c->rank == root ? *buf : NULL;
    int err = DG_OK;

    dg_comm_bcast(c, &n, sizeof n, root);
    if (c->rank != root) {
        p = malloc(n + 1);
        if (p == NULL)
            err = dg_fail(DG_ENOMEM, "%llu bytes to receive",
                          (unsigned long long)n);
    }
    err = dg_agree(c, err);
    if (err) {
        if (c->rank != root)
            free(p);
        return err;
    }
    dg_comm_bcast(c, p, n, root);
    if (c->rank != root) {
        p[n] = '\0';
        *buf = p;
        *bytes = n;
    }
    return DG_OK;
}

static void all_gather(const Comm *c, void *all, const void *mine, int bytes)
{
    MPI_Request request;

    if (!c->impl->sleeps) {
        MPI_Allgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE,
                      c->impl->mpi);
        return;
    }
    MPI_Iallgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, c->impl->mpi,
                   &request);
    complete(&request);
}

void dg_comm_allgather(const Comm *c, void *all, const void *mine, size_t bytes)
{
    if (bytes <= (size_t)INT_MAX / (size_t)c->size) {
        dg_comm_enter(c, "a gathering", 1);
        all_gather(c, all, mine, (int)bytes);
        dg_comm_leave(c);
        return;
    }
    memmove((char *)all + bytes * (size_t)c->rank, mine, bytes);
    for (int r = 0; r < c->size; r++)
        dg_comm_bcast(c, (char *)all + bytes * (size_t)r, bytes, r);
}

/* One broadcast per rank: no limits of int on lengths or places. The blocks
   are few and long where this is used, so the latency does not matter. */
void dg_comm_allgatherv(const Comm *c, void *all, const void *mine,
                        const int64_t *counts, size_t element_bytes)
{
    char *at = all;

    for (int r = 0; r < c->size; r++) {
        const size_t bytes = (size_t)counts[r] * element_bytes;

        if (r == c->rank && at != mine && bytes > 0)
            memmove(at, mine, bytes);
        dg_comm_bcast(c, at, bytes, r);
        at += bytes;
    }
}

void dg_comm_share_items(const Comm *c, void *buf, int64_t num_items,
                         size_t item_bytes)
{
    for (int r = 0; r < c->size; r++) {
        int64_t first, num;

        dg_share_range(num_items, r, c->size, &first, &num);
        dg_comm_bcast(c, (char *)buf + (size_t)first * item_bytes,
                      (size_t)num * item_bytes, r);
    }
}

enum { TO_ALL = -1 };

/* To one rank, or TO_ALL. */
static void reduce_to(const Comm *c, void *v, int64_t num, MPI_Datatype type,
                      MPI_Op op, int root)
{
    int element_bytes;
    char *at = v;

    if (c->size == 1)
        return;
    MPI_Type_size(type, &element_bytes);
    dg_comm_enter(c, "a sum or extremum", 1);
    while (num > 0) {
        const int n = num < PIECE ? (int)num : PIECE;

        if (root == TO_ALL)
            all_reduce(c, MPI_IN_PLACE, at, n, type, op);
        else
            reduce(c, at, n, type, op, root);
        at += (size_t)n * (size_t)element_bytes;
        num -= n;
    }
    dg_comm_leave(c);
}

void dg_comm_sum_i64(const Comm *c, int64_t *v, int64_t num)
{
    reduce_to(c, v, num, MPI_INT64_T, MPI_SUM, TO_ALL);
}

void dg_comm_min_i64(const Comm *c, int64_t *v, int64_t num)
{
    reduce_to(c, v, num, MPI_INT64_T, MPI_MIN, TO_ALL);
}

void dg_comm_max_i64(const Comm *c, int64_t *v, int64_t num)
{
    reduce_to(c, v, num, MPI_INT64_T, MPI_MAX, TO_ALL);
}

void dg_comm_max_f64(const Comm *c, double *v, int64_t num)
{
    reduce_to(c, v, num, MPI_DOUBLE, MPI_MAX, TO_ALL);
}

void dg_comm_sum_f64(const Comm *c, double *v, int64_t num)
{
    reduce_to(c, v, num, MPI_DOUBLE, MPI_SUM, TO_ALL);
}

void dg_comm_sum_f32(const Comm *c, float *v, int64_t num)
{
    reduce_to(c, v, num, MPI_FLOAT, MPI_SUM, TO_ALL);
}

void dg_comm_sum_i64_to(const Comm *c, int64_t *v, int64_t num, int root)
{
    reduce_to(c, v, num, MPI_INT64_T, MPI_SUM, root);
}

void dg_comm_sum_f32_to(const Comm *c, float *v, int64_t num, int root)
{
    reduce_to(c, v, num, MPI_FLOAT, MPI_SUM, root);
}

static void send(const Comm *c, const void *at, int bytes, int to)
{
    MPI_Request request;

    if (!c->impl->sleeps) {
        MPI_Send(at, bytes, MPI_BYTE, to, 0, c->impl->mpi);
        return;
    }
    MPI_Isend(at, bytes, MPI_BYTE, to, 0, c->impl->mpi, &request);
    complete(&request);
}

static void receive(const Comm *c, void *at, int bytes, int from)
{
    MPI_Request request;

    if (!c->impl->sleeps) {
        MPI_Recv(at, bytes, MPI_BYTE, from, 0, c->impl->mpi, MPI_STATUS_IGNORE);
        return;
    }
    MPI_Irecv(at, bytes, MPI_BYTE, from, 0, c->impl->mpi, &request);
    complete(&request);
}

void dg_comm_pass(const Comm *c, void *buf, size_t bytes, int from, int to)
{
    char *at = buf;

    if (from == to || (c->rank != from && c->rank != to))
        return;
    dg_comm_enter(c, "a message", 0);
    while (bytes > 0) {
        const int n = bytes < (size_t)PIECE ? (int)bytes : PIECE;

        if (c->rank == from)
            send(c, at, n, to);
        else
            receive(c, at, n, from);
        at += n;
        bytes -= (size_t)n;
    }
    dg_comm_leave(c);
}

void dg_comm_host(const Comm *c, char *text, size_t bytes)
{
    char mine[MPI_MAX_PROCESSOR_NAME] = "";
    int length;

    if (c->node_size < c->size)
        MPI_Get_processor_name(mine, &length);
    snprintf(text, bytes, "%.*s", (int)bytes - 1, mine);
}

/* Whether a name is among those of a list. */
static int is_listed(const char *list, const char *name)
{
    const size_t length = strlen(name);

    for (const char *at = list; (at = strstr(at, name)) != NULL; at++)
        if ((at == list || at[-1] == ',') &&
            (at[length] == ',' || at[length] == '\0'))
            return 1;
    return 0;
}

void dg_comm_hosts(const Comm *c, char *text, size_t bytes)
{
    char mine[MPI_MAX_PROCESSOR_NAME] = "", next[MPI_MAX_PROCESSOR_NAME];
    size_t used = 0;
    int length;

    MPI_Get_processor_name(mine, &length);
    text[0] = '\0';
    for (int r = 0; r < c->size; r++) {
        memcpy(next, mine, sizeof next);
        dg_comm_bcast(c, next, sizeof next, r);
        if (used + 1 >= bytes || is_listed(text, next))
            continue;
        used += (size_t)snprintf(text + used, bytes - used, "%s%s",
                                 used ? "," : "", next);
    }
}

void dg_comm_library(char *text, size_t bytes)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;

    MPI_Get_library_version(version, &length);
    snprintf(text, bytes, "%.*s", (int)strcspn(version, ",\n"), version);
}

void dg_share_range(int64_t total, int rank, int size, int64_t *first,
                    int64_t *num)
{
    const int64_t each = total / size, more = total % size;

    *first = each * rank + (rank < more ? rank : more);
    *num = each + (rank < more);
}

int dg_share_owner(int64_t total, int size, int64_t item)
{
    const int64_t each = total / size, more = total % size;
    const int64_t split = more * (each + 1);

    if (item < split)
        return (int)(item / (each + 1));
    return (int)(more + (item - split) / each);
}
