#ifndef DG_STORE_H5_INTERNAL_H
#define DG_STORE_H5_INTERNAL_H
/* What the h5_*.c files share; nobody else includes this. */
#include "parallel/comm_file.h"
#include "store/h5.h"

#include <hdf5.h>

/* Where the file driver leaves the first error of writing (an errno). */
typedef struct H5Sink {
    int error;
    hid_t driver; /* registered while the file is open */
} H5Sink;

struct H5File {
    hid_t id;   /* while writing: on rank 0 only */
    char *path; /* final name */
    /* writing only */
    const Comm *comm;
    char *tmp;        /* name while it is written */
    CommFile *shared; /* the same file, for the data of all ranks */
    H5Sink sink;
};

/** Keeps HDF5 from printing its own errors. */
void dg_h5_quiet(void);

/** Creates a file whose errors of writing go to the sink, which lives as
 *  long as the file. Negative on failure. */
hid_t dg_h5_create_file(const char *path, H5Sink *sink);
/** Closes such a file, then drops its driver. Negative on failure. */
herr_t dg_h5_close_file(hid_t file, H5Sink *sink);

/**
 * Around what HDF5 does with a file that it reads: where a signal comes in
 * between, in this thread, the process ends with a message that names the file
 * and exit code 1. Pairs may lie within each other; path lives as long.
 * dg_h5_leave() returns what it is given.
 */
void dg_h5_enter(const char *path);
int dg_h5_leave(int result);

/** Records code with file, object and HDF5's innermost reason. */
int dg_h5_fail(int code, const H5File *f, const char *object, const char *what);

/** Bytes of a file that is read, which nothing in it can have more of. */
int64_t dg_h5_file_bytes(const H5File *f);

/** HDF5's type, little-endian; to be closed. Not for text. */
hid_t dg_h5_make_type(H5Type type);

/** Null-padded UTF-8 of bytes (at least 1); to be closed. */
hid_t dg_h5_make_text_type(size_t bytes);

#endif
