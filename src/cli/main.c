#include "cli/command.h"

#include "base/version.h"
#include "config/option.h"

#include <stdio.h>
#include <string.h>

typedef struct Command {
    const char *name;
    const char *help;
    int (*run)(int argc, char **argv);
} Command;

static const Command commands[] = {
    { "train", "tune a policy by its rewards", dg_cli_train },
    { "sample", "paint a grid of pictures", dg_cli_sample },
    { "encode", "run the text encoders once, for prompts.cache",
      dg_cli_encode },
    { "evaluate", "score weights on fixed prompts", dg_cli_evaluate },
    { "plan", "count memory and arithmetic of a run", dg_cli_plan },
    { "doctor", "try whether the promises hold on this machine",
      dg_cli_doctor },
    { "convert", "write a checkpoint's weights for diffusers", dg_cli_convert },
    { "inspect", "describe weights, a checkpoint or a trajectory",
      dg_cli_inspect },
    { "replay", "compute an iteration again from its file", dg_cli_replay },
    { "pretrain", "make a base by flow matching on the shapes world",
      dg_cli_pretrain },
    { "report", "is the run right? RUN_DIR/report.html; or compare several",
      dg_cli_report },
    { "bench", "measure speed as ratios within one run", dg_cli_bench },
    { "config", "print the effective configuration", dg_cli_config },
};

enum { NUM_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(out,
            "dancegrpo %s: reinforcement learning of image generators "
            "by DanceGRPO\n\n"
            "usage: dancegrpo COMMAND [CONFIG] [--set key=value]...\n"
            "       mpirun -n RANKS dancegrpo COMMAND ...\n\n"
            "commands:\n",
            dg_version());
    for (int i = 0; i < NUM_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(out,
            "\nMore about one: dancegrpo COMMAND --help\n"
            "Exit codes: 0 done, 1 error, 2 usage, 75 to be run again: stopped "
            "early with a\ncheckpoint, or another run has the folder\n");
}

static int unknown(const char *name)
{
    const char *names[NUM_COMMANDS];
    fprintf(stderr, "dancegrpo: unknown command '%s'", name);

    for (int i = 0; i < NUM_COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = dg_nearest_name(name, names, NUM_COMMANDS);
    if (near != NULL)
        fprintf(stderr, ", did you mean '%s'?", near);
    fprintf(stderr, "\nTry: dancegrpo --help\n");
    return DG_EXIT_USAGE;
}

static int run(const char *name, int argc, char **argv)
{
    for (int i = 0; i < NUM_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc, argv);
    return unknown(name);
}

static int help_with(char *name)
{
    char *argv[] = { name, (char[]) { "--help" }, NULL };

    return run(name, 2, argv);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    if (strcmp(name, "--version") == 0) {
        printf("dancegrpo %s (commit %s, %s)\n", dg_version(), dg_git_commit(),
               dg_compiler());
        return DG_EXIT_DONE;
    }
    if (strcmp(name, "help") == 0 && argc > 2)
        return help_with(argv[2]);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        print_help(stdout);
        return DG_EXIT_DONE;
    }
    if (*name == '\0') {
        print_help(stderr);
        return DG_EXIT_USAGE;
    }
    return run(name, argc - 1, argv + 1);
}
