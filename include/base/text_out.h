#ifndef DG_BASE_TEXT_OUT_H
#define DG_BASE_TEXT_OUT_H
/*
 * A text of any length that is written like a file.
 */
#include <stddef.h>
#include <stdio.h>

typedef struct TextOut {
    FILE *file;       /* to write to */
    int failed;       /* 1, set by who writes: there will be no text */
    const char *what; /* it is, for the message */
    char *text;
    size_t bytes;
} TextOut;

/** Begins a text. what is borrowed until the end. Errors: DG_ENOMEM. */
int dg_text_open(TextOut *t, const char *what);

/** Ends it. *text is taken by the caller (free), set on success only.
 *  Errors: DG_ENOMEM, also where t->failed was set. */
int dg_text_close(TextOut *t, char **text);

enum { DG_JSON_CHAR = 8 };
/** How the next character of *text, which does not end there, stands within a
 *  string of JSON: room. *text goes behind it. What is no UTF-8, as names of
 *  files may be, is U+FFFD; JSON has no other bytes. */
const char *dg_json_char(char room[DG_JSON_CHAR], const char **text);

#endif
