#include "help.h"
#include "man.h"

#include "base/version.h"
#include "config/option.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct Command {
    const char *name;
    const char *help;
    int (*run)(int argc, char **argv);
} Command;

static const Command commands[] = {
    { "train", "fine-tune a generator by its rewards", dg_cli_train },
    { "sample", "paint a grid of pictures", dg_cli_sample },
    { "encode", "run the text encoders once for all runs", dg_cli_encode },
    { "evaluate", "score weights on held-out prompts", dg_cli_evaluate },
    { "plan", "count the memory and arithmetic that a run needs", dg_cli_plan },
    { "doctor", "check whether a run will work on this machine",
      dg_cli_doctor },
    { "convert", "write a checkpoint's weights as diffusers loads them",
      dg_cli_convert },
    { "inspect", "describe weights, a checkpoint or a trajectory",
      dg_cli_inspect },
    { "replay", "compute an iteration again from its trajectory file",
      dg_cli_replay },
    { "pretrain", "train a base generator on the shapes world",
      dg_cli_pretrain },
    { "report", "write a page: is the run right? Or compare several",
      dg_cli_report },
    { "bench", "measure speed", dg_cli_bench },
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
            "Manual page: man dancegrpo, or dancegrpo --man | man -l -\n"
            "First steps: dancegrpo train configs/tiny.cfg; see README.md\n"
            "Exit codes: 0 done, 1 error, 2 wrong command line, 75 to be run "
            "again: stopped\nearly with a checkpoint, or another run has the "
            "folder\n");
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

static int print_man(void)
{
    int code = DG_EXIT_DONE;

    dg_man_begin();
    for (int i = 0; i < NUM_COMMANDS && code == DG_EXIT_DONE; i++) {
        char name[16];
        char *argv[] = { name, (char[]) { "--man" }, NULL };

        snprintf(name, sizeof name, "%s", commands[i].name);
        code = commands[i].run(2, argv);
    }
    dg_man_end();
    return code == DG_EXIT_DONE && !dg_cli_said_all() ? DG_EXIT_ERROR : code;
}

/* Where one of the three is closed, a file or a socket of MPI's would get its
 * number, and what is printed would go there. Writing to these fails. */
static void fill_standard(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    fill_standard();
    if (strcmp(name, "--version") == 0) {
        printf("dancegrpo %s (commit %s, %s)\n", dg_version(), dg_git_commit(),
               dg_compiler());
        return dg_cli_said_all() ? DG_EXIT_DONE : DG_EXIT_ERROR;
    }
    if (strcmp(name, "--man") == 0)
        return print_man();
    if (strcmp(name, "help") == 0 && argc > 2)
        return help_with(argv[2]);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        print_help(stdout);
        return dg_cli_said_all() ? DG_EXIT_DONE : DG_EXIT_ERROR;
    }
    if (*name == '\0') {
        print_help(stderr);
        return DG_EXIT_USAGE;
    }
    return run(name, argc - 1, argv + 1);
}
