#ifndef DG_BASE_OUT_FOLDER_H
#define DG_BASE_OUT_FOLDER_H
/*
 * A folder that is there whole or not at all: filled under a temporary name
 * beside its own, synced, renamed. Not collective.
 */

typedef struct OutFolder OutFolder;

/** Whether a folder of that name can be new. Errors: DG_EINVAL when there is
 *  something of that name; DG_EIO. */
int dg_out_folder_check(const char *path);

/**
 * Begins path.tmp-XXXXXX, the X chosen by the system. Such folders that killed
 * processes left are removed, those of living ones are not: a lock in them tells.
 * Errors: as dg_out_folder_check(); DG_EIO naming what cannot be made;
 * DG_ENOMEM.
 */
int dg_out_folder_open(OutFolder **out, const char *path);

/** The temporary folder, to write into; belongs to f. */
const char *dg_out_folder_path(const OutFolder *f);

/**
 * Syncs the folder and gives it its name; f is gone, also on an error.
 * Errors: DG_EINVAL when the name was taken meanwhile; DG_EIO. What was
 * written is then removed.
 */
int dg_out_folder_commit(OutFolder *f);

/** Removes what was written; f is gone. NULL is allowed. */
void dg_out_folder_abandon(OutFolder *f);

/** Copies a file, whole or not at all. Errors: DG_EIO, DG_ENOMEM. */
int dg_out_copy_file(const char *from, const char *to);

/**
 * Makes folder to, which must not be there, and copies into it all files and
 * folders of from but hidden ones. Links are followed: the copy has none.
 * Errors: DG_EIO naming what cannot be read or written; DG_ENOMEM.
 */
int dg_out_copy_folder(const char *from, const char *to);

#endif
