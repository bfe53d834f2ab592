#define _GNU_SOURCE /* sched_getaffinity */
#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/version.h"
#include "store/h5.h"
#include "train/doctor.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* --- findings ------------------------------------------------------------- */

typedef enum Verdict { FINE, DOUBTFUL, WRONG, NUM_VERDICTS } Verdict;

typedef struct Doctor {
    Cli *cli;
    int count[NUM_VERDICTS];
} Doctor;

/* A row of the table, on rank 0, as soon as it is known. */
static void tell(Doctor *d, const char *what, Verdict v, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void tell(Doctor *d, const char *what, Verdict v, const char *fmt, ...)
{
    static const char *const words[NUM_VERDICTS] = { "ok", "WARN", "FAIL" };
    va_list args;

    d->count[v]++;
    if (d->cli->comm.rank != 0)
        return;
    printf("%-10s %-5s ", what, words[v]);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* A trial that found something, which all ranks know of. */
static void tell_error(Doctor *d, const char *what)
{
    tell(d, what, WRONG, "%s", dg_last_error()->text);
    dg_clear_error();
}

/* --- the machine ------------------------------------------------------------ */

/* What a rank sees of its node. */
typedef struct Seen {
    char host[64];
    int32_t node; /* its first rank */
    int32_t threads;
    int32_t cores;      /* that this rank may use */
    int32_t node_cores; /* that are there */
    int64_t unused;     /* bytes of memory that programs may have, */
    int64_t all;        /* and all there are */
    int64_t shared;     /* bytes free in /dev/shm */
} Seen;

static void read_memory(Seen *s)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[256];
    long long kib;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "MemTotal: %lld", &kib) == 1)
            s->all = kib * 1024;
        else if (sscanf(line, "MemAvailable: %lld", &kib) == 1)
            s->unused = kib * 1024;
    }
    if (f != NULL)
        fclose(f);
}

/* A job may be held to less than the node has. */
static void read_limit(Seen *s)
{
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "r");
    long long most;

    if (f == NULL)
        f = fopen("/sys/fs/cgroup/memory/memory.limit_in_bytes", "r");
    if (f == NULL)
        return;
    if (fscanf(f, "%lld", &most) == 1 && most > 0 && most < s->unused)
        s->unused = most;
    fclose(f);
}

static void look(Seen *s, const Cli *cli)
{
    struct statvfs fs;
    cpu_set_t cores;

    memset(s, 0, sizeof *s);
    gethostname(s->host, sizeof s->host - 1);
    s->node = cli->comm.rank;
    dg_comm_node_bcast(&cli->comm, &s->node, sizeof s->node, 0);
    s->threads = dg_cli_threads(cli);
    s->node_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    s->cores = sched_getaffinity(0, sizeof cores, &cores) == 0
                   ? CPU_COUNT(&cores)
                   : s->node_cores;
    read_memory(s);
    read_limit(s);
    s->shared = statvfs("/dev/shm", &fs) == 0
                    ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize
                    : 0;
}

/* A node, by what its ranks see. */
typedef struct Node {
    const Seen *first;
    int ranks, threads, cores; /* of all of them */
} Node;

/* The node whose first rank is r; ranks 0: it is no node's first. */
static Node node_of(const Seen *all, int size, int r)
{
    Node n = { .first = &all[r] };

    for (int i = 0; i < size; i++)
        if (all[i].node == r) {
            n.ranks++;
            n.threads += all[i].threads;
            n.cores = all[i].cores > n.cores ? all[i].cores : n.cores;
        }
    return n;
}

static void tell_ranks(Doctor *d, const Seen *all)
{
    const int size = d->cli->comm.size;
    char hosts[512];
    int nodes = 0;

    for (int r = 0; r < size; r++)
        nodes += node_of(all, size, r).ranks > 0;
    dg_comm_hosts(&d->cli->comm, hosts, sizeof hosts);
    tell(d, "ranks", FINE, "%d on %d %s: %s", size, nodes,
         nodes == 1 ? "node" : "nodes", hosts);
}

/* Threads that wait for each other's core, and cores that nobody uses. */
static void tell_cores(Doctor *d, const Seen *all)
{
    const int size = d->cli->comm.size;
    const int gpu = d->cli->config.run.device == DG_DEVICE_CUDA;
    int bad = 0;

    for (int r = 0; r < size; r++) {
        const Node n = node_of(all, size, r);
        const Seen *s = n.first;

        if (n.ranks == 0)
            continue;
        if (n.threads > s->node_cores || (n.cores == 1 && n.threads > n.ranks))
            tell(d, "cores", DOUBTFUL,
                 "%s: %d ranks run %d threads on %d cores, of which a rank may "
                 "use %d: fewer ranks, or a smaller run.threads",
                 s->host, n.ranks, n.threads, s->node_cores, n.cores);
        else if (!gpu && n.threads * 2 <= s->node_cores)
            tell(d, "cores", DOUBTFUL,
                 "%s: %d ranks run %d threads, a rank may use %d of %d cores: "
                 "mpirun --bind-to none, --cpus-per-task, or run.threads = 0",
                 s->host, n.ranks, n.threads, n.cores, s->node_cores);
        else
            continue;
        bad = 1;
    }
    if (!bad)
        tell(d, "cores", FINE, "%d %s a rank, %d cores a node", all->threads,
             all->threads == 1 ? "thread" : "threads", all->node_cores);
}

static void tell_memory(Doctor *d, const Seen *all)
{
    enum { SHARED_EACH = 32 << 20 }; /* what MPI may want of /dev/shm */
    const int size = d->cli->comm.size;
    const Seen *least = all;
    int bad = 0;

    for (int r = 0; r < size; r++) {
        const Node n = node_of(all, size, r);

        if (all[r].unused < least->unused)
            least = &all[r];
        if (n.ranks > 1 && n.first->shared < (int64_t)SHARED_EACH * n.ranks) {
            tell(d, "memory", DOUBTFUL,
                 "%s: %.0f MB free in /dev/shm for %d ranks, which MPI talks "
                 "through: a container may be given more (--shm-size)",
                 n.first->host, 1e-6 * (double)n.first->shared, n.ranks);
            bad = 1;
        }
    }
    if (!bad)
        tell(d, "memory", FINE,
             "%.1f of %.1f GB free (%s); `dancegrpo plan` "
             "says what a run needs",
             1e-9 * (double)least->unused, 1e-9 * (double)least->all,
             least->host);
}

static int examine_machine(Doctor *d)
{
    const Comm *c = &d->cli->comm;
    Seen mine, *all = malloc((size_t)c->size * sizeof *all);
    const int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    if (!err) {
        look(&mine, d->cli);
        dg_comm_allgather(c, all, &mine, sizeof mine);
        tell_ranks(d, all);
        tell_cores(d, all);
        tell_memory(d, all);
    }
    free(all);
    return err;
}

/* --- the program and its libraries ------------------------------------------ */

static void tell_program(Doctor *d)
{
    tell(d, "program", FINE, "%s (commit %s, %s), %s", dg_version(),
         dg_git_commit(), dg_compiler(),
         dg_cli_has_gpu_side() ? "with its GPU side" : "without its GPU side");
}

static void tell_mpi(Doctor *d)
{
    const Comm *c = &d->cli->comm;
    char library[256];

    dg_comm_library(library, sizeof library);
    library[strcspn(library, "\n,")] = '\0';
    if (c->threads)
        tell(d, "mpi", FINE, "%s; files can be written beside the rollout",
             library);
    else
        tell(d, "mpi", DOUBTFUL,
             "%s lets one thread call it: files are written between "
             "iterations (parallel.write_beside)",
             library);
}

/* --- trials ------------------------------------------------------------------ */

static void try_numbers(Doctor *d)
{
    if (dg_doctor_numbers(&d->cli->comm) != DG_OK)
        tell_error(d, "numbers");
    else
        tell(d, "numbers", FINE,
             "IEEE 754 to nearest even with subnormals; noise by Philox");
}

static void try_sums(Doctor *d)
{
    double rate;

    if (dg_doctor_sums(&rate, &d->cli->comm) != DG_OK)
        tell_error(d, "sums");
    else if (rate > 0)
        tell(d, "sums", FINE, "of integers over all ranks, 8 MB: %.2f GB/s",
             1e-9 * rate);
    else
        tell(d, "sums", FINE, "one rank: mpirun -n RANKS tries those of ranks");
}

static void try_files(Doctor *d, const Session *s)
{
    DoctorFiles f;

    if (dg_doctor_files(&f, s, d->cli->config.run.dir) != DG_OK)
        tell_error(d, "files");
    else
        tell(
            d, "files", FINE,
            "%s: %.0f MB written by all ranks in %.2f s, synced, renamed, read "
            "by each; %.1f GB free; %s",
            f.folder, 1e-6 * f.bytes, f.write_s, 1e-9 * f.unused,
            dg_h5_library());
}

static void tell_gpu(Doctor *d, const Session *s)
{
    size_t unused, all;

    if (s->backend->room == NULL)
        return;
    if (dg_agree(s->comm, s->backend->room(&unused, &all)) != DG_OK)
        tell_error(d, "gpu");
    else if (s->device_ranks > 1)
        tell(d, "gpu", DOUBTFUL,
             "%d ranks share a GPU: sums go through the host", s->device_ranks);
    else
        tell(d, "gpu", FINE, "one for each rank; %.1f of %.1f GB free",
             1e-9 * (double)unused, 1e-9 * (double)all);
}

static void tell_arithmetic(Doctor *d)
{
    const Cli *cli = d->cli;

    if (cli->unlike > 0)
        tell(d, "arithmetic", DOUBTFUL,
             "rank %d computes otherwise than rank 0 (above): bits depend on "
             "who has which sample",
             cli->unlike);
    else
        tell(d, "arithmetic", FINE, "%s", cli->arithmetic);
}

static void try_network(Doctor *d, const Session *s)
{
    const int rank = s->comm->rank;
    DoctorNetwork n;
    int err;

    dg_progress_enable(0);
    dg_log_setup(rank, DG_LOG_ERROR); /* the small network is nobody's run */
    err = dg_doctor_network(&n, s);
    dg_log_setup(rank, DG_LOG_INFO);
    if (err)
        tell_error(d, "promises");
    else
        tell(d, "promises", FINE,
             "ratio exactly 1; the same weights by each rank and by all "
             "(%.12s); %.1f and %.1f s",
             n.digest, n.alone_s, n.all_s);
}

static int examine(Cli *cli, void *none)
{
    Doctor d = { .cli = cli };
    Session session;
    int err;

    (void)none;
    if (cli->dry_run)
        return DG_OK;
    tell_program(&d);
    tell_mpi(&d);
    err = examine_machine(&d);
    if (err)
        return err;
    try_numbers(&d);
    try_sums(&d);
    err = dg_cli_session(&session, cli);
    if (err) {
        tell_error(&d, "device");
    } else {
        tell_arithmetic(&d);
        tell_gpu(&d, &session);
        try_files(&d, &session);
        try_network(&d, &session);
    }
    if (cli->comm.rank == 0)
        printf("%d ok, %d to look at, %d failed\n", d.count[FINE],
               d.count[DOUBTFUL], d.count[WRONG]);
    return d.count[WRONG] == 0
               ? DG_OK
               : dg_fail(DG_EPROMISE,
                         "doctor: %d of its findings would spoil a "
                         "run",
                         d.count[WRONG]);
}

int dg_cli_doctor(int argc, char **argv)
{
    static const CliSpec spec = {
        .work = examine,
        .config = DG_CLI_OPTIONAL,
        .on_gpu = 1,
        .outline = 1,
        .summary =
            "Tries in seconds whether the promises hold on this machine: to be "
            "started as the\nrun will be, with the same mpirun or srun. With "
            "CONFIG its device, threads and\nparallel.* are used, and files "
            "are "
            "tried where run.dir is to be.",
    };

    return dg_cli_run(&spec, NULL, argc, argv);
}
