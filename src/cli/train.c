#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "report/report.h"
#include "reward/reward.h"
#include "train/trainer.h"

#include <stdlib.h>

/* The run is safe whatever becomes of its page. */
static void write_report(const Cli *cli)
{
    const char *dir = cli->config.run.dir;

    if (cli->comm.rank != 0)
        return;
    if (dg_report_write(dir) == DG_OK)
        dg_info("report: %s/report.html", dir);
    else
        dg_warn("the report could not be written: %s", dg_last_error()->text);
    dg_clear_error();
}

static int train(Cli *cli, void *none)
{
    RunEnd end = DG_RUN_DONE;
    char *plugins = NULL;
    Session session;
    int err = dg_cli_session(&session, cli);

    (void)none;
    if (err)
        return err;
    if (cli->dry_run)
        return dg_train_check(&session);
    err = dg_rewards_plugins(&plugins, &cli->config, &cli->comm);
    session.info.plugins = plugins;
    if (!err)
        err = dg_train(&session, &end);
    free(plugins);
    if (err)
        return err;
    if (end != DG_RUN_NOT_BEGUN)
        write_report(cli);
    return dg_cli_ended(end);
}

int dg_cli_train(int argc, char **argv)
{
    static const CliSpec spec = {
        .work = train,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Tunes a policy by its rewards (DanceGRPO); continues the "
                   "run in run.dir if there is one.",
    };

    dg_stop_install();
    return dg_cli_run(&spec, NULL, argc, argv);
}
