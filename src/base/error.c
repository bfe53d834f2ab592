#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local Error last_error = { DG_OK, -1, "", "" };
static void (*panic_hook)(void);

/* Bytes of the UTF-8 character there; 0: none, or one that steers a terminal. */
static int character(const unsigned char *s)
{
    const int more = s[0] >= 0xf0 ? 3 : s[0] >= 0xe0 ? 2 : s[0] >= 0xc2 ? 1 : 0;

    if (s[0] < 0x80)
        return s[0] == '\n' || s[0] == '\t' || (s[0] >= ' ' && s[0] != 0x7f);
    if (more == 0 || s[0] > 0xf4 || (s[0] == 0xc2 && s[1] < 0xa0))
        return 0;
    for (int i = 1; i <= more; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return more + 1;
}

/* Names in a message may come from files that are damaged. */
static void make_legible(char *text)
{
    while (*text != '\0') {
        const int bytes = character((const unsigned char *)text);

        if (bytes == 0)
            *text = '?';
        text += bytes > 0 ? bytes : 1;
    }
}

int dg_fail(int code, const char *fmt, ...)
{
    va_list ap;

    last_error.code = code;
    last_error.rank = -1;
    last_error.host[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(last_error.text, sizeof last_error.text, fmt, ap);
    va_end(ap);
    make_legible(last_error.text);
    return code;
}

const Error *dg_last_error(void)
{
    return &last_error;
}

void dg_set_error(const Error *e)
{
    last_error = *e;
}

void dg_clear_error(void)
{
    last_error.code = DG_OK;
    last_error.rank = -1;
    last_error.host[0] = '\0';
    last_error.text[0] = '\0';
}

const char *dg_error_name(int code)
{
    static const char *const names[] = {
        "ok",         "invalid value", "out of memory",  "file error",
        "bad format", "not finite",    "broken promise", "device error",
        "stopped",    "usage",
    };

    if (code < 0 || code >= (int)(sizeof names / sizeof *names))
        return "unknown error";
    return names[code];
}

void dg_panic(const char *fmt, ...)
{
    va_list ap;

    fputs("dancegrpo: panic: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (panic_hook != NULL)
        panic_hook();
    abort();
}

void dg_set_panic_hook(void (*hook)(void))
{
    panic_hook = hook;
}
