#ifndef DG_BASE_FILE_LOCK_H
#define DG_BASE_FILE_LOCK_H
/*
 * Whether a process lives that has a file: a lock ends with its process,
 * however that ends, and so tells what is being written from what is left.
 */

typedef enum FileLock {
    DG_LOCK_MINE,    /* nobody else has it, until fd is closed */
    DG_LOCK_UNKNOWN, /* this file system knows no locks; fd is open */
    DG_LOCK_OTHERS,  /* somebody has it, or takes it away just now */
    DG_LOCK_NO_FILE  /* it cannot be opened: errno */
} FileLock;

/**
 * Opens a file to read and write and locks it, without waiting.
 * fd     out  to be closed by the caller, with DG_LOCK_MINE and _UNKNOWN
 * flags       to open() besides, O_CREAT or 0
 * A lock is that of the file which has the name now. Not collective.
 */
FileLock dg_file_lock(int *fd, const char *path, int flags);

/** The same; while somebody has it it is tried again, for so long. */
FileLock dg_file_lock_wait(int *fd, const char *path, int flags,
                           double patience_s);

#endif
