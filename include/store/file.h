#ifndef DG_STORE_FILE_H
#define DG_STORE_FILE_H
/*
 * Small files, whole or not at all. Nothing here is collective: where one
 * rank may fail alone, the caller agrees.
 */
#include <stddef.h>

/**
 * A whole small file into memory, with a zero byte behind it; to free. By
 * this rank alone. Errors: DG_EIO naming the file, DG_ENOMEM.
 */
int dg_file_read(const char *path, char **text, size_t *bytes);

/**
 * Replaces a file, whole or not at all: written as path.tmp, synced, renamed.
 * By this rank alone. Errors: DG_EIO; the old file is then untouched.
 */
int dg_file_write(const char *path, const void *data, size_t bytes);

#endif
