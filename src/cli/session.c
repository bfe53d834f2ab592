#include "cli/command.h"

#include "base/error.h"
#include "base/version.h"
#include "cpu/cpu.h"
#include "generated/features.h"

int dg_cli_session(Session *out, const Cli *cli)
{
    if (cli->config.run.device != DG_DEVICE_CPU)
        return dg_fail(DG_EDEVICE, "run.device = \"cuda\": %s; use \"cpu\"",
                       DG_CUDA ? "the kernels are built, but a run's tensors "
                                 "do not live on the device yet"
                               : "this program was built without its GPU side");
    *out = (Session) {
        .comm = &cli->comm,
        .config = &cli->config,
        .backend = dg_backend_cpu(),
        .info = { .program = "dancegrpo " DG_VERSION,
                  .git_commit = dg_git_commit(),
                  .command = cli->command_line,
                  .config = cli->config_text,
                  .seed = cli->config.run.seed },
        .num_threads = dg_cli_threads(cli),
    };
    return DG_OK;
}
