#include "cli/command.h"

#include "base/error.h"
#include "train/infer.h"

#include <stdlib.h>

static int number(int64_t *out, const char *flag, const char *text)
{
    char *end;

    if (text == NULL)
        return DG_OK;
    *out = strtoll(text, &end, 10);
    if (*end != '\0' || *out < 1 || *out > 64)
        return dg_fail(DG_EINVAL, "%s %s: must be 1 to 64", flag, text);
    return DG_OK;
}

int dg_cli_sample(int argc, char **argv)
{
    InferOpts o = { .seeds = 4, .num = 8, .scale = 3, .out = "sample.png" };
    const char *seeds = NULL, *num = NULL;
    const CliFlag flags[] = {
        { "--ema", "of a checkpoint: use its EMA", &o.ema, NULL },
        { "--out", "PNG file to write (sample.png)", NULL, &o.out },
        { "--seeds", "pictures per prompt (4)", NULL, &seeds },
        { "--num", "prompts from the file when none is given (8)", NULL, &num },
    };
    const CliSpec spec = {
        .name = "sample",
        .config = DG_CLI_REQUIRED,
        .on_gpu = 1,
        .summary = "Paints a grid of pictures with policy.weights.",
        .arguments = "[PROMPT]...",
        .max_args = DG_CLI_ARGS,
        .flags = flags,
        .num_flags = 4,
    };
    Session session;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = number(&o.seeds, "--seeds", seeds);
    if (!err)
        err = number(&o.num, "--num", num);
    o.prompts = cli.args;
    o.num_prompts = cli.num_args;
    if (!err)
        err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run)
        err = dg_infer_sample(&session, &o);
    return dg_cli_end(&cli, err);
}
