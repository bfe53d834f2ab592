#include "cli/command.h"

#include "base/error.h"
#include "store/inspect.h"
#include "weights/describe.h"

#include <stdio.h>

static int inspect(const Cli *cli, int digest, const char *variant)
{
    const char *path = cli->args[0];
    const int weights = dg_describe_knows(path);
    char hex[DG_SHA256_HEX];
    int err;

    if (cli->comm.rank != 0)
        return DG_OK;
    if (!digest)
        return weights ? dg_describe_weights(path, variant, stdout)
                       : dg_inspect_describe(path, stdout);
    err = weights ? dg_describe_digest(path, variant, hex)
                  : dg_inspect_digest(path, hex);
    if (!err)
        printf("%s  %s\n", hex, path);
    return err;
}

int dg_cli_inspect(int argc, char **argv)
{
    const char *variant = NULL;
    int digest = 0;
    const CliFlag flags[] = {
        { "--digest", "only the SHA-256 of weights or conditions", &digest,
          NULL },
        { "--variant", "files of that variant in a folder, such as fp16", NULL,
          &variant },
    };
    const CliSpec spec = {
        .name = "inspect",
        .config = DG_CLI_NONE,
        .summary = "Describes a file or folder of weights, a checkpoint, a "
                   "trajectory.",
        .arguments = "FILE|FOLDER",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = 2,
    };
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);

    if (code != DG_CLI_GO)
        return code;
    return dg_cli_end(&cli,
                      dg_agree(&cli.comm, inspect(&cli, digest, variant)));
}
