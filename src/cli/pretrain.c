#include "cli/command.h"

#include "base/log.h"
#include "train/pretrain.h"

int dg_cli_pretrain(int argc, char **argv)
{
    static const CliSpec spec = {
        .name = "pretrain",
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .own_prediction = 1, /* start weights may be taught another */
        .summary = "Makes a base generator by flow matching on the shapes "
                   "world.",
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
    if (!err && !cli.dry_run)
        err = dg_pretrain(&session, &end);
    if (!err && end == DG_RUN_STOPPED)
        dg_info("stopped early with a checkpoint: the same command goes on");
    code = dg_cli_end(&cli, err);
    return code == DG_EXIT_DONE && end == DG_RUN_STOPPED ? DG_EXIT_STOPPED
                                                         : code;
}
