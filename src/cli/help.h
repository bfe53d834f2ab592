#ifndef DG_CLI_HELP_H
#define DG_CLI_HELP_H
/*
 * What a command tells of its own command line, from its CliSpec alone.
 */
#include "cli/command.h"

#include <stdio.h>

enum { DG_CLI_LINE = 256, DG_CLI_HELP_FLAGS = 2, DG_CLI_CONFIG_FLAGS = 3 };

/* Flags of every command ("--" of those with arguments), and of those with a
 * configuration. */
extern const CliFlag dg_cli_help_flags[DG_CLI_HELP_FLAGS];
extern const CliFlag dg_cli_config_flags[DG_CLI_CONFIG_FLAGS];

/** The name of what a flag takes, as help has it: FILE, N, ...; NULL where it
 *  takes nothing. */
const char *dg_cli_takes(const CliFlag *f);

/** What follows the command's name on a command line, with a blank before. */
void dg_cli_arguments(char line[DG_CLI_LINE], const CliSpec *s);

/** The line "usage: ...". */
void dg_cli_usage(FILE *out, const Cli *cli);

/** All that --help prints, on standard output. */
void dg_cli_help(const Cli *cli);

/** Flushes standard output; 0 with an error in the log if anything written to it
 *  since the start was lost. */
int dg_cli_said_all(void);

#endif
