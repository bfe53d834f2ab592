#include "cli/command.h"

#include "base/error.h"
#include "store/inspect.h"

#include <stdio.h>

static int inspect(const Cli *cli, int digest)
{
    char hex[DG_SHA256_HEX];
    int err;

    if (cli->comm.rank != 0)
        return DG_OK;
    if (!digest)
        return dg_inspect_describe(cli->args[0], stdout);
    err = dg_inspect_digest(cli->args[0], hex);
    if (!err)
        printf("%s  %s\n", hex, cli->args[0]);
    return err;
}

int dg_cli_inspect(int argc, char **argv)
{
    int digest = 0;
    const CliFlag flags[] = {
        { "--digest", "only the SHA-256 of weights or conditions", &digest,
          NULL },
    };
    const CliSpec spec = {
        .name = "inspect",
        .config = DG_CLI_NONE,
        .summary = "Describes a checkpoint, weights or trajectory file.",
        .arguments = "FILE.h5",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = 1,
    };
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);

    if (code != DG_CLI_GO)
        return code;
    return dg_cli_end(&cli, dg_agree(&cli.comm, inspect(&cli, digest)));
}
