#ifndef DG_SRC_TRAIN_FILES_H
#define DG_SRC_TRAIN_FILES_H
/* A thread that writes files while its run goes on: with a communicator of its
 * own, and a stream on the device. Not public. */
#include "train/session.h"
#include "train/team.h"

typedef struct Files Files;

/**
 * Where MPI lets another thread call it and there is room for a stream; else
 * *out is NULL, and it is told why files are written between 'turns'.
 * Collective. Errors, agreed: DG_ENOMEM, DG_EDEVICE.
 */
int dg_files_open(Files **out, const Session *s, const char *turns);
/** Waits for what is written. Leaves dg_last_error() as it is. NULL is
 *  allowed. */
void dg_files_close(Files *f);

/** By which the thread writes. */
const Session *dg_files_session(const Files *f);

/** fn(NULL, i, user) for i in 0 .. num - 1, one after the other; the wait
 *  before has returned. */
void dg_files_start(Files *f, TeamFn fn, void *user, int num);

/* s */
typedef struct FilesTime {
    double writing; /* what that took, and */
    double waiting; /* how much of it was waited for */
} FilesTime;

/** Until all that was started is done; at once where nothing was, and with NULL.
 *  Collective. Errors, agreed: the first item's that failed. */
int dg_files_wait(Files *f, FilesTime *took);

#endif
