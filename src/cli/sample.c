#include "cli/command.h"

#include "base/error.h"
#include "train/infer.h"

#include <string.h>

/* Of the command line. */
typedef struct Wanted {
    const char *out;
    int ema, seeds, num;
} Wanted;

/* Words, and not blanks alone, are what can be painted. */
static int check_prompts(const Cli *cli)
{
    for (int i = 0; i < cli->num_args; i++)
        if (cli->args[i][strspn(cli->args[i], " \t\r\n")] == '\0')
            return dg_fail(DG_EINVAL, "PROMPT %d is empty: must be a text",
                           i + 1);
    return DG_OK;
}

static int sample(Cli *cli, void *options)
{
    const Wanted *w = options;
    const InferOpts o = { .ema = w->ema,
                          .seeds = w->seeds,
                          .num = w->num,
                          .scale = 3,
                          .out = w->out,
                          .prompts = cli->args,
                          .num_prompts = cli->num_args,
                          .dry = cli->dry_run };
    Session session;
    int err = check_prompts(cli);

    if (!err)
        err = dg_cli_session(&session, cli);
    return err ? err : dg_infer_sample(&session, &o);
}

int dg_cli_sample(int argc, char **argv)
{
    Wanted w = { .out = "sample.png",
                 .seeds = DG_SAMPLE_SEEDS,
                 .num = DG_SAMPLE_PROMPTS };
    const CliFlag flags[] = {
        { "--ema", "use the averaged weights (EMA) of a checkpoint",
          .on = &w.ema },
        { "--out", "PNG file to write (default sample.png)", .file = &w.out,
          .ends = ".png" },
        { "--seeds", "pictures per prompt (default 4)", .number = &w.seeds,
          .least = 1, .most = 64 },
        { "--num",
          "how many prompts of that file to paint when no PROMPT is given "
          "(default 8)",
          .number = &w.num, .least = 1, .most = 64 },
    };
    const CliSpec spec = {
        .work = sample,
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary =
            "Paints a grid of pictures with policy.weights: a row for each "
            "PROMPT, or for the first ones of the held-out prompts file.",
        .arguments = "[PROMPT]...",
        .max_args = DG_CLI_ARGS,
        .flags = flags,
        .num_flags = 4,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
