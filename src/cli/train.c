#include "cli/command.h"

#include "base/log.h"
#include "train/trainer.h"

int dg_cli_train(int argc, char **argv)
{
    static const CliSpec spec = {
        .name = "train",
        .config = DG_CLI_REQUIRED,
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
    if (!err && end == DG_RUN_STOPPED)
        dg_info("stopped early with a checkpoint: the same command goes on");
    code = dg_cli_end(&cli, err);
    return code == DG_EXIT_DONE && end == DG_RUN_STOPPED ? DG_EXIT_STOPPED
                                                         : code;
}
