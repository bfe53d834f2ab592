#include "cli/command.h"

#include "base/error.h"
#include "train/infer.h"

static int evaluate(Cli *cli, void *options)
{
    InferOpts *o = options;
    Session session;
    int err = dg_cli_session(&session, cli);

    o->dry = cli->dry_run;
    return err ? err : dg_infer_evaluate(&session, o);
}

int dg_cli_evaluate(int argc, char **argv)
{
    InferOpts o = { .ema = 0 };
    const CliFlag flags[] = {
        { "--ema", "of a checkpoint: use its EMA", .on = &o.ema },
        { "--json", "write the figures to this file too", .file = &o.out },
    };
    const CliSpec spec = {
        .work = evaluate,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Scores policy.weights (a weights file or a checkpoint) on "
                   "fixed prompts and seeds\nwith the ODE sampler; 95 % "
                   "bootstrap intervals.",
        .flags = flags,
        .num_flags = 2,
    };

    return dg_cli_run(&spec, &o, argc, argv);
}
