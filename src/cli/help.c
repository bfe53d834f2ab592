#include "help.h"

#include "base/log.h"
#include "base/wrap.h"
#include "config/option.h"

const CliFlag dg_cli_help_flags[] = {
    { .name = "--help",
      .help = "print what the command does, its options and keys" },
    { .name = "--",
      .help = "what follows is an argument, even if it begins with -" },
};

const CliFlag dg_cli_config_flags[] = {
    { .name = "--set",
      .help = "set one key, over the file's value; may be repeated",
      .takes = "key=value" },
    { .name = "--print-config",
      .help = "print the effective configuration and stop" },
    { .name = "--dry-run",
      .help = "check configuration, files and memory; compute nothing" },
};

const char *dg_cli_takes(const CliFlag *f)
{
    if (f->takes != NULL)
        return f->takes;
    return f->file != NULL     ? "FILE"
           : f->number != NULL ? "N"
           : f->value != NULL  ? "VALUE"
                               : NULL;
}

void dg_cli_arguments(char line[DG_CLI_LINE], const CliSpec *s)
{
    static const char *const config[] = { "", " [CONFIG]", " CONFIG" };
    const char *args = s->arguments != NULL ? s->arguments : "";

    snprintf(line, DG_CLI_LINE, "%s%s%s%s%s", config[s->config],
             *args ? " " : "", args, s->num_flags > 0 ? " [OPTION]..." : "",
             s->config != DG_CLI_NONE ? " [--set key=value]..." : "");
}

void dg_cli_usage(FILE *out, const Cli *cli)
{
    char line[DG_CLI_LINE];

    dg_cli_arguments(line, cli->spec);
    fprintf(out, "usage: dancegrpo %s%s\n", cli->name, line);
}

static void print_flag(const CliFlag *f)
{
    const char *takes = dg_cli_takes(f);
    const int n = printf("  %s%s%s", f->name, takes != NULL ? " " : "",
                         takes != NULL ? takes : "");

    printf("%*s ", n < 24 ? 24 - n : 0, "");
    dg_wrap(stdout, n < 24 ? 25 : n + 1, 25, f->help);
}

void dg_cli_help(const Cli *cli)
{
    const CliSpec *s = cli->spec;

    dg_cli_usage(stdout, cli);
    putchar('\n');
    dg_wrap(stdout, 0, 0, s->summary);
    putchar('\n');
    for (int i = 0; i < s->num_flags; i++)
        print_flag(&s->flags[i]);
    for (int i = 0; i < (s->max_args > 0 ? DG_CLI_HELP_FLAGS : 1); i++)
        print_flag(&dg_cli_help_flags[i]);
    if (s->config == DG_CLI_NONE)
        return;
    for (int i = 0; i < DG_CLI_CONFIG_FLAGS; i++)
        print_flag(&dg_cli_config_flags[i]);
    printf("\nKeys of the configuration:\n");
    dg_option_help(stdout);
}

/* A text longer than the buffer is written before, and what failed then leaves
 * nothing to flush. */
int dg_cli_said_all(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 1;
    dg_log(DG_LOG_ERROR, "standard output could not be written");
    return 0;
}
