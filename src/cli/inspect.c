#include "cli/command.h"

#include "base/error.h"
#include "store/inspect.h"
#include "weights/describe.h"

#include <stdio.h>

/* Of the command line. */
typedef struct Wanted {
    int digest;
    const char *variant;
} Wanted;

static int is_run(const char *folder)
{
    char path[DG_CONFIG_STRING + 32];
    FILE *f;

    snprintf(path, sizeof path, "%s/config.cfg", folder);
    f = fopen(path, "r");
    if (f != NULL)
        fclose(f);
    return f != NULL;
}

static int print_file(const Cli *cli, const Wanted *w)
{
    const char *path = cli->args[0];
    const int weights = dg_describe_knows(path);
    char hex[DG_SHA256_HEX];
    int err;

    if (cli->comm.rank != 0)
        return DG_OK;
    if (is_run(path))
        return dg_fail(DG_EINVAL,
                       "%s is a run's folder: one of its files is wanted, "
                       "%.200s/checkpoints/iter_....h5; dancegrpo report tells "
                       "of the run",
                       path, path);
    if (!w->digest)
        return weights ? dg_describe_weights(path, w->variant, stdout)
                       : dg_inspect_describe(path, stdout);
    err = weights ? dg_describe_digest(path, w->variant, hex)
                  : dg_inspect_digest(path, hex);
    if (!err)
        printf("%s  %s\n", hex, path);
    return err;
}

static int inspect(Cli *cli, void *wanted)
{
    return dg_agree(&cli->comm, print_file(cli, wanted));
}

int dg_cli_inspect(int argc, char **argv)
{
    Wanted w = { .digest = 0 };
    const CliFlag flags[] = {
        { "--digest", "print only the SHA-256 of weights or conditions",
          .on = &w.digest },
        { "--variant", "of a folder, the files of this variant, such as fp16",
          .value = &w.variant, .takes = "NAME" },
    };
    const CliSpec spec = {
        .work = inspect,
        .config = DG_CLI_NONE,
        .summary = "Describes a file or folder of weights, a checkpoint or a "
                   "trajectory: what wrote it, and its tensors.",
        .arguments = "FILE|FOLDER",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = 2,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
