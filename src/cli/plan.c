#include "cli/command.h"

#include "base/error.h"
#include "train/run_plan.h"

static int as_text(char **text, const void *plan)
{
    return dg_run_plan_text(text, plan);
}

static int as_json(char **text, const void *plan)
{
    return dg_run_plan_json(text, plan);
}

/* On rank 0. */
static int plan(const Session *s, const char *ranks, const char *json)
{
    int num = s->comm->size, err;
    RunPlan p;

    err = dg_cli_number(&num, "--ranks", ranks, 1000000);
    if (!err)
        err = dg_run_plan(&p, s, num);
    return err ? err : dg_cli_tell(&p, as_text, as_json, json);
}

int dg_cli_plan(int argc, char **argv)
{
    const char *ranks = NULL, *json = NULL;
    const CliFlag flags[] = {
        { "--ranks", "plan for this many ranks (those that are there)", NULL,
          &ranks },
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
        .num_flags = 2,
    };
    Session session;
    Cli cli;
    const int code = dg_cli_begin(&cli, &spec, argc, argv);
    int err;

    if (code != DG_CLI_GO)
        return code;
    err = dg_cli_session(&session, &cli);
    if (!err && !cli.dry_run)
        err =
            dg_agree(&cli.comm,
                     cli.comm.rank == 0 ? plan(&session, ranks, json) : DG_OK);
    return dg_cli_end(&cli, err);
}
