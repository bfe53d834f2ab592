#ifndef DG_BASE_OUT_FILE_H
#define DG_BASE_OUT_FILE_H
/*
 * A file that is there whole or not at all: written piece by piece under a
 * temporary name, synced, renamed. Not collective.
 */
#include <stddef.h>

typedef struct OutFile OutFile;

/**
 * Begins path.tmp, replacing what a killed run may have left of it; a process
 * that lives and writes it is waited for, some seconds.
 * Errors: DG_EIO naming it, also where something else than a file has that name;
 * DG_ENOMEM.
 */
int dg_out_open(OutFile **out, const char *path);

/** Whether path could be written; nothing is left of the trial. Errors: those of
 *  dg_out_open(). */
int dg_out_try(const char *path);

/** Appends. Errors: DG_EIO with the system's reason; then abandon. */
int dg_out_write(OutFile *f, const void *data, size_t bytes);

/**
 * Syncs, closes and gives the file its name; f is gone, also on an error.
 * Errors: DG_EIO; a file that had the name before is then untouched.
 */
int dg_out_commit(OutFile *f);

/** Removes what was written; f is gone. NULL is allowed. */
void dg_out_abandon(OutFile *f);

/** Makes a name in a folder durable (after a rename). DG_EIO. */
int dg_out_sync_folder(const char *path_in_folder);

#endif
