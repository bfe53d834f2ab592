#include "cli/command.h"

#include "base/error.h"
#include "config/option.h"

#include <stdio.h>

/* The effective configuration, or the page about it. */
static int print_config(Cli *cli, void *markdown)
{
    if (cli->comm.rank == 0 && *(const int *)markdown)
        dg_option_markdown(stdout);
    else if (cli->comm.rank == 0)
        fputs(cli->config_text, stdout);
    return DG_OK;
}

int dg_cli_config(int argc, char **argv)
{
    int markdown = 0;
    const CliFlag flags[] = {
        { .name = "--markdown",
          .help = "print doc/config.md instead",
          .on = &markdown },
    };
    const CliSpec spec = {
        .work = print_config,
        .summary = "Prints the effective configuration: all keys, with "
                   "defaults, the\nfile's and --set.",
        .config = DG_CLI_OPTIONAL,
        .flags = flags,
        .num_flags = 1,
    };

    return dg_cli_run(&spec, &markdown, argc, argv);
}
