#include "doctor.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/version.h"
#include "cpu/sgemm_rate.h"
#include "store/h5.h"
#include "train/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the command line. */
typedef struct Wanted {
    int quick;
    const char *json;
} Wanted;

/* --- the program and its libraries ------------------------------------------ */

static void tell_program(Doctor *d)
{
    dg_finding(d, "program", DG_FINE, "%s (commit %s, %s), %s", dg_version(),
               dg_git_commit(), dg_compiler(),
               dg_cli_has_gpu_side() ? "with its GPU side"
                                     : "without its GPU side");
}

static void tell_mpi(Doctor *d)
{
    const Comm *c = &d->cli->comm;
    char library[256];

    dg_comm_library(library, sizeof library);
    library[strcspn(library, "\n,")] = '\0';
    if (c->threads)
        dg_finding(d, "mpi", DG_FINE,
                   "%s; files can be written beside the rollout", library);
    else
        dg_finding(d, "mpi", DG_DOUBTFUL,
                   "%s lets one thread call it: files are written between "
                   "iterations (parallel.write_beside)",
                   library);
}

static void tell_gpu(Doctor *d, const Session *s)
{
    size_t unused, all;

    if (s->backend->room == NULL)
        return;
    if (dg_agree(s->comm, s->backend->room(&unused, &all)) != DG_OK)
        dg_finding_error(d, "gpu");
    else if (s->device_ranks > 1)
        dg_finding(d, "gpu", DG_DOUBTFUL,
                   "%d ranks share a GPU: sums go through the host",
                   s->device_ranks);
    else
        dg_finding(d, "gpu", DG_FINE, "one for each rank; %.1f of %.1f GB free",
                   1e-9 * (double)unused, 1e-9 * (double)all);
}

static void tell_arithmetic(Doctor *d)
{
    const Cli *cli = d->cli;

    if (cli->unlike > 0)
        dg_finding(d, "arithmetic", DG_DOUBTFUL,
                   "rank %d computes otherwise than rank 0 (above): bits "
                   "depend on who has which sample",
                   cli->unlike);
    else
        dg_finding(d, "arithmetic", DG_FINE, "%s", cli->arithmetic);
}

/* --- between ranks ----------------------------------------------------------- */

static void try_numbers(Doctor *d)
{
    if (dg_doctor_numbers(&d->cli->comm) != DG_OK)
        dg_finding_error(d, "numbers");
    else
        dg_finding(d, "numbers", DG_FINE,
                   "IEEE 754 to nearest even with subnormals; noise by Philox");
}

/* "131 kB", "47.6 GB" */
static const char *size_text(char text[16], double bytes)
{
    if (bytes < 1e6)
        snprintf(text, 16, "%.0f kB", 1e-3 * bytes);
    else if (bytes < 1e9)
        snprintf(text, 16, "%.0f MB", 1e-6 * bytes);
    else
        snprintf(text, 16, "%.1f GB", 1e-9 * bytes);
    return text;
}

static void tell_sums(Doctor *d, const DoctorLink *l)
{
    const int last = l->num - 1;
    char times[160] = "", size[16];

    for (int i = 0; i < l->num; i++)
        snprintf(times + strlen(times), sizeof times - strlen(times),
                 "%s%s %.3g ms", i > 0 ? ", " : "",
                 size_text(size, l->bytes[i]), 1e3 * l->seconds[i]);
    dg_finding(d, "sums", DG_FINE,
               "of %s over all ranks by %s: %s, %.2f GB/s; sums to each rank, "
               "broadcasts, gathering",
               l->whole ? "integers" : "float32 numbers",
               l->devices ? "the GPUs' link" : "MPI", times,
               1e-9 * l->bytes[last] / l->seconds[last]);
    dg_finding_number(d, "bytes", l->bytes[last]);
    dg_finding_number(d, "seconds", l->seconds[last]);
    dg_finding_number(d, "latency_s", l->seconds[0]);
}

/* What an iteration sends, at the rate of the largest sum. */
static void tell_traffic(Doctor *d, const DoctorLink *l, const DoctorNeeds *n)
{
    const int last = l->num - 1;
    const double takes =
        (n->sums + n->weights) / l->bytes[last] * l->seconds[last];
    char size[2][16], lasts[DG_DURATION_BYTES];

    dg_clock_duration(lasts, takes);
    dg_finding(d, "traffic", DG_FINE,
               "%s of sums and %s of weights between ranks in an iteration, of "
               "each: %s at the rate of such sums",
               size_text(size[0], n->sums), size_text(size[1], n->weights),
               lasts);
    dg_finding_number(d, "sum_bytes", n->sums);
    dg_finding_number(d, "weight_bytes", n->weights);
    dg_finding_number(d, "seconds", takes);
}

/* A pair is slow where it has less than a third of what is usual. */
static void tell_messages(Doctor *d, const char *where, double usual,
                          double least, const int pair[2])
{
    enum { SLOW = 3 };
    const int slow = least * SLOW < usual;
    const Seen *seen = d->seen;

    if (usual <= 0)
        return;
    if (slow)
        dg_finding(d, "messages", DG_SLOW,
                   "%s: %.2f GB/s from rank %d on %s to rank %d on %s, where "
                   "%.2f GB/s are usual",
                   where, 1e-9 * least, pair[0], seen[pair[0]].host, pair[1],
                   seen[pair[1]].host, 1e-9 * usual);
    else
        dg_finding(d, "messages", DG_FINE,
                   "%s: %.2f GB/s, at least %.2f (ranks %d to %d)", where,
                   1e-9 * usual, 1e-9 * least, pair[0], pair[1]);
    dg_finding_number(d, "usual_bytes_per_s", usual);
    dg_finding_number(d, "least_bytes_per_s", least);
}

/* Nobody waits for ever: a link that is cut is what is looked for. Networks may
 * be so large that a rank waits longer for what another one reads. */
enum { PATIENCE_S = 60 };

static int begin_watch(Cli *cli)
{
    if (cli->config.parallel.timeout_seconds > PATIENCE_S)
        cli->config.parallel.timeout_seconds = PATIENCE_S;
    return cli->config.parallel.host_timeout_seconds > 0
               ? DG_OK
               : dg_comm_watch(&cli->comm, PATIENCE_S);
}

static void end_watch(Cli *cli)
{
    if (cli->config.parallel.host_timeout_seconds <= 0)
        dg_comm_unwatch(&cli->comm);
}

static void try_link(Doctor *d, const Session *s, const DoctorNeeds *n)
{
    DoctorLink l;

    if (dg_doctor_link(&l, s) != DG_OK) {
        dg_finding_error(d, "sums");
        return;
    }
    if (l.num == 0) {
        dg_finding(d, "sums", DG_FINE,
                   "one rank: mpirun -n RANKS tries those of ranks");
        return;
    }
    tell_sums(d, &l);
    if (n != NULL)
        tell_traffic(d, &l, n);
    tell_messages(d, "within nodes", l.within, l.within_least, l.within_pair);
    tell_messages(d, "between nodes", l.between, l.between_least,
                  l.between_pair);
}

/* --- files --------------------------------------------------------------------- */

enum { SLOW_CHECKPOINT_S = 300 };

/* Where what the run writes has no room, and how long a checkpoint takes. */
static void tell_space(Doctor *d, const DoctorFiles *f, const DoctorNeeds *n)
{
    const double rate = f->bytes / f->write_s;
    const double all = n->checkpoint * (double)n->checkpoints +
                       n->trajectory * (double)n->trajectories;
    const double takes = n->checkpoint / rate;
    const int wrong = n->checkpoint + n->trajectory > f->unused;
    const int full = all > f->unused, slow = takes > SLOW_CHECKPOINT_S;
    char size[4][16], trajectories[48] = "", lasts[DG_DURATION_BYTES];

    dg_clock_duration(lasts, takes);
    if (n->trajectories > 0)
        snprintf(trajectories, sizeof trajectories, ", %lld trajector%s of %s",
                 (long long)n->trajectories, n->trajectories == 1 ? "y" : "ies",
                 size_text(size[1], n->trajectory));
    dg_finding(d, "space",
               wrong  ? DG_WRONG
               : full ? DG_DOUBTFUL
               : slow ? DG_SLOW
                      : DG_FINE,
               "%lld checkpoint%s of %s%s: %s of %s free%s; a checkpoint in "
               "%s at this speed",
               (long long)n->checkpoints, dg_plural(n->checkpoints),
               size_text(size[0], n->checkpoint), trajectories,
               size_text(size[2], all), size_text(size[3], f->unused),
               full ? " (checkpoint.keep, trajectory.every)" : "", lasts);
    dg_finding_number(d, "needed_bytes", all);
    dg_finding_number(d, "free_bytes", f->unused);
    dg_finding_number(d, "checkpoint_s", takes);
}

static void try_files(Doctor *d, const Session *s, const DoctorNeeds *n)
{
    DoctorFiles f;

    if (dg_doctor_files(&f, s, d->cli->config.run.dir) != DG_OK) {
        dg_finding_error(d, "files");
        return;
    }
    dg_finding(d, "files", DG_FINE,
               "%s: %.0f MB written by all ranks in %.2f s, synced, renamed, "
               "read by each in %.2f s, removed; %.1f GB free; %s",
               f.folder, 1e-6 * f.bytes, f.write_s, f.read_s, 1e-9 * f.unused,
               dg_h5_library());
    dg_finding_number(d, "write_bytes_per_s", f.bytes / f.write_s);
    dg_finding_number(d, "free_bytes", f.unused);
    if (n != NULL)
        tell_space(d, &f, n);
}

/* --- networks -------------------------------------------------------------------- */

/* Trials are nobody's run. */
static void hush(const Session *s, int on)
{
    const int warn = s->config->log.level == DG_LOG_SHOW_WARN;

    dg_progress_enable(0);
    dg_log_setup(s->comm->rank, on     ? DG_LOG_ERROR
                                : warn ? DG_LOG_WARN
                                       : DG_LOG_INFO);
}

/* A rank that takes much longer than the others for the same work. */
static void tell_pace(Doctor *d, const DoctorPace *p)
{
    enum { SLOW = 2 };
    const double more = 0.25; /* s: less is chance */

    if (p->slowest > SLOW * p->median && p->slowest > p->median + more)
        dg_finding(d, "pace", DG_SLOW,
                   "rank %d on %s: %.1f s, where %.1f s are usual", p->rank,
                   d->seen[p->rank].host, p->slowest, p->median);
}

static void try_small(Doctor *d, const Session *s)
{
    DoctorNetwork n;
    int err;

    hush(s, 1);
    err = dg_doctor_network(&n, s);
    hush(s, 0);
    if (err) {
        dg_finding_error(d, "promises");
        return;
    }
    dg_finding(d, "promises", DG_FINE,
               "ratio exactly 1; the same weights by each rank and by all "
               "(%.12s); %.1f and %.1f s",
               n.digest, n.alone.slowest, n.all_s);
    dg_finding_number(d, "alone_s", n.alone.slowest);
    dg_finding_number(d, "all_s", n.all_s);
    tell_pace(d, &n.alone);
}

/* What the library's bare product reaches here, of a rank; or an error. */
static int measure_rate(double *rate, const Cli *cli, const Session *s)
{
    const int bf16 = s->config->run.dtype == DG_STORE_BFLOAT16;
    BenchTools tools[DG_BENCH_TOOLS];
    int num = 0, used = 0;
    int err = dg_cli_bare(tools, &num, cli);

    while (!err && used < num && tools[used].dtype != (bf16 ? DG_BF16 : DG_F32))
        used++;
    if (!err)
        err = dg_doctor_rate(rate, s, used < num ? &tools[used] : NULL,
                             dg_cpu_sgemm_bare);
    dg_cli_bare_end(tools, num);
    return dg_agree(s->comm, err);
}

/* Networks reach about half of the bare product's rate. */
static void foretell(const Cli *cli, const Session *s, const DoctorPlan *p)
{
    enum { PART = 2, SOON = 20 };
    char text[DG_DURATION_BYTES];
    double rate = 0;

    if (measure_rate(&rate, cli, s) != DG_OK) {
        dg_clear_error();
        return;
    }
    dg_comm_max_f64(s->comm, &rate, 1);
    if (p->flops * PART < SOON * rate)
        return;
    dg_clock_duration(text, PART * p->flops / rate);
    dg_info("the configuration's network takes about %s: %.3g TFLOP a rank, of "
            "which %.3g a second; --quick leaves it out",
            text, 1e-12 * p->flops, 1e-12 * rate / PART);
}

static void tell_own(Doctor *d, const DoctorOwn *o)
{
    const int several = d->cli->comm.size > 1;

    dg_finding(d, "network", DG_FINE,
               "as configured: ratio exactly 1, the same bits by %s; by each "
               "rank the same samples%s (%.12s); %.1f s",
               o->tried, several && o->gradients ? " and gradients" : "",
               o->digest, o->all_s);
    dg_finding_number(d, "seconds", o->all_s);
    dg_finding_number(d, "flops_of_first_rank", o->flops);
    tell_pace(d, &o->pace);
    if (o->missing[0] != '\0')
        dg_finding(d, "scores", DG_DOUBTFUL, "%s", o->missing);
}

static int has_room(Doctor *d, const Session *s, const DoctorPlan *p)
{
    const int on_host = dg_doctor_room(d, p->bytes);

    if (dg_doctor_fits(s) == DG_OK)
        return on_host;
    dg_finding_error(d, "room");
    return 0;
}

/* The configuration's own network, if there is one here and it has room. */
static void try_own(Doctor *d, const Session *s, const DoctorPlan *p)
{
    DoctorOwn o;
    int err;

    if (p->absent[0] != '\0') {
        dg_finding(d, "network", DG_DOUBTFUL, "not tried, the small one is: %s",
                   p->absent);
        return;
    }
    if (!has_room(d, s, p)) {
        dg_finding(d, "network", DG_DOUBTFUL,
                   "not tried, the small one is: there is no room for it");
        return;
    }
    foretell(d->cli, s, p);
    hush(s, 1);
    err = dg_doctor_own(&o, s);
    hush(s, 0);
    if (err)
        dg_finding_error(d, "network");
    else
        tell_own(d, &o);
}

/* --- all of it ---------------------------------------------------------------------- */

/* What the configuration wants, before anything is tried; own: its network is
 * tried too. */
static void examine_run(Doctor *d, const Session *s, int own)
{
    DoctorPlan plan = { .bytes = 0 };
    DoctorNeeds needs;
    int err = own ? dg_doctor_plan(&plan, s) : DG_OK, fits = 0;

    if (!err && own && plan.absent[0] == '\0') {
        err = dg_agree(s->comm, dg_doctor_needs(&needs, s));
        fits = !err;
    }
    if (err)
        dg_finding_error(d, "plan");
    try_link(d, s, fits ? &needs : NULL);
    end_watch(d->cli);
    tell_arithmetic(d);
    tell_gpu(d, s);
    try_files(d, s, fits ? &needs : NULL);
    try_small(d, s);
    if (own && !err)
        try_own(d, s, &plan);
}

/* Without the device that is wanted. */
static void examine_host(Doctor *d, const Session *s)
{
    dg_finding_error(d, "device");
    try_link(d, s, NULL);
    end_watch(d->cli);
    try_files(d, s, NULL);
}

static int end(Doctor *d, const char *json)
{
    const int wrong = d->count[DG_WRONG];
    int err = DG_OK;

    if (d->cli->comm.rank == 0)
        printf("%d ok, %d to look at, %d failed\n", d->count[DG_FINE],
               d->count[DG_SLOW] + d->count[DG_DOUBTFUL], wrong);
    if (d->cli->comm.rank == 0 && json != NULL)
        err = dg_findings_write(d, json);
    err = dg_agree(&d->cli->comm, err);
    if (err || wrong == 0)
        return err;
    return dg_fail(
        DG_EPROMISE,
        "doctor: %d of the rows above say FAIL: a run would not work here",
        wrong);
}

static int examine(Cli *cli, void *wanted)
{
    const Wanted *w = wanted;
    Doctor *d = calloc(1, sizeof *d);
    Session session;
    int err =
        dg_agree(&cli->comm, d != NULL ? DG_OK : dg_fail(DG_ENOMEM, "doctor"));

    if (err || cli->dry_run) {
        free(d);
        return err;
    }
    d->cli = cli;
    tell_program(d);
    tell_mpi(d);
    err = begin_watch(cli);
    if (!err)
        err = dg_doctor_machine(d);
    if (!err) {
        try_numbers(d);
        if (dg_cli_session(&session, cli) != DG_OK)
            examine_host(d, &session);
        else
            examine_run(d, &session, cli->config_path != NULL && !w->quick);
        err = end(d, w->json);
    }
    dg_findings_free(d);
    free(d);
    return err;
}

int dg_cli_doctor(int argc, char **argv)
{
    Wanted w = { .quick = 0 };
    const CliFlag flags[] = {
        { "--quick", "try a small network only, not the configuration's",
          .on = &w.quick },
        { "--json", "write the findings to this JSON file too",
          .file = &w.json },
    };
    const CliSpec spec = {
        .work = examine,
        .config = DG_CLI_OPTIONAL,
        .on_gpu = 1,
        .outline = 1,
        .summary =
            "Checks in seconds whether a run will work on this machine. Start "
            "it as the run will be started, with the same mpirun or srun. With "
            "CONFIG, its device, threads and parallel.* are used, its network, "
            "decoder and rewards are tried on a short group, and files are "
            "written where run.dir will be.",
        .flags = flags,
        .num_flags = 2,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
