#include "cli/command.h"

#include "base/error.h"
#include "train/trainer.h"

#include <sys/stat.h>

/* Of the command line. */
typedef struct Moved {
    int threads;
    const char *folder, *weights;
} Moved;

enum { AS_IT_WAS = -1, MOST_THREADS = 4096 }; /* as run.threads */

/* The configuration is the file's own; threads may be chosen anew, and what was
 * read elsewhere may have moved: what it holds is checked. */
static int take_config(Cli *cli, const Moved *m)
{
    PolicyConfig *p = &cli->config.policy;
    struct stat st;
    int err;

    if (stat(cli->args[0], &st) == 0 && S_ISDIR(st.st_mode))
        return dg_fail(DG_EINVAL,
                       "%s is a folder: must be one trajectory file, of a run "
                       "%.200s/trajectories/iter_....h5, which a run with "
                       "trajectory.every > 0 writes",
                       cli->args[0], cli->args[0]);
    err = dg_cli_stored_config(cli, cli->args[0]);
    if (!err)
        err = dg_cli_moved(p->path, "--folder", m->folder);
    if (!err && m->weights != NULL && cli->config.lora.rank == 0)
        err = dg_fail(DG_EUSAGE,
                      "--weights %.300s: only for a run that trained adapters "
                      "(lora.rank > 0); %.300s has all weights itself",
                      m->weights, cli->args[0]);
    if (!err)
        err = dg_cli_moved(p->weights, "--weights", m->weights);
    if (err)
        return err;
    if (m->threads != AS_IT_WAS)
        cli->config.run.threads = m->threads;
    cli->config.trajectory.every = 0; /* no file is written, */
    cli->config.evaluate.every = 0;   /* and nothing evaluated */
    dg_config_settle(&cli->config);
    return DG_OK;
}

static int replay(Cli *cli, void *options)
{
    Session session;
    int err = dg_agree(&cli->comm, take_config(cli, options));

    if (!err)
        err = dg_cli_session(&session, cli);
    /* weights in ranges want one worker a rank; no level changes a bit */
    if (!err && session.num_threads > 1 &&
        cli->config.parallel.shard == DG_SHARD_PARAMETERS)
        cli->config.parallel.shard = DG_SHARD_GRADIENTS;
    return err ? err : dg_replay(&session, cli->args[0]);
}

int dg_cli_replay(int argc, char **argv)
{
    Moved m = { .threads = AS_IT_WAS };
    const CliFlag flags[] = {
        { "--threads",
          "threads per rank, 0: the cores of the node shared among its "
          "ranks (default: as the run had them)",
          .number = &m.threads, .least = 0, .most = MOST_THREADS },
        { "--folder", "where the folder of policy.path is now",
          .value = &m.folder, .takes = "FOLDER" },
        { "--weights",
          "of adapters only: where the file of policy.weights is now",
          .value = &m.weights, .takes = "FILE" },
    };
    const CliSpec spec = {
        .work = replay,
        .config = DG_CLI_NONE,
        .on_gpu = 1,
        .summary = "Computes an iteration's log-probs, advantages, gradients "
                   "and updates again from its trajectory file and compares "
                   "them bit for bit.",
        .arguments = "FILE.h5",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = 3,
    };

    return dg_cli_run(&spec, &m, argc, argv);
}
