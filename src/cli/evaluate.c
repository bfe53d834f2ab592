#include "cli/command.h"

#include "base/error.h"
#include "train/infer.h"

int dg_cli_evaluate(int argc, char **argv)
{
    InferOpts o = { .ema = 0 };
    const CliFlag flags[] = {
        { "--ema", "of a checkpoint: use its EMA", &o.ema, NULL },
        { "--json", "write the figures to this file too", NULL, &o.out },
    };
    const CliSpec spec = {
        .name = "evaluate",
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Scores policy.weights (a weights file or a checkpoint) on "
                   "fixed prompts and seeds\nwith the ODE sampler; 95 % "
                   "bootstrap intervals.",
        .flags = flags,
        .num_flags = 2,
    };
    Session session;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err)
        err = cli.dry_run ? dg_infer_check(&session)
                          : dg_infer_evaluate(&session, &o);
    return dg_cli_end(&cli, err);
}
