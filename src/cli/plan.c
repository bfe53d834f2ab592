#define _DEFAULT_SOURCE /* strsep */
#include "cli/command.h"

#include "base/error.h"
#include "train/run_plan.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 1000000 };

static int as_text(char **text, const void *plan)
{
    return dg_run_plan_text(text, plan);
}

static int as_json(char **text, const void *plan)
{
    return dg_run_plan_json(text, plan);
}

/* "1,8,16": the same run on each of these numbers of GPUs. */
static int plan_gpus(RunPlan *p, const Session *s, PlanCommand command,
                     const char *list)
{
    char *copy = list != NULL ? strdup(list) : NULL, *rest = copy, *one;
    int err = DG_OK;

    if (list != NULL && copy == NULL)
        return dg_fail(DG_ENOMEM, "--gpus %s", list);
    while (!err && (one = strsep(&rest, ",")) != NULL) {
        int num = 0;

        err = dg_cli_number(&num, "--gpus", one, 1, MOST_RANKS);
        if (!err)
            err = dg_command_plan_gpus(&p->gpus, s, command, num);
    }
    free(copy);
    return err;
}

/* Of the command line; ranks 0: those that are there. */
typedef struct Wanted {
    int ranks;
    const char *command, *gpus, *json;
} Wanted;

static int plan_first(const Session *s, const Wanted *w)
{
    const int ranks = w->ranks > 0 ? w->ranks : s->comm->size;
    PlanCommand command;
    RunPlan p;
    int err = dg_plan_command(&command, w->command);

    if (!err)
        err = dg_command_plan(&p, s, command, ranks);
    if (!err)
        p.borrowed_threads = s->config->run.threads == 0 &&
                             s->config->run.device == DG_DEVICE_CPU &&
                             ranks != s->comm->size;
    if (!err)
        err = plan_gpus(&p, s, command, w->gpus);
    return err ? err : dg_cli_tell(&p, as_text, as_json, w->json);
}

static int plan(Cli *cli, void *wanted)
{
    Session session;
    int err = dg_cli_session(&session, cli);

    if (err || cli->dry_run)
        return err;
    if (cli->comm.rank == 0)
        err = plan_first(&session, wanted);
    return dg_agree(&cli->comm, err);
}

int dg_cli_plan(int argc, char **argv)
{
    Wanted w = { .command = "train" };
    const CliFlag flags[] = {
        { "--command",
          "the command to plan for: train (the default), pretrain, sample, "
          "evaluate, encode or replay",
          .value = &w.command, .takes = "NAME" },
        { "--ranks", "plan for this many ranks (default: those started)",
          .number = &w.ranks, .least = 1, .most = MOST_RANKS },
        { "--gpus",
          "also say, for each of these numbers of GPUs (such as 1,8,16,32), "
          "which settings fit GPUs of 80 and 141 GB",
          .value = &w.gpus, .takes = "LIST" },
        { "--json", "write the figures to this JSON file too",
          .file = &w.json },
    };
    const CliSpec spec = {
        .work = plan,
        .config = DG_CLI_REQUIRED,
        .on_gpu = DG_CLI_ANYWHERE,
        .outline = 1,
        .summary = "Counts the memory and arithmetic of a run, phase by phase. "
                   "It needs no weights and reserves nothing, so networks of "
                   "any size can be planned on any machine.",
        .flags = flags,
        .num_flags = 4,
    };

    return dg_cli_run(&spec, &w, argc, argv);
}
