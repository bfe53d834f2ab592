#ifndef DG_TEXT_ASCII_H
#define DG_TEXT_ASCII_H
/*
 * A text in ASCII, for where there are no other letters, as in captions of
 * pictures. Nothing of it is left out in silence.
 */

/**
 * Each character by what it is made of (Unicode's compatibility decomposition)
 * without its marks: "Zürich" is "Zurich". Some that are made of nothing have
 * letters too (ß, ø, œ), and so have quotation marks and dashes. Of others, and
 * of bytes that are no UTF-8, each is a '?'. Control characters and all kinds of
 * space are spaces; what is never seen, as a soft hyphen, is left out.
 * out  out: the caller's (free), set on success only
 * text  UTF-8
 * Errors: DG_ENOMEM.
 */
int dg_ascii_of(char **out, const char *text);

#endif
