#include "cli/command.h"

#include "base/error.h"
#include "train/convert.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The flags' texts, NULL where not given. */
typedef struct Flags {
    const char *dtype, *weights, *shard, *pipeline;
    ConvertOpts opts;
} Flags;

/* Index of a text among names, which end with NULL. */
static int choose(int *out, const char *flag, const char *text,
                  const char *const *names, const char *allowed)
{
    if (text == NULL)
        return DG_OK;
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return DG_OK;
        }
    return dg_fail(DG_EUSAGE, "%s %s: must be one of %s", flag, text, allowed);
}

/* "500MB", "1.5GiB", "4096" */
static int bytes_of(int64_t *out, const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = { { "", 1 },         { "B", 1 },        { "KB", 1e3 },
                  { "MB", 1e6 },     { "GB", 1e9 },     { "KiB", 0x1p10 },
                  { "MiB", 0x1p20 }, { "GiB", 0x1p30 }, { NULL, 0 } };
    char *end;
    double x;

    if (text == NULL)
        return DG_OK;
    x = strtod(text, &end);
    for (int i = 0; units[i].name != NULL; i++)
        if (end != text && strcmp(end, units[i].name) == 0 &&
            x * units[i].bytes >= 1 && x * units[i].bytes <= 1e15) {
            *out = (int64_t)(x * units[i].bytes);
            return DG_OK;
        }
    return dg_fail(DG_EUSAGE,
                   "--shard-size %s: must be a size, like 500MB, 5GB, 2GiB",
                   text);
}

static int understand(Flags *f)
{
    static const char *const types[] = { "float32", "float16", "bfloat16",
                                         NULL };
    static const WeightType type[] = { DG_WEIGHT_F32, DG_WEIGHT_F16,
                                       DG_WEIGHT_BF16 };
    static const char *const weights[] = { "raw", "ema", NULL };
    static const char *const rests[] = { "", "copy", "link", NULL };
    ConvertOpts *o = &f->opts;
    int dtype = 0, rest = 0, err;

    if (o->to == NULL)
        return dg_fail(DG_EUSAGE, "convert needs --to FOLDER");
    err = choose(&dtype, "--dtype", f->dtype, types,
                 "float32 | float16 | bfloat16");
    if (!err)
        err = choose(&o->ema, "--weights", f->weights, weights, "raw | ema");
    if (!err)
        err = choose(&rest, "--pipeline", f->pipeline, rests, "copy | link");
    o->type = type[dtype];
    o->rest = (ExportRest)rest;
    return err ? err : bytes_of(&o->max_shard_bytes, f->shard);
}

static int convert(Cli *cli, void *options)
{
    Flags *f = options;
    struct stat st;
    int err = understand(f);

    f->opts.checkpoint = cli->args[0];
    if (!err && cli->comm.rank == 0 && stat(cli->args[0], &st) == 0 &&
        S_ISDIR(st.st_mode))
        err = dg_fail(DG_EINVAL,
                      "%s is a folder: one file is wanted, of a run "
                      "%.200s/checkpoints/iter_....h5",
                      cli->args[0], cli->args[0]);
    err = dg_agree(&cli->comm, err);
    return err ? err : dg_convert(&cli->comm, &f->opts);
}

int dg_cli_convert(int argc, char **argv)
{
    Flags f = { 0 };
    const CliFlag flags[] = {
        { "--to", "folder to write; it must not exist yet", .value = &f.opts.to,
          .takes = "FOLDER" },
        { "--weights",
          "the trained weights (raw, the default) or their average",
          .value = &f.weights, .takes = "raw|ema" },
        { "--dtype", "float32 (the default), float16 or bfloat16",
          .value = &f.dtype, .takes = "TYPE" },
        { "--shard-size",
          "largest size of one file, such as 5GB (default 10GB)",
          .value = &f.shard, .takes = "SIZE" },
        { "--pipeline",
          "write a whole pipeline: copy the rest of the one that the network "
          "came from, or link to it",
          .value = &f.pipeline, .takes = "copy|link" },
        { "--merge",
          "merge adapters into the network's weights and write these",
          .on = &f.opts.merge },
        { "--base",
          "file of the weights that adapters stand on, if it has moved",
          .value = &f.opts.base, .takes = "FILE" },
        { "--folder", "the folder of policy.path, if it has moved",
          .value = &f.opts.folder, .takes = "FOLDER" },
    };
    const CliSpec spec = {
        .work = convert,
        .config = DG_CLI_NONE,
        .summary =
            "Writes the network of a checkpoint or weights file as a folder "
            "that diffusers loads; adapters become a LoRA file.",
        .arguments = "FILE.h5 --to FOLDER",
        .min_args = 1,
        .max_args = 1,
        .flags = flags,
        .num_flags = sizeof flags / sizeof *flags,
    };

    return dg_cli_run(&spec, &f, argc, argv);
}
