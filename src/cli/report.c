#include "cli/command.h"

#include "base/error.h"
#include "report/report.h"

#include <stdio.h>

/* A run folder as one page to look at, or the page's findings as text. */
static int report(Cli *cli, void *text)
{
    int err = DG_OK;

    if (cli->comm.rank == 0 && *(const int *)text)
        err = dg_report_tell(stdout, cli->args[0]);
    else if (cli->comm.rank == 0) {
        err = dg_report_write(cli->args[0]);
        if (!err)
            printf("%s/report.html\n", cli->args[0]);
    }
    return dg_agree(&cli->comm, err);
}

int dg_cli_report(int argc, char **argv)
{
    int text = 0;
    const CliFlag flags[] = {
        { "--text", "tell whether the run is right here, and write nothing",
          .on = &text },
    };
    const CliSpec spec = {
        .work = report,
        .summary = "Writes RUN_DIR/report.html: what a run did and whether "
                   "it is right.",
        .arguments = "RUN_DIR",
        .min_args = 1,
        .max_args = 1,
        .config = DG_CLI_NONE,
        .flags = flags,
        .num_flags = 1,
    };

    return dg_cli_run(&spec, &text, argc, argv);
}
