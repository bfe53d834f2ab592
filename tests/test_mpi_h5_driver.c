#include "mpi_test.h"
#include "base/error.h"
#include "store/h5.h"

#include <fcntl.h>
#include <hdf5.h>
#include <sys/file.h>
#include <unistd.h>

/* Files of HDF5 as file systems meet them. */

enum { SETS = 8, LONG = 1300 };

static char folder[256], path[300];
static const float v[LONG];
static const FileInfo info = { .program = "test 1", .config = "", .seed = 5 };

static int start(void **state)
{
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/file.h5", folder);
    return 0;
}

static int end(void **state)
{
    (void)state;
    drop_folder(folder);
    return 0;
}

/* Datasets v0, v1 ... that end within a page. */
static int write_sets(int num)
{
    char name[8];
    const H5Item item = { .name = name,
                          .type = DG_H5_F32,
                          .num_dims = 1,
                          .dims = { LONG },
                          .data = v,
                          .units = "1",
                          .long_name = "numbers of the test",
                          .axes = "item" };
    H5File *f;
    int err = dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &info, 0);

    if (err)
        return err;
    for (int i = 0; i < num && !err; i++) {
        snprintf(name, sizeof name, "v%d", i);
        err = dg_h5_write(f, &item);
    }
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
    return err;
}

/* As h5py holds a file that it may write, and as file systems without locks
 * answer. */
static void test_locks_do_not_matter(void **state)
{
    H5File *f = NULL;
    int fd;

    (void)state;
    EXPECT(write_sets(1) == DG_OK);
    fd = open(path, O_RDWR);
    if (comm.rank == 0)
        EXPECT(flock(fd, LOCK_EX | LOCK_NB) == 0);
    dg_comm_barrier(&comm);
    EXPECT(dg_h5_open(&f, path, NULL, 0) == DG_OK);
    dg_h5_close(f);
    dg_comm_barrier(&comm);
    close(fd);
    VERDICT();
}

/* Page by page, a host's cache may write back more than was changed there. */
static void test_metadata_keep_off_the_pages_of_data(void **state)
{
    haddr_t last[SETS], head[SETS];
    char name[8];

    (void)state;
    EXPECT(write_sets(SETS) == DG_OK);
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int i = 0; i < SETS; i++) {
        snprintf(name, sizeof name, "v%d", i);
        const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
        H5O_info_t about;

        EXPECT(H5Oget_info(set, &about) >= 0);
        last[i] = H5Dget_offset(set) + sizeof v - 1;
        head[i] = about.addr;
        H5Dclose(set);
    }
    H5Fclose(file);
    for (int i = 0; i < SETS; i++)
        for (int j = 0; j < SETS; j++)
            EXPECT(last[i] / 4096 != head[j] / 4096 &&
                   (last[i] - sizeof v + 1) / 4096 != head[j] / 4096);
    dg_comm_barrier(&comm);
    VERDICT();
}

/* What is the same in two files is so byte for byte: only the attribute date
 * knows when. */
static void test_nothing_notes_its_time(void **state)
{
    static const char *const names[] = { "/", "notes", "group", "group/v" };
    const H5Item item = { .name = "group/v",
                          .type = DG_H5_F32,
                          .data = v,
                          .units = "1",
                          .long_name = "a number",
                          .axes = "none" };
    H5File *f = NULL;
    H5O_info_t about;

    (void)state;
    EXPECT(!dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &info, 0));
    EXPECT(!dg_h5_write(f, &item));
    EXPECT(!dg_h5_put_text(f, "notes", "why", "because"));
    EXPECT(!dg_h5_commit(f));
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        EXPECT(H5Oget_info_by_name(file, names[i], &about, H5P_DEFAULT) >= 0);
        EXPECT(about.mtime == 0 && about.ctime == 0 && about.btime == 0);
    }
    H5Fclose(file);
    dg_comm_barrier(&comm);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_locks_do_not_matter, start, end),
    cmocka_unit_test_setup_teardown(test_metadata_keep_off_the_pages_of_data,
                                    start, end),
    cmocka_unit_test_setup_teardown(test_nothing_notes_its_time, start, end),
};

MPI_MAIN(mpi_h5_driver, tests)
