#include "cli/command.h"

#include "base/error.h"
#include "train/cache.h"

int dg_cli_encode(int argc, char **argv)
{
    static const CliSpec spec = {
        .name = "encode",
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Encodes the prompts of all prompts files once and writes "
                   "them to prompts.cache,\nfrom which train and evaluate then "
                   "read them.",
    };
    Session session;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run)
        err = dg_encode(&session);
    return dg_cli_end(&cli, err);
}
