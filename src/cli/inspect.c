#include "cli/command.h"

#include "base/error.h"
#include "store/inspect.h"
#include "train/pictures.h"
#include "weights/describe.h"

#include <stdio.h>

/* Of the command line. */
typedef struct Wanted {
    int digest, csv;
    const char *variant, *pictures, *folder;
    PicturesOpts shown;
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

/* By the CPU, wherever the run was: a decoder alone needs no more. */
static int paint(Cli *cli, Wanted *w)
{
    Config *c = &cli->config;
    Session session;
    int err = dg_cli_stored_config(cli, cli->args[0]);

    if (!err)
        err = dg_cli_moved(c->policy.path, "--folder", w->folder);
    err = dg_agree(&cli->comm, err);
    if (err)
        return err;
    c->run.device = DG_DEVICE_CPU;
    c->run.dtype = DG_STORE_FLOAT32;
    c->run.attention = DG_ATTENTION_OWN;
    c->run.convolution = DG_CONV_OWN;
    c->run.threads = 0;
    dg_config_settle(c);
    err = dg_cli_session(&session, cli);
    w->shown.out = w->pictures;
    if (w->shown.num == 0)
        w->shown.num = DG_PICTURES;
    return err ? err : dg_pictures(&session, cli->args[0], &w->shown);
}

static int check_wanted(const Cli *cli, const Wanted *w)
{
    if (w->csv + w->digest + (w->pictures != NULL) > 1 ||
        (w->variant != NULL && (w->csv || w->pictures != NULL)))
        return dg_fail(DG_EUSAGE,
                       "inspect: one of --csv, --digest and --pictures at a "
                       "time; --variant goes with none or --digest");
    if (w->pictures == NULL &&
        (w->shown.num > 0 || w->shown.worst || w->folder != NULL))
        return dg_fail(DG_EUSAGE, "inspect: --num, --worst and --folder say "
                                  "which --pictures");
    if (cli->num_args > 1 && !w->csv)
        return dg_fail(DG_EUSAGE,
                       "inspect: one argument too many: %s: several are for "
                       "--csv",
                       cli->args[1]);
    return DG_OK;
}

static int inspect(Cli *cli, void *wanted)
{
    Wanted *w = wanted;
    int err = check_wanted(cli, w);

    if (!err && w->pictures != NULL)
        return paint(cli, w);
    if (!err && cli->comm.rank == 0)
        err = w->csv ? dg_inspect_table(cli->args, cli->num_args, stdout)
                     : print_file(cli, w);
    return dg_agree(&cli->comm, err);
}

int dg_cli_inspect(int argc, char **argv)
{
    Wanted w = { .csv = 0 };
    const CliFlag flags[] = {
        { "--csv",
          "print a row for each sample of trajectories: rewards, strict "
          "scores, advantages, ratios, prompt; of a run's folder, all of them",
          .on = &w.csv },
        { "--digest",
          "check the data and print only the SHA-256 of weights or conditions; "
          "of a trajectory all of it is checked",
          .on = &w.digest },
        { "--pictures",
          "paint the pictures of a trajectory, that of the greatest reward "
          "first, to this PNG file",
          .file = &w.pictures, .ends = ".png" },
        { "--num", "how many pictures (16)", .number = &w.shown.num, .least = 1,
          .most = DG_PICTURES_MOST },
        { "--worst", "those of the least reward", .on = &w.shown.worst },
        { "--folder", "where the decoder is, if not in the run's policy.path",
          .value = &w.folder, .takes = "FOLDER" },
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
        .max_args = DG_CLI_ARGS,
        .flags = flags,
        .num_flags = 7,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
