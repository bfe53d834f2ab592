#ifndef DG_TESTS_FUZZ_FOLDER_H
#define DG_TESTS_FUZZ_FOLDER_H
/*
 * Files for readers that want a path: a folder of this process, in TMPDIR (a
 * file system in memory is best), gone at its end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_folder[256];

static void drop_fuzz_folder(void)
{
    char command[300];

    snprintf(command, sizeof command, "rm -rf '%s'", fuzz_folder);
    if (system(command) != 0)
        perror(fuzz_folder);
}

static inline void make_fuzz_folder(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/dg_fuzz_XXXXXX",
             base != NULL ? base : "/tmp");
    if (mkdtemp(fuzz_folder) == NULL)
        abort();
    atexit(drop_fuzz_folder);
}

static inline void put_fuzz_file(char path[300], const char *name,
                                 const void *data, size_t size)
{
    FILE *f;

    snprintf(path, 300, "%s/%s", fuzz_folder, name);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
}

#endif
