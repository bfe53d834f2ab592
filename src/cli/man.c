/* The manual page dancegrpo(1), from the commands' own help. */
#include "help.h"
#include "man.h"

#include "base/version.h"

#include <stdio.h>

/* Text in man(7): what would be read as a request or an escape is not, and the
 * minus of an option can be searched for and copied. */
static void roff(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text != '\0'; text++)
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
}

static void print_flag(const CliFlag *f)
{
    const char *takes = dg_cli_takes(f);

    printf(".TP\n\\fB");
    roff(f->name);
    printf("\\fR");
    if (takes != NULL) {
        printf(" \\fI");
        roff(takes);
        printf("\\fR");
    }
    putchar('\n');
    roff(f->help);
    putchar('\n');
}

static void print_flags(const CliFlag *flags, int num)
{
    for (int i = 0; i < num; i++)
        print_flag(&flags[i]);
}

void dg_man_command(const Cli *cli)
{
    char line[DG_CLI_LINE];

    dg_cli_arguments(line, cli->spec);
    printf(".SS ");
    roff(cli->name);
    printf("\n\\fBdancegrpo %s\\fR", cli->name);
    roff(line);
    printf("\n.PP\n");
    roff(cli->spec->summary);
    putchar('\n');
    print_flags(cli->spec->flags, cli->spec->num_flags);
}

void dg_man_begin(void)
{
    printf(
        ".\\\" Written by `make doc` from the program's help: do not edit.\n"
        ".TH DANCEGRPO 1 2026-11-27 \"dancegrpo %s\" \"User Commands\"\n"
        ".SH NAME\n"
        "dancegrpo \\- fine\\-tune image generators by reinforcement "
        "learning\n"
        ".SH SYNOPSIS\n"
        ".B dancegrpo\n"
        ".I COMMAND\n"
        "[\\fIARGUMENT\\fR]... [\\fIOPTION\\fR]...\n"
        ".br\n"
        ".B mpirun \\-n\n"
        ".I RANKS\n"
        ".B dancegrpo\n"
        ".I COMMAND\n"
        "[\\fIARGUMENT\\fR]... [\\fIOPTION\\fR]...\n"
        ".SH DESCRIPTION\n"
        "For each prompt a group of pictures is painted and scored by one or "
        "more rewards;\nthe policy is then changed so that the better pictures "
        "of each group become more\nlikely (DanceGRPO, arXiv:2505.07818).\n"
        ".B dancegrpo\n"
        "is an MPI program: it runs on one rank as it is, and on many under\n"
        ".B mpirun\n"
        "or\n"
        ".BR srun .\n"
        "The number of ranks changes how long a run takes, not one bit of its "
        "result.\n"
        ".PP\n"
        "Most commands read a configuration, a file in the format of "
        "libconfig. A run keeps\nall that it writes in one folder,\n"
        ".IR run.dir .\n"
        "The same command started again continues the run from its newest "
        "checkpoint.\n"
        ".SH COMMANDS\n",
        dg_version());
}

static void options(void)
{
    printf(".SH OPTIONS OF ALL COMMANDS\n");
    print_flags(dg_cli_help_flags, DG_CLI_HELP_FLAGS);
    printf(".PP\nCommands that take a\n.I CONFIG\nhave these too:\n");
    print_flags(dg_cli_config_flags, DG_CLI_CONFIG_FLAGS);
    printf(".PP\nOf the program itself:\n"
           ".TP\n\\fB\\-\\-help\\fR\nprint the list of commands\n"
           ".TP\n\\fB\\-\\-version\\fR\nprint version, commit and compiler\n"
           ".TP\n\\fB\\-\\-man\\fR\nprint this page as man(7) source: "
           "\\fBdancegrpo \\-\\-man | man \\-l \\-\\fR\n");
}

static void environment(void)
{
    printf(".SH ENVIRONMENT\n"
           ".TP\n.B DANCEGRPO_MPI_THREADS\n"
           "\\fIfunneled\\fR: do not ask MPI for "
           "\\fIMPI_THREAD_MULTIPLE\\fR; files are then\nwritten between "
           "iterations and not beside them. \\fImultiple\\fR is the default.\n"
           ".TP\n.B DANCEGRPO\n"
           "in the batch scripts of\n.IR jobs/ :\nthe program to start; by "
           "default\n.IR bin/dancegrpo ,\nor else the one that is installed\n"
           ".TP\n.B DANCEGRPO_JOBS\n"
           "there too: the folder of\n.IR launch.sh ,\nif it is neither\n"
           ".I jobs\nnor that of the installation\n");
}

void dg_man_end(void)
{
    options();
    printf(".SH CONFIGURATION\n"
           "Every key with its meaning, range and default is listed by\n"
           ".B dancegrpo train \\-\\-help\n"
           "and in\n"
           ".IR doc/config.md .\n"
           "A file may start from another one with\n"
           ".BR \"@include \\(dqFILE\\(dq\" ,\n"
           "whose path is relative to the including file; all other paths are "
           "relative to the\nfolder where the program is started.\n"
           ".SH FILES\n"
           "In the run folder:\n"
           ".TP\n.I config.cfg\nthe effective configuration\n"
           ".TP\n.I metrics.jsonl\none line of JSON for each iteration\n"
           ".TP\n.I log.txt\nwhat the screen showed\n"
           ".TP\n.I checkpoints/iter_*.h5\nfrom which a run continues\n"
           ".TP\n.I trajectories/iter_*.h5\nfor\n.BR replay ,\nwhere\n"
           ".I trajectory.every\nis set\n"
           ".TP\n.I report.html\nwhether the run is right, with curves and "
           "pictures\n");
    environment();
    printf(".SH EXIT STATUS\n"
           ".TP\n.B 0\ndone\n"
           ".TP\n.B 1\nerror: one line that begins with ERROR tells which\n"
           ".TP\n.B 2\nwrong command line\n"
           ".TP\n.B 75\nto be run again: stopped early with a checkpoint, or "
           "another run has the folder\n"
           ".SH EXAMPLES\n.EX\n"
           "dancegrpo train configs/tiny.cfg\n"
           "dancegrpo report \\-\\-text runs/tiny\n"
           "mpirun \\-\\-bind\\-to none \\-n 8 dancegrpo train mine.cfg "
           "\\-\\-set optim.lr=1e\\-4\n"
           "dancegrpo plan configs/flux_hps.cfg \\-\\-gpus 8,16\n.EE\n"
           ".SH SEE ALSO\n"
           ".BR mpirun (1),\n"
           ".BR bash (1)\n"
           ".PP\n"
           "README.md and doc/ of the sources, installed as "
           "share/dancegrpo/doc: howto.md tells\nhow to go on where a run does "
           "not learn, or does not fit.\n");
}
