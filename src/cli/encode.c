#include "cli/command.h"

#include "base/error.h"
#include "base/out_file.h"
#include "train/cache.h"

/* The encoders may take long: first whether there is a place for what they
 * give. */
static int try_cache(const Cli *cli)
{
    const char *path = cli->config.prompts.cache;
    int err = DG_OK;

    if (cli->comm.rank == 0 && path[0] != '\0')
        err = dg_out_try(path);
    return dg_agree(&cli->comm, err);
}

static int encode(Cli *cli, void *none)
{
    Session session;
    int err = try_cache(cli);

    (void)none;
    if (!err)
        err = dg_cli_session(&session, cli);
    return err ? err : dg_encode(&session, cli->dry_run);
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
