#ifndef DG_TEXT_MISREAD_H
#define DG_TEXT_MISREAD_H
/*
 * UTF-8 that a program took for Latin-1 or Windows' code page 1252 and wrote as
 * UTF-8 again: "cafÃ©". Valid, and not what anybody meant.
 */

/**
 * Undoes it once.
 * out   [strlen(text) + 1] out: the likely text; unspecified where it is none
 * text  UTF-8
 * Returns how many characters beyond ASCII the likely text has. 0: the text is
 * no such: one of its characters is in neither code page, or their bytes are not
 * UTF-8 from the first to the last.
 */
int dg_misread(char *out, const char *text);

#endif
