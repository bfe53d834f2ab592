#ifndef DG_TESTS_NODE_FILE_H
#define DG_TESTS_NODE_FILE_H
/* How much of a node's memory (parallel/node_memory.h) there is. */
#include "mpi_test.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** Whether ranks have it together: some node has several of them. Collective. */
static inline int node_file_is_shared(void)
{
    int64_t several = comm.node_size > 1;

    dg_comm_max_i64(&comm, &several, 1);
    return (int)several;
}

/** 1: the last of all ranks is on this node; they go from node to node. */
static inline int node_has_last(void)
{
    return comm.rank - comm.node_rank + comm.node_size == comm.size;
}

/** Bytes of all such files that this process has open; -1: it has none. */
static inline long long node_file_bytes(void)
{
    DIR *d = opendir("/proc/self/fd");
    long long bytes = -1;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[300], to[300] = "";
        struct stat st;

        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        if (readlink(path, to, sizeof to - 1) > 0 &&
            strncmp(to, "/memfd:dancegrpo-weights", 24) == 0 &&
            stat(path, &st) == 0)
            bytes = (bytes < 0 ? 0 : bytes) + 512 * (long long)st.st_blocks;
    }
    closedir(d);
    return bytes;
}

/** Bytes of pages that are this process's alone in the mapping of such a file that
 *  at lies in; -1: it lies in no such mapping. */
static inline long long node_file_own_bytes(const void *at)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long from, to;
    long long kilobytes = -1;
    int here = 0;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = (uintptr_t)at >= from && (uintptr_t)at < to &&
                   strstr(line, "/memfd:dancegrpo-weights") != NULL;
        else if (here)
            sscanf(line, "Anonymous: %lld kB", &kilobytes);
    }
    if (f != NULL)
        fclose(f);
    return kilobytes < 0 ? -1 : 1024 * kilobytes;
}

#endif
