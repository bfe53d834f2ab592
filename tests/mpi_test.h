#ifndef DG_TESTS_MPI_TEST_H
#define DG_TESTS_MPI_TEST_H
/*
 * Tests that run on several ranks. An assertion that leaves one rank early
 * would hang the others in the next collective, so a rank notes what failed
 * with EXPECT() and all ranks fail together at the end with VERDICT(). A rank
 * that crashes ends the job: cmocka would go on to its next test, and leave the
 * others in this one's collectives. What hangs all the same the watch ends.
 */
#include "parallel/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static Comm comm;
static int64_t all_good;

#define EXPECT(condition)                                               \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "%s:%d: rank %d: %s\n", __FILE__, __LINE__, \
                    comm.rank, #condition);                             \
            all_good = 0;                                               \
        }                                                               \
    } while (0)

#define VERDICT()                             \
    do {                                      \
        dg_comm_min_i64(&comm, &all_good, 1); \
        const int64_t verdict = all_good;     \
        all_good = 1;                         \
        mpi_test_alone(verdict == 1);         \
        assert_int_equal(verdict, 1);         \
    } while (0)

enum { MPI_TEST_PATIENCE_S = 300 };

/** Whether what fails from now on fails on one rank alone: then cmocka is to
 *  abort, and mpirun ends the other ranks. */
static inline void mpi_test_alone(int alone)
{
    setenv("CMOCKA_TEST_ABORT", alone ? "1" : "0", 1);
}

/** Starts MPI; only rank 0 reports. */
static inline int mpi_test_start(int *argc, char ***argv)
{
    all_good = 1;
    mpi_test_alone(1);
    if (dg_comm_init(&comm, argc, argv) != 0 ||
        dg_comm_watch(&comm, MPI_TEST_PATIENCE_S) != 0)
        return 1;
    if (comm.rank != 0)
        cmocka_set_message_output(CM_OUTPUT_TAP);
    if (comm.rank != 0 && freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    return 0;
}

/** Starts MPI and runs a file's tests under its name; only rank 0 reports. */
#define MPI_MAIN(name, tests)                                      \
    int main(int argc, char **argv)                                \
    {                                                              \
        if (mpi_test_start(&argc, &argv) != 0)                     \
            return 1;                                              \
        const int failed =                                         \
            cmocka_run_group_tests_name(#name, tests, NULL, NULL); \
        dg_comm_fini(&comm);                                       \
        return failed != 0;                                        \
    }

/** A fresh folder, the same for all ranks; remove with drop_folder(). */
static inline void make_folder(char folder[256])
{
    if (comm.rank == 0) {
        const char *base = getenv("TMPDIR");

        snprintf(folder, 256, "%s/dg_test_XXXXXX", base ? base : "/tmp");
        if (mkdtemp(folder) == NULL)
            perror(folder);
    }
    dg_comm_bcast(&comm, folder, 256, 0);
}

static inline void drop_folder(const char *folder)
{
    char command[300];

    dg_comm_barrier(&comm);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (comm.rank == 0 && system(command) != 0)
        perror(folder);
}

#endif
