#include "cli/command.h"

#include "base/error.h"
#include "config/option.h"

#include <stdio.h>

/* dancegrpo config: the effective configuration, or the page about it. */
int dg_cli_config(int argc, char **argv)
{
    int markdown = 0;
    const CliFlag flags[] = {
        { .name = "--markdown",
          .help = "print doc/config.md instead",
          .on = &markdown },
    };
    const CliSpec spec = {
        .name = "config",
        .summary = "Prints the effective configuration: all keys, with "
                   "defaults, the\nfile's and --set.",
        .config = DG_CLI_OPTIONAL,
        .flags = flags,
        .num_flags = 1,
    };
    Cli cli;
    int code = dg_cli_begin(&cli, &spec, argc, argv);

    if (code != DG_CLI_GO)
        return code;
    if (cli.comm.rank == 0 && markdown)
        dg_option_markdown(stdout);
    else if (cli.comm.rank == 0)
        fputs(cli.config_text, stdout);
    return dg_cli_end(&cli, DG_OK);
}
