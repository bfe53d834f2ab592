#ifndef DG_BASE_IN_FILE_H
#define DG_BASE_IN_FILE_H
/* A file to be read, of a size that is known. Not collective. */
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

#endif
