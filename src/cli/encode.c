#include "cli/command.h"

#include "base/error.h"
#include "train/cache.h"

static int encode(Cli *cli, void *none)
{
    Session session;
    int err = dg_cli_session(&session, cli);

    (void)none;
    return err || cli->dry_run ? err : dg_encode(&session);
}

int dg_cli_encode(int argc, char **argv)
{
    static const CliSpec spec = {
        .work = encode,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Encodes the prompts of all prompts files once and writes "
                   "them to prompts.cache,\nfrom which train and evaluate then "
                   "read them.",
    };

    return dg_cli_run(&spec, NULL, argc, argv);
}
