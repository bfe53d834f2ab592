#ifndef DG_BASE_LEGIBLE_H
#define DG_BASE_LEGIBLE_H
/*
 * Texts that are not this program's, such as names in a file or of a file, on
 * their way to people: what is no UTF-8, or steers a terminal, becomes "?".
 */
#include <stddef.h>
#include <stdio.h>

/** Bytes of the UTF-8 character that the text begins with, 1 to 4; 0: there is
 *  none (RFC 3629: no surrogates, nothing longer than it needs to be). */
int dg_utf8_bytes(const char *text);

/** Makes a text of lines legible, in its place. Tabs and ends of lines stay. */
void dg_legible(char *text);

/** Makes a text a legible line, in its place: tabs and ends of lines become blanks. */
void dg_legible_line(char *text);

/** Writes one, at most so many bytes of it and no part of a character. */
void dg_legible_put(FILE *out, const char *text, size_t most);

/** The same of a text that is to stay in its line: of control characters
 *  nothing is left. */
void dg_legible_put_line(FILE *out, const char *text, size_t most);

#endif
