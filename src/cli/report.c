#include "cli/command.h"

#include "base/error.h"
#include "report/report.h"

#include <stdio.h>

/* dancegrpo report: a run folder as one page to look at. */
int dg_cli_report(int argc, char **argv)
{
    const CliSpec spec = {
        .name = "report",
        .summary = "Writes RUN_DIR/report.html: what a run did and whether "
                   "it is right",
        .arguments = "RUN_DIR",
        .min_args = 1,
        .max_args = 1,
        .config = DG_CLI_NONE,
    };
    Cli cli;
    int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err = DG_OK;

    if (code != DG_CLI_GO)
        return code;
    if (cli.comm.rank == 0) {
        err = dg_report_write(cli.args[0]);
        if (!err)
            printf("%s/report.html\n", cli.args[0]);
    }
    return dg_cli_end(&cli, dg_agree(&cli.comm, err));
}
