#ifndef DG_BASE_ERROR_H
#define DG_BASE_ERROR_H
/*
 * Errors: a code that is returned, and a text that stays behind.
 *
 * The function that detects an error records it once with dg_fail(); callers
 * pass the code on and add nothing. The record is per thread; a worker's
 * record is handed to its team with dg_last_error() and dg_set_error().
 */
#include <stddef.h>

enum {
    DG_OK = 0,
    DG_EINVAL,   /* an argument, key or value outside what is allowed */
    DG_ENOMEM,   /* memory: host, device or a reserved arena exhausted */
    DG_EIO,      /* a file could not be read or written */
    DG_EFORMAT,  /* a file's content is not what its format promises */
    DG_ENUMERIC, /* NaN, Inf or overflow where numbers must be finite */
    DG_EPROMISE, /* a promise of the program (ratio 1, ...) did not hold */
    DG_EDEVICE,  /* an accelerator or its library failed */
    DG_ESTOP,    /* stopped early on request (signal, time) */
    DG_EUSAGE,   /* command line not understood */
    DG_EBUSY,    /* another process has it: to be tried again later */
    DG_EREWARD,  /* a user's reward cannot go on */
    DG_ENOSCORE  /* a reward has no score for a picture, as itself says */
};

typedef struct Error {
    int code;
    int rank;        /* rank that detected it; -1 before parallel start */
    char host[64];   /* its host, where ranks have several; else "" */
    char text[1024]; /* one line, no newline at its end */
} Error;

/**
 * Records an error of this thread and returns its code.
 * code   one of the codes above, not DG_OK
 * fmt    printf format: key or file, value, what is allowed; bytes of it that
 *        are no UTF-8, or steer a terminal, become '?'; with DG_ENOMEM it
 *        says what memory was for, ": out of memory" is added
 * Not collective. Always returns code.
 */
int dg_fail(int code, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/** The last error recorded by this thread; code DG_OK if none. */
const Error *dg_last_error(void);

/** Replaces this thread's record (for agreement between ranks, threads). */
void dg_set_error(const Error *e);

/** Forgets this thread's record. */
void dg_clear_error(void);

/** Short name of a code, "invalid value" and so on. */
const char *dg_error_name(int code);

/**
 * Ends the program at once: a broken invariant that no caller can handle.
 * Prints file and line; under MPI it takes the job down through the hook
 * that src/parallel installs with dg_set_panic_hook().
 */
void dg_panic(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));
void dg_set_panic_hook(void (*hook)(void));

#endif
