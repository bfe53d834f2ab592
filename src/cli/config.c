#include "cli/command.h"

#include "base/error.h"
#include "base/log.h"
#include "config/option.h"
#include "policy/policy.h"

#include <stdio.h>

/* What a recipe says can be looked at where its weights are not. */
static void warn_of_sizes(const Config *c)
{
    if (c->policy.path[0] != '\0' && !dg_policy_has_folder(c))
        dg_warn("policy.path = \"%s\" is not here: sizes below are not the "
                "folder's",
                c->policy.path);
    if (dg_policy_lacks_weights(c))
        dg_warn("policy.weights = \"%s\" is not here: sizes below are not the "
                "file's",
                c->policy.weights);
}

/* The effective configuration, or the page about it. */
static int print_config(Cli *cli, void *markdown)
{
    if (cli->comm.rank == 0 && !*(const int *)markdown)
        warn_of_sizes(&cli->config);
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
          .help = "print the page doc/config.md instead",
          .on = &markdown },
    };
    const CliSpec spec = {
        .work = print_config,
        .summary = "Prints the effective configuration: every key, from the "
                   "defaults, the file and --set.",
        .config = DG_CLI_OPTIONAL,
        .outline = 1,
        .flags = flags,
        .num_flags = 1,
    };

    return dg_cli_run(&spec, &markdown, argc, argv);
}
