#include "mpi_test.h"
#include "base/error.h"
#include "base/out_file.h"
#include "store/file.h"
#include "store/rundir.h"

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
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored) && stored == NULL);
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
    dg_rundir_close(&d);
    dg_comm_barrier(&comm);
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored));
    dg_rundir_close(&d);
    EXPECT(stored && strcmp(stored, "a = 1;\n") == 0);
    EXPECT(stat(left, &st) != 0 && stat(picture, &st) != 0);
    free(stored);
    VERDICT();
}

static void test_bad_folders_are_named(void **state)
{
    char *stored = NULL, longest[2000], file[400];
    RunDir d;

    (void)state;
    EXPECT(dg_rundir_open(&comm, &d, "", NULL, &stored) == DG_EINVAL);
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    EXPECT(dg_rundir_open(&comm, &d, longest, NULL, &stored) == DG_EINVAL);
    snprintf(file, sizeof file, "%s/file", folder);
    if (comm.rank == 0)
        EXPECT(dg_file_write(file, "x", 1) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(dg_rundir_open(&comm, &d, file, NULL, &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, file) != NULL);
    EXPECT(dg_last_error()->rank == 0);
    EXPECT(dg_rundir_open(&comm, &d, "/proc/none/run", NULL, &stored) ==
           DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/proc/none") != NULL);
    EXPECT(dg_rundir_look(&comm, &d, file, &stored) == DG_EIO);
    strcat(file, "/below");
    EXPECT(dg_rundir_look(&comm, &d, file, &stored) == DG_EIO);
    VERDICT();
}

static void test_reason_is_the_folders_own(void **state)
{
    char *stored = NULL;
    RunDir d;

    (void)state;
    /* denied there, whoever asks; what is looked for next is not there */
    EXPECT(dg_rundir_open(&comm, &d, "/sys/none/run", NULL, &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/sys/none: ") != NULL);
    EXPECT(strstr(dg_last_error()->text, "No such file") == NULL);
    VERDICT();
}

static void test_look_makes_nothing(void **state)
{
    char *stored = NULL, top[400];
    struct stat st;
    RunDir d;

    (void)state;
    snprintf(top, sizeof top, "%s/a", folder);
    EXPECT(!dg_rundir_look(&comm, &d, root, &stored) && stored == NULL);
    EXPECT(stat(top, &st) != 0);
    dg_comm_barrier(&comm);
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored) && stored == NULL);
    EXPECT(!dg_rundir_write_config(&comm, &d, "a = 2;\n"));
    dg_rundir_close(&d);
    EXPECT(!dg_rundir_look(&comm, &d, root, &stored));
    EXPECT(stored && strcmp(stored, "a = 2;\n") == 0);
    free(stored);
    VERDICT();
}

static int leave(void)
{
    static int looks;

    return ++looks > 2;
}

static void test_a_folder_has_one_run(void **state)
{
    char *stored = NULL;
    RunDir d, other;

    (void)state;
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored) && stored == NULL);
    EXPECT(!dg_rundir_names(&other, root));
    if (comm.rank == 0) {
        EXPECT(dg_rundir_lock(&other, &(RunWait) { 0.1, NULL }) == DG_EBUSY);
        EXPECT(strstr(dg_last_error()->text, d.root) != NULL);
        EXPECT(strstr(dg_last_error()->text, "another run") != NULL);
        /* who is asked to stop meanwhile does not wait */
        EXPECT(dg_rundir_lock(&other, &(RunWait) { 1e9, leave }) == DG_EBUSY);
    }
    dg_rundir_close(&d);
    if (comm.rank == 0)
        EXPECT(dg_rundir_lock(&other, NULL) == DG_OK && other.lock > 2);
    dg_rundir_close(&other);
    EXPECT(other.lock == 0);
    VERDICT();
}

/* Nobody goes on without a lock that could be had. */
static void test_no_lock_no_run(void **state)
{
    char *stored = NULL, log[400], probe[400];
    struct stat st;
    RunDir d;

    (void)state;
    snprintf(log, sizeof log, "%s/a/b/run/log.txt", folder);
    snprintf(probe, sizeof probe, "%s/a/b/run/probe.tmp", folder);
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored));
    dg_rundir_close(&d);
    if (comm.rank == 0) /* it cannot be opened to write */
        EXPECT(unlink(log) == 0 && mkdir(log, 0777) == 0);
    dg_comm_barrier(&comm);
    EXPECT(dg_rundir_open(&comm, &d, root, NULL, &stored) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "log.txt: cannot be locked") != NULL);
    EXPECT(stat(probe, &st) != 0 && stat(log, &st) == 0);
    VERDICT();
}

/* A report that somebody else writes there while a run begins. */
static void test_what_is_being_written_stays(void **state)
{
    char *stored = NULL, report[DG_RUNDIR_PATH + 32], left[DG_RUNDIR_PATH + 32];
    struct stat st;
    OutFile *f = NULL;
    RunDir d;

    (void)state;
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored));
    dg_rundir_close(&d);
    snprintf(report, sizeof report, "%s/report.html", d.root);
    snprintf(left, sizeof left, "%s/other.html.tmp", d.root);
    if (comm.rank == 0) {
        EXPECT(dg_file_write(left, "x", 1) == DG_OK);
        EXPECT(dg_out_open(&f, report) == DG_OK);
    }
    dg_comm_barrier(&comm);
    EXPECT(!dg_rundir_open(&comm, &d, root, NULL, &stored));
    dg_rundir_close(&d);
    EXPECT(stat(left, &st) != 0);
    if (comm.rank == 0)
        EXPECT(dg_out_write(f, "x", 1) == DG_OK && dg_out_commit(f) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(stat(report, &st) == 0);
    free(stored);
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
    cmocka_unit_test_setup_teardown(test_bad_folders_are_named, start, end),
    cmocka_unit_test_setup_teardown(test_reason_is_the_folders_own, start, end),
    cmocka_unit_test_setup_teardown(test_look_makes_nothing, start, end),
    cmocka_unit_test_setup_teardown(test_a_folder_has_one_run, start, end),
    cmocka_unit_test_setup_teardown(test_no_lock_no_run, start, end),
    cmocka_unit_test_setup_teardown(test_what_is_being_written_stays, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_write_replaces_whole_or_not, start,
                                    end),
};

MPI_MAIN(mpi_rundir, tests)
