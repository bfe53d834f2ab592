#ifndef DG_PARALLEL_COMM_FILE_H
#define DG_PARALLEL_COMM_FILE_H
/*
 * One file written by all ranks at once (MPI-IO). All functions are
 * collective and agree on errors.
 */
#include <stddef.h>
#include <stdint.h>

#include "parallel/comm.h"

typedef struct CommFile CommFile;

/** Opens an existing file for writing. Errors: DG_EIO naming it, DG_ENOMEM. */
int dg_comm_file_open(CommFile **out, const Comm *c, const char *path);

/**
 * Every rank writes its bytes at its own offset; ranges do not overlap.
 * bytes may be 0. Errors: DG_EIO with the system's reason; what has been
 * written is then unknown.
 */
int dg_comm_file_write(CommFile *f, int64_t offset, const void *data,
                       size_t bytes);

/** Makes all that was written durable. Errors: DG_EIO. */
int dg_comm_file_sync(CommFile *f);

/** NULL is allowed (on all ranks). Errors: DG_EIO. */
int dg_comm_file_close(CommFile *f);

#endif
