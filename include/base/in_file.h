#ifndef DG_BASE_IN_FILE_H
#define DG_BASE_IN_FILE_H
/* A file to be read, of a size that is known. Not collective. */
#include <stddef.h>
#include <stdint.h>

/**
 * Opens it without waiting: a named pipe that nobody writes into would be
 * waited for until the run is killed.
 * fd     out  to be closed by the caller
 * bytes  out  its size
 * Errors: DG_EIO naming it, with the system's reason, or since it is no regular
 * file (a folder, a pipe, a device); outputs then untouched.
 */
int dg_in_open(int *fd, int64_t *bytes, const char *path);

/** Files of more are no lists, texts or pictures of ours: 4 GiB. */
#define DG_IN_MOST ((int64_t)4 << 30)

/**
 * All of a small file, with a zero byte behind it.
 * text   out  to be freed by the caller
 * Errors: those of dg_in_open(); DG_EFORMAT: more than DG_IN_MOST; DG_EIO;
 * DG_ENOMEM.
 */
int dg_in_read(const char *path, char **text, size_t *bytes);

#endif
