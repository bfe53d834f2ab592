#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "report/report.h"
#include "train/trainer.h"

/* The run is safe whatever becomes of its page. */
static void write_report(const Cli *cli)
{
    const char *dir = cli->config.run.dir;

    if (cli->comm.rank != 0)
        return;
    if (dg_report_write(dir) == DG_OK)
        dg_info("report: %s/report.html", dir);
    else
        dg_warn("no report: %s", dg_last_error()->text);
    dg_clear_error();
}

int dg_cli_train(int argc, char **argv)
{
    static const CliSpec spec = {
        .name = "train",
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Tunes a policy by its rewards (DanceGRPO); continues the "
                   "run in run.dir if there is one.",
    };
    RunEnd end = DG_RUN_DONE;
    Session session;
    Cli cli;
    int code, err;

    dg_stop_install();
    code = dg_cli_begin(&cli, &spec, argc, argv);
    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err)
        err = cli.dry_run ? dg_train_check(&session) : dg_train(&session, &end);
    if (!err && !cli.dry_run)
        write_report(&cli);
    if (!err && end == DG_RUN_STOPPED)
        dg_info("stopped early with a checkpoint: the same command goes on");
    code = dg_cli_end(&cli, err);
    return code == DG_EXIT_DONE && end == DG_RUN_STOPPED ? DG_EXIT_STOPPED
                                                         : code;
}
