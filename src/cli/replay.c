#include "cli/command.h"

#include "base/error.h"
#include "train/trainer.h"

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

    int err = dg_cli_stored_config(cli, cli->args[0]);

    if (!err)
        err = dg_cli_moved(p->path, "--folder", m->folder);
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
        { "--threads", "workers of each rank; 0: as run.threads = 0",
          .number = &m.threads, .least = 0, .most = MOST_THREADS },
        { "--folder", "where policy.path is now", .value = &m.folder },
        { "--weights", "of adapters: where policy.weights is now",
          .value = &m.weights },
    };
    const CliSpec spec = {
        .work = replay,
        .config = DG_CLI_NONE,
        .on_gpu = 1,
        .summary = "Computes an iteration's log-probs, advantages, gradients "
                   "and updates again\nfrom its trajectory file and compares "
                   "them bit for bit.",
        .arguments = "FILE.h5",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = 3,
    };

    return dg_cli_run(&spec, &m, argc, argv);
}
