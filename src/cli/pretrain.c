#include "cli/command.h"

#include "base/error.h"
#include "train/pretrain.h"

static int pretrain(Cli *cli, void *none)
{
    RunEnd end = DG_RUN_DONE;
    Session session;
    int err = dg_cli_session(&session, cli);

    (void)none;
    if (!err)
        err = cli->dry_run ? dg_pretrain_check(&session)
                           : dg_pretrain(&session, &end);
    return err ? err : dg_cli_ended(end);
}

int dg_cli_pretrain(int argc, char **argv)
{
    static const CliSpec spec = {
        .work = pretrain,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .own_prediction = 1, /* start weights may be taught another */
        .summary = "Trains a base generator from nothing, by flow matching on "
                   "the shapes world; continues the run in run.dir if there is "
                   "one.",
    };

    dg_stop_install();
    return dg_cli_run(&spec, NULL, argc, argv);
}
