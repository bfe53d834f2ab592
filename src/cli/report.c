#include "cli/command.h"

#include "base/error.h"
#include "report/report.h"

#include <stdio.h>

typedef struct Flags {
    int text;
    const char *out;
} Flags;

static int compare(const char *out, const char *const *dirs, int num)
{
    const int err = dg_report_compare(stdout, out, dirs, num);

    if (!err && out != NULL)
        printf("\n%s\n", out);
    return err;
}

/* A run folder as one page to look at, or the page's findings as text; several
 * beside each other. */
static int report(Cli *cli, void *options)
{
    const Flags *f = options;
    int err = DG_OK;

    if (cli->comm.rank != 0)
        return dg_agree(&cli->comm, err);
    if (cli->num_args > 1)
        err = compare(f->out, cli->args, cli->num_args);
    else if (f->out != NULL)
        err = dg_fail(DG_EUSAGE, "--out is for several RUN_DIR");
    else if (f->text)
        err = dg_report_tell(stdout, cli->args[0]);
    else {
        err = dg_report_write(cli->args[0]);
        if (!err)
            printf("%s/report.html\n", cli->args[0]);
    }
    return dg_agree(&cli->comm, err);
}

int dg_cli_report(int argc, char **argv)
{
    Flags f = { 0 };
    const CliFlag flags[] = {
        { "--text", "print whether the run is right, and write nothing",
          .on = &f.text },
        { "--out", "of several runs: write a page with all their curves",
          .file = &f.out },
    };
    const CliSpec spec = {
        .work = report,
        .summary =
            "Writes RUN_DIR/report.html: what a run did and whether it is "
            "right, with curves and pictures. Of several runs it prints "
            "a comparison: what each reached, and which keys differ.",
        .arguments = "RUN_DIR...",
        .min_args = 1,
        .max_args = DG_CLI_ARGS,
        .config = DG_CLI_NONE,
        .flags = flags,
        .num_flags = sizeof flags / sizeof *flags,
    };

    return dg_cli_run(&spec, &f, argc, argv);
}
