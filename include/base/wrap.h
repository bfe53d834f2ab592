#ifndef DG_BASE_WRAP_H
#define DG_BASE_WRAP_H
/*
 * Text for terminals.
 */
#include <stdio.h>

enum { DG_WRAP_COLUMNS = 80 };

/**
 * Writes a text whose first line begins at column 'at' (0 the first), broken at
 * blanks so that no line is longer than DG_WRAP_COLUMNS characters where a word
 * fits; further lines begin at column 'indent'. Line breaks of the text's own
 * stay. Ends with one. Not collective.
 */
void dg_wrap(FILE *out, int at, int indent, const char *text);

#endif
