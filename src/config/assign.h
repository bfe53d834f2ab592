#ifndef DG_CONFIG_ASSIGN_H
#define DG_CONFIG_ASSIGN_H
/*
 * Inside src/config: from libconfig's settings to fields and back to text.
 */
#include "config/option.h"

#include <libconfig.h>

/** "file:line" of a setting, or "--set". name: the file, or "--..." */
void dg_assign_place(char *text, size_t size, const config_setting_t *s,
                     const char *name);

/** Behind the comment or string that begins at s; s when none does. */
const char *dg_assign_skip(const char *s);

/** config_read_string, but integers beyond 32 bits keep their value also
 *  without the L that old libconfigs want behind them. */
int dg_assign_read_tree(config_t *tree, const char *text);

/**
 * Puts a setting's value into the field of a row.
 * name  file for the message, or "--..." for the command line
 * Errors: DG_EINVAL naming the place, key, value and what is allowed.
 */
int dg_assign_setting(const Option *o, void *base, const config_setting_t *s,
                      const char *name);

/** The same from text as written in a file; strings may lack their quotes. */
int dg_assign_text(const Option *o, void *base, const char *text,
                   const char *name);

/** Writes the value as a file has it, so that it reads back the same. */
void dg_assign_write(FILE *out, const Option *o, const void *base);

#endif
