#ifndef DG_CLI_MAN_H
#define DG_CLI_MAN_H
/*
 * The manual page dancegrpo(1), on standard output: its begin, a part for each
 * command, its end.
 */
#include "cli/command.h"

void dg_man_begin(void);
void dg_man_command(const Cli *cli);
void dg_man_end(void);

#endif
