#include "cli/command.h"

#include "train/pretrain.h"

int dg_cli_pretrain(int argc, char **argv)
{
    static const CliSpec spec = {
        .name = "pretrain",
        .config = DG_CLI_REQUIRED,
        .summary = "Makes a base generator by flow matching on the shapes "
                   "world.",
    };
    RunEnd end = DG_RUN_DONE;
    Session session;
    Cli cli;
    int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run)
        err = dg_pretrain(&session, &end);
    code = dg_cli_end(&cli, err);
    return code == DG_EXIT_DONE && end == DG_RUN_STOPPED ? DG_EXIT_STOPPED
                                                         : code;
}
