#define _GNU_SOURCE /* F_OFD_SETLK */
#include "mpi_test.h"
#include "base/error.h"
#include "store/file.h"
#include "store/rundir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256], root[300];

static int start(void **state)
{
    (void)state;
    make_folder(folder);
    snprintf(root, sizeof root, "%s/a/b/run/", folder);
    return 0;
}

static int end(void **state)
{
    (void)state;
    drop_folder(folder);
    return 0;
}

static void test_config_comes_back(void **state)
{
    char *stored = NULL, left[400], picture[400];
    struct stat st;
    RunDir d;

    (void)state;
    EXPECT(!dg_rundir_open(&comm, &d, root, &stored) && stored == NULL);
    EXPECT(stat(d.checkpoints, &st) == 0 && stat(d.trajectories, &st) == 0);
    EXPECT(!dg_rundir_write_config(&comm, &d, "a = 1;\n"));
    snprintf(left, sizeof left, "%s/a/b/run/checkpoints/iter_000001.h5.tmp",
             folder);
    snprintf(picture, sizeof picture, "%s/a/b/run/pictures", folder);
    if (comm.rank == 0)
        EXPECT(mkdir(picture, 0777) == 0 &&
               dg_file_write(left, "x", 1) == DG_OK);
    strcat(picture, "/iter_000000.png.tmp");
    if (comm.rank == 0)
        EXPECT(dg_file_write(picture, "x", 1) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(!dg_rundir_open(&comm, &d, root, &stored));
    EXPECT(stored && strcmp(stored, "a = 1;\n") == 0);
    EXPECT(stat(left, &st) != 0 && stat(picture, &st) != 0);
    free(stored);
    VERDICT();
}

/* The lock of another open file, as another process has it. */
static void test_a_second_run_is_refused(void **state)
{
    const struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char *stored = NULL, name[400], unfinished[400], *text = NULL;
    size_t bytes = 0;
    struct stat st;
    RunDir d;
    int fd = -1;

    (void)state;
    EXPECT(!dg_rundir_open(&comm, &d, root, &stored));
    snprintf(name, sizeof name, "%s/a/b/run/run.lock", folder);
    snprintf(unfinished, sizeof unfinished, "%s/a/b/run/metrics.tmp", folder);
    if (comm.rank == 0) {
        /* closed: the lock of this process is gone with it */
        EXPECT(!dg_file_read(name, &text, &bytes));
        EXPECT(text && strncmp(text, "process ", 8) == 0);
        fd = open(name, O_RDWR);
        EXPECT(fcntl(fd, F_OFD_SETLK, &lock) == 0);
        EXPECT(dg_file_write(unfinished, "x", 1) == DG_OK);
    }
    dg_comm_barrier(&comm);
    EXPECT(dg_rundir_open(&comm, &d, root, &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "another run is writing there, "
                                         "process ") != NULL);
    EXPECT(stat(unfinished, &st) == 0);
    dg_comm_barrier(&comm);
    if (fd >= 0)
        close(fd);
    EXPECT(!dg_rundir_open(&comm, &d, root, &stored));
    EXPECT(stat(unfinished, &st) != 0);
    free(text);
    VERDICT();
}

static void test_bad_folders_are_named(void **state)
{
    char *stored = NULL, longest[2000], file[400];
    RunDir d;

    (void)state;
    EXPECT(dg_rundir_open(&comm, &d, "", &stored) == DG_EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    EXPECT(dg_rundir_open(&comm, &d, longest, &stored) == DG_EINVAL);
    snprintf(file, sizeof file, "%s/file", folder);
    if (comm.rank == 0)
        EXPECT(dg_file_write(file, "x", 1) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(dg_rundir_open(&comm, &d, file, &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, file) != NULL);
    EXPECT(dg_last_error()->rank == 0);
    EXPECT(dg_rundir_open(&comm, &d, "/proc/none/run", &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/proc/none") != NULL);
    VERDICT();
}

static void test_write_replaces_whole_or_not(void **state)
{
    char path[400], *text = NULL;
    size_t bytes = 0;

    (void)state;
    snprintf(path, sizeof path, "%s/file.%d", folder, comm.rank);
    EXPECT(dg_file_write(path, "old", 3) == DG_OK);
    EXPECT(dg_file_write(path, "newer", 5) == DG_OK);
    EXPECT(!dg_file_read(path, &text, &bytes) && bytes == 5);
    EXPECT(text && strcmp(text, "newer") == 0);
    free(text);
    EXPECT(dg_file_read("/nowhere/x", &text, &bytes) == DG_EIO);
    EXPECT(dg_file_read(folder, &text, &bytes) == DG_EIO);
    EXPECT(dg_file_write("/nowhere/x", "x", 1) == DG_EIO);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_config_comes_back, start, end),
    cmocka_unit_test_setup_teardown(test_a_second_run_is_refused, start, end),
    cmocka_unit_test_setup_teardown(test_bad_folders_are_named, start, end),
    cmocka_unit_test_setup_teardown(test_write_replaces_whole_or_not, start,
                                    end),
};

MPI_MAIN(mpi_rundir, tests)
