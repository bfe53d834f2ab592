#define _GNU_SOURCE /* sched_getaffinity */
/* What ranks see of their nodes: cores, memory, room. */
#include "doctor.h"

#include "base/error.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

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
    dg_finding(d, "ranks", DG_FINE, "%d on %d %s: %s", size, nodes,
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
            dg_finding(
                d, "cores", DG_DOUBTFUL,
                "%s: %d rank%s run%s %d threads on %d core%s, of which a rank "
                "may use %d: fewer ranks, or a smaller run.threads",
                s->host, n.ranks, dg_plural(n.ranks), n.ranks == 1 ? "s" : "",
                n.threads, s->node_cores, dg_plural(s->node_cores), n.cores);
        else if (!gpu && n.threads * 2 <= s->node_cores)
            dg_finding(
                d, "cores", DG_DOUBTFUL,
                "%s: %d rank%s run%s %d thread%s, a rank may use %d of %d "
                "cores: mpirun --bind-to none, --cpus-per-task, or "
                "run.threads = 0",
                s->host, n.ranks, dg_plural(n.ranks), n.ranks == 1 ? "s" : "",
                n.threads, dg_plural(n.threads), n.cores, s->node_cores);
        else
            continue;
        bad = 1;
    }
    if (!bad)
        dg_finding(d, "cores", DG_FINE, "%d %s a rank, %d cores a node",
                   all->threads, all->threads == 1 ? "thread" : "threads",
                   all->node_cores);
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
            dg_finding(
                d, "memory", DG_DOUBTFUL,
                "%s: %.0f MB free in /dev/shm for %d ranks, which MPI talks "
                "through: a container may be given more (--shm-size)",
                n.first->host, 1e-6 * (double)n.first->shared, n.ranks);
            bad = 1;
        }
    }
    if (!bad)
        dg_finding(d, "memory", DG_FINE,
                   "%.1f of %.1f GB free (%s); `dancegrpo plan` "
                   "says what a run needs",
                   1e-9 * (double)least->unused, 1e-9 * (double)least->all,
                   least->host);
}

int dg_doctor_machine(Doctor *d)
{
    const Comm *c = &d->cli->comm;
    Seen mine, *all = malloc((size_t)c->size * sizeof *all);
    const int err =
        dg_agree(c, all != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor: ranks"));

    if (err) {
        free(all);
        return err;
    }
    look(&mine, d->cli);
    dg_comm_allgather(c, all, &mine, sizeof mine);
    d->seen = all;
    tell_ranks(d, all);
    tell_cores(d, all);
    tell_memory(d, all);
    return DG_OK;
}

int dg_doctor_room(Doctor *d, uint64_t bytes)
{
    const int size = d->cli->comm.size;
    const double GB = 1e-9;
    Node tightest = { .first = NULL };
    double least = 0;

    for (int r = 0; r < size; r++) {
        const Node n = node_of(d->seen, size, r);
        const double left = (double)n.first->unused - (double)bytes * n.ranks;

        if (n.ranks > 0 && (tightest.first == NULL || left < least)) {
            tightest = n;
            least = left;
        }
    }
    dg_finding(
        d, "room", least < 0 ? DG_WRONG : DG_FINE,
        "%.2f GB of memory for each rank of this configuration: %d rank%s "
        "on %s, with %.1f GB free%s",
        GB * (double)bytes, tightest.ranks, dg_plural(tightest.ranks),
        tightest.first->host, GB * (double)tightest.first->unused,
        least < 0 ? "; `dancegrpo plan` says what takes it" : "");
    dg_finding_number(d, "rank_bytes", (double)bytes);
    return least >= 0;
}
