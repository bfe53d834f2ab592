#include "cli/command.h"

#include "base/error.h"
#include "train/run_plan.h"

#include <stdio.h>
#include <string.h>

static int as_text(char **text, const void *plan)
{
    return dg_run_plan_text(text, plan);
}

static int as_json(char **text, const void *plan)
{
    return dg_run_plan_json(text, plan);
}

/* "1,8,16": the same run on each of these numbers of GPUs. */
static int plan_gpus(RunPlan *p, const Session *s, const char *list)
{
    const char *at = list;
    int err = DG_OK;

    while (at != NULL && !err) {
        const size_t n = strcspn(at, ",");
        char one[16];
        int num = 0;

        snprintf(one, sizeof one, "%.*s", n < 15 ? (int)n : 15, at);
        err = dg_cli_number(&num, "--gpus", one, 1000000);
        if (!err)
            err = dg_run_plan_gpus(&p->gpus, s, num);
        at = at[n] == ',' ? at + n + 1 : NULL;
    }
    return err;
}

/* On rank 0. */
static int plan(const Session *s, const char *ranks, const char *gpus,
                const char *json)
{
    int num = s->comm->size, err;
    RunPlan p;

    err = dg_cli_number(&num, "--ranks", ranks, 1000000);
    if (!err)
        err = dg_run_plan(&p, s, num);
    if (!err)
        err = plan_gpus(&p, s, gpus);
    return err ? err : dg_cli_tell(&p, as_text, as_json, json);
}

int dg_cli_plan(int argc, char **argv)
{
    const char *ranks = NULL, *gpus = NULL, *json = NULL;
    const CliFlag flags[] = {
        { "--ranks", "plan for this many ranks (those that are there)", NULL,
          &ranks },
        { "--gpus",
          "and on each of these numbers of GPUs, as 1,8,16,32: what fits those "
          "of 80 and 141 GB",
          NULL, &gpus },
        { "--json", "write the figures to this file too", NULL, &json },
    };
    const CliSpec spec = {
        .name = "plan",
        .config = DG_CLI_REQUIRED,
        .on_gpu = DG_CLI_ANYWHERE,
        .outline = 1,
        .summary = "Counts memory and arithmetic of a training run, phase by "
                   "phase, without weights\nand without reserving anything: "
                   "for networks of any size, on any machine.",
        .flags = flags,
        .num_flags = 3,
    };
    Session session;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run)
        err = dg_agree(&cli.comm, cli.comm.rank == 0
                                      ? plan(&session, ranks, gpus, json)
                                      : DG_OK);
    return dg_cli_end(&cli, err);
}
