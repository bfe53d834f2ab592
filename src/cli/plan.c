#include "cli/command.h"

#include "base/error.h"
#include "store/file.h"
#include "train/run_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* On rank 0. */
static int tell(const RunPlan *p, const char *json)
{
    char *text = NULL;
    int err = dg_run_plan_text(&text, p);

    if (err)
        return err;
    fputs(text, stdout);
    free(text);
    if (json == NULL)
        return DG_OK;
    err = dg_run_plan_json(&text, p);
    if (err)
        return err;
    err = dg_file_write(json, text, strlen(text));
    free(text);
    return err;
}

static int plan(const Session *s, const char *ranks, const char *json)
{
    char *end = "";
    long num = ranks != NULL ? strtol(ranks, &end, 10) : s->comm->size;
    RunPlan p;
    int err;

    if (*end != '\0' || num < 1 || num > 1000000)
        return dg_fail(DG_EINVAL, "--ranks %s: must be 1 to 1000000", ranks);
    err = dg_run_plan(&p, s, (int)num);
    return err ? err : tell(&p, json);
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
