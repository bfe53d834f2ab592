#include "cli/command.h"

#include "base/error.h"
#include "report/report.h"

#include <stdio.h>

/* A run folder as one page to look at. */
static int report(Cli *cli, void *none)
{
    int err = DG_OK;

    (void)none;
    if (cli->comm.rank == 0) {
        err = dg_report_write(cli->args[0]);
        if (!err)
            printf("%s/report.html\n", cli->args[0]);
    }
    return dg_agree(&cli->comm, err);
}

int dg_cli_report(int argc, char **argv)
{
    const CliSpec spec = {
        .work = report,
        .summary = "Writes RUN_DIR/report.html: what a run did and whether "
                   "it is right",
        .arguments = "RUN_DIR",
        .min_args = 1,
        .max_args = 1,
        .config = DG_CLI_NONE,
    };

    return dg_cli_run(&spec, NULL, argc, argv);
}
