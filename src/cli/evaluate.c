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
        { "--ema", "use the averaged weights (EMA) of a checkpoint",
          .on = &o.ema },
        { "--json", "write the scores to this JSON file too", .file = &o.out },
    };
    const CliSpec spec = {
        .work = evaluate,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Scores policy.weights (a weights file or a checkpoint) on "
                   "fixed held-out prompts and seeds, painted by the "
                   "deterministic ODE sampler, with 95 % bootstrap "
                   "intervals.",
        .flags = flags,
        .num_flags = 2,
    };

    return dg_cli_run(&spec, &o, argc, argv);
}
