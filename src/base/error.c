#include "base/error.h"

#include "base/legible.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local Error last_error = { DG_OK, -1, "", "" };
static void (*panic_hook)(void);

/* Whoever has no memory says what for. */
static void add_reason(char *text, size_t bytes)
{
    const size_t used = strlen(text);

    if (strstr(text, "memory") == NULL && strstr(text, "are free") == NULL)
        snprintf(text + used, bytes - used, ": out of memory");
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
    if (code == DG_ENOMEM)
        add_reason(last_error.text, sizeof last_error.text);
    dg_legible(last_error.text); /* names may come from damaged files */
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
        "stopped",    "usage",         "busy",           "reward failed",
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
