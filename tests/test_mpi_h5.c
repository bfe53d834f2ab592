#define _GNU_SOURCE
#include "mpi_test.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/file.h"
#include "store/h5.h"

#include <hdf5.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ITEMS = 7, STEPS = 3 };

static char folder[256], path[300], tmp[310];

static const FileInfo info = { .program = "test 1",
                               .git_commit = "abc",
                               .command = "test --run",
                               .config = "seed = 5;\n# \xc3\xa9\n",
                               .seed = 5 };

static int start(void **state)
{
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/file.h5", folder);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    return 0;
}

static int end(void **state)
{
    (void)state;
    drop_folder(folder);
    return 0;
}

static int there(const char *name)
{
    struct stat st;

    return stat(name, &st) == 0;
}

static int says(const char *word)
{
    const int yes = strstr(dg_last_error()->text, word) != NULL;

    if (!yes)
        fprintf(stderr, "rank %d said: %s\n", comm.rank, dg_last_error()->text);
    return yes;
}

static H5Item item(const char *name, H5Type type, const void *data)
{
    return (H5Item) { .name = name,
                      .type = type,
                      .num_dims = 2,
                      .dims = { ITEMS, STEPS },
                      .data = data,
                      .units = "1",
                      .long_name = "numbers of the test",
                      .axes = "item, step" };
}

/* Writes one file with every kind of dataset. */
static int write_file(int shared, const char *units)
{
    float f32[ITEMS * STEPS];
    double f64[ITEMS * STEPS];
    int64_t i64[ITEMS * STEPS];
    int32_t i32[ITEMS * STEPS];
    uint64_t u64[ITEMS * STEPS];
    uint16_t f16[ITEMS * STEPS];
    uint8_t u8[ITEMS * STEPS];
    const char *texts[] = { "",     "one", "two words",    "\xc3\xa9t\xc3\xa9",
                            "four", "5",   "a longer text" };
    const void *data[] = { f16, f16, f32, f64, u8, i32, i64, u64, texts };
    const char *names[] = { "f16", "bf16", "f32", "f64",        "u8",
                            "i32", "i64",  "u64", "group/texts" };
    H5File *f;
    int64_t first, num;
    int err = dg_h5_create(&f, &comm, path, "dancegrpo test", 3, &info, 4096);

    if (err)
        return err;
    dg_share_range(ITEMS, comm.rank, comm.size, &first, &num);
    for (int i = 0; i < ITEMS * STEPS; i++) {
        const int at = i + (shared ? (int)first * STEPS : 0);

        f32[i] = (float)at * 0.5F;
        f64[i] = at / 3.0;
        i64[i] = -at - ((int64_t)1 << 40);
        i32[i] = -at;
        u64[i] = (uint64_t)at << 50;
        f16[i] = (uint16_t)(0x3c00 + at);
        u8[i] = (uint8_t)(at * 10);
    }
    for (int t = 0; t <= DG_H5_TEXT && !err; t++) {
        H5Item d = item(names[t], (H5Type)t, data[t]);

        d.shared = shared;
        d.first = first;
        d.num = num;
        d.units = units;
        if (t == DG_H5_TEXT) {
            d.num_dims = 1;
            d.data = texts + (shared ? first : 0);
        }
        err = dg_h5_write(f, &d);
    }
    if (!err)
        err = dg_h5_put_f64(f, "f64", "scale", 0.1);
    if (!err)
        err = dg_h5_put_text(f, "notes", "why", "because");
    if (err)
        dg_h5_abandon(f);
    else
        err = dg_h5_commit(f);
    return err;
}

/* Number i of a dataset, as HDF5 itself understands its type. */
static double as_numbers(const char *name, int i)
{
    const hid_t id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = H5Dopen2(id, name, H5P_DEFAULT);
    double v[ITEMS * STEPS] = { 0 };

    EXPECT(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >=
           0);
    H5Dclose(set);
    H5Fclose(id);
    return v[i];
}

static void test_all_types_come_back(void **state)
{
    const int64_t dims[] = { ITEMS, STEPS }, any[] = { -1, STEPS };
    float f32[ITEMS * STEPS];
    int64_t i64[ITEMS * STEPS], num = 0, seed = 0;
    uint64_t u64[ITEMS * STEPS];
    uint16_t f16[ITEMS * STEPS], bf16[ITEMS * STEPS];
    double f64[ITEMS * STEPS], scale = 0;
    uint8_t u8[ITEMS * STEPS];
    int32_t i32[ITEMS * STEPS];
    char **texts = NULL, *config = NULL, *why = NULL;
    H5File *f = NULL;

    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        EXPECT(write_file(shared, "nat") == DG_OK && !there(tmp));
        EXPECT(dg_h5_open(&f, path, "dancegrpo test", 3) == DG_OK);
        EXPECT(!dg_h5_read(f, "f32", DG_H5_F32, 2, dims, f32));
        EXPECT(!dg_h5_read(f, "f64", DG_H5_F64, 2, dims, f64));
        EXPECT(!dg_h5_read(f, "f16", DG_H5_F16, 2, any, f16));
        EXPECT(!dg_h5_read(f, "bf16", DG_H5_BF16, 2, dims, bf16));
        EXPECT(dg_h5_read(f, "bf16", DG_H5_F16, 2, dims, bf16) == DG_EFORMAT);
        EXPECT(!dg_h5_read(f, "i64", DG_H5_I64, 2, dims, i64));
        EXPECT(!dg_h5_read(f, "i32", DG_H5_I32, 2, dims, i32));
        EXPECT(!dg_h5_read(f, "u64", DG_H5_U64, 2, dims, u64));
        EXPECT(!dg_h5_read(f, "u8", DG_H5_U8, 2, dims, u8));
        for (int i = 0; i < ITEMS * STEPS; i++) {
            EXPECT(f32[i] == (float)i * 0.5F && f64[i] == i / 3.0);
            EXPECT(f16[i] == 0x3c00 + i && bf16[i] == 0x3c00 + i);
            EXPECT(u8[i] == i * 10);
            EXPECT(i64[i] == -i - ((int64_t)1 << 40) && i32[i] == -i);
            EXPECT(u64[i] == (uint64_t)i << 50);
        }
        EXPECT(!dg_h5_read_rows(f, "f32", DG_H5_F32, 2, dims, 2, 3, f32));
        EXPECT(f32[0] == 3.0F && f32[8] == 7.0F);
        EXPECT(!dg_h5_read_texts(f, "group/texts", &texts, &num) &&
               num == ITEMS);
        EXPECT(strcmp(texts[0], "") == 0 && !strcmp(texts[2], "two words"));
        EXPECT(strcmp(texts[3], "\xc3\xa9t\xc3\xa9") == 0);
        EXPECT(strcmp(texts[6], "a longer text") == 0);
        EXPECT(!dg_h5_get_text(f, NULL, "config", &config));
        EXPECT(config && strcmp(config, info.config) == 0);
        EXPECT(!dg_h5_get_text(f, "notes", "why", &why));
        EXPECT(why && strcmp(why, "because") == 0);
        EXPECT(!dg_h5_get_i64(f, NULL, "seed", &seed) && seed == 5);
        EXPECT(!dg_h5_get_f64(f, "f64", "scale", &scale) && scale == 0.1);
        dg_h5_free_texts(texts);
        free(config);
        free(why);
        dg_h5_close(f);
        if (comm.rank == 0) /* as h5py and h5dump read them */
            EXPECT(as_numbers("bf16", 1) == 0x1p-7 * (1 + 1 / 128.0) &&
                   as_numbers("f16", 1) == 1 + 1 / 1024.0);
        dg_comm_barrier(&comm);
    }
    VERDICT();
}

/* Ranks before and behind the items hold nothing. */
static void test_uneven_shares_are_placed(void **state)
{
    const int64_t num = comm.rank == comm.size - 1 ? 5 : 0;
    const int64_t dims[] = { 5 };
    float v[5] = { 1, 2, 3, 4, 5 };
    H5Item d = { .name = "v",
                 .type = DG_H5_F32,
                 .num_dims = 1,
                 .dims = { 5 },
                 .shared = 1,
                 .num = num,
                 .data = v,
                 .units = "1",
                 .long_name = "v",
                 .axes = "item" };
    H5Item none = d, wrong = d;
    H5File *f;

    (void)state;
    none.name = "none";
    none.dims[0] = none.num = 0;
    wrong.name = "wrong";
    wrong.first = comm.rank == comm.size - 1;
    EXPECT(!dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &info, 0));
    EXPECT(dg_h5_write(f, &d) == DG_OK);
    EXPECT(dg_h5_write(f, &none) == DG_OK);
    EXPECT(dg_h5_commit(f) == DG_OK);
    EXPECT(!dg_h5_open(&f, path, NULL, 0));
    memset(v, 0, sizeof v);
    EXPECT(!dg_h5_read(f, "v", DG_H5_F32, 1, dims, v) && v[4] == 5);
    EXPECT(!dg_h5_read(f, "none", DG_H5_F32, 1, none.dims, v));
    dg_h5_close(f);
    dg_comm_barrier(&comm);
    EXPECT(!dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &info, 0));
    EXPECT(dg_h5_write(f, &wrong) == DG_EINVAL && says("wrong"));
    dg_h5_abandon(f);
    EXPECT(!there(tmp) && there(path));
    VERDICT();
}

static void test_units_are_required(void **state)
{
    (void)state;
    EXPECT(write_file(0, "") == DG_EINVAL);
    EXPECT(says("f16") && says("units"));
    EXPECT(!there(path) && !there(tmp));
    VERDICT();
}

static void test_long_config_is_kept(void **state)
{
    const size_t bytes = 300000;
    char *text = malloc(bytes + 1), *back = NULL;
    FileInfo big = info;
    H5File *f;

    (void)state;
    memset(text, 'c', bytes);
    text[bytes] = '\0';
    big.config = text;
    EXPECT(!dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &big, 0));
    EXPECT(!dg_h5_commit(f));
    EXPECT(!dg_h5_open(&f, path, NULL, 0));
    EXPECT(!dg_h5_get_text(f, NULL, "config", &back));
    EXPECT(back && strcmp(text, back) == 0);
    dg_h5_close(f);
    free(text);
    free(back);
    VERDICT();
}

static void test_reader_names_what_is_wrong(void **state)
{
    const int64_t dims[] = { ITEMS, STEPS + 1 };
    float v[ITEMS * (STEPS + 1)];
    int64_t n;
    H5File *f = NULL;

    (void)state;
    EXPECT(dg_h5_open(&f, path, NULL, 0) == DG_EIO && says("No such file"));
    EXPECT(write_file(0, "1") == DG_OK);
    EXPECT(dg_h5_open(&f, path, "dancegrpo checkpoint", 3) == DG_EFORMAT);
    EXPECT(says("dancegrpo test") && says("dancegrpo checkpoint"));
    EXPECT(dg_h5_open(&f, path, "dancegrpo test", 2) == DG_EFORMAT);
    EXPECT(says("version 3") && says("versions up to 2") && says(path));
    EXPECT(!dg_h5_open(&f, path, "dancegrpo test", 4)); /* of before */
    dg_h5_close(f);
    EXPECT(!dg_h5_open(&f, path, "dancegrpo test", 3));
    EXPECT(dg_h5_read(f, "f33", DG_H5_F32, 2, dims, v) == DG_EFORMAT);
    EXPECT(says("f33 is missing") && says(path));
    EXPECT(dg_h5_read(f, "f32", DG_H5_F32, 2, dims, v) == DG_EFORMAT);
    EXPECT(says("f32 is float32 [7, 3]") && says("float32 [7, 4]"));
    EXPECT(dg_h5_read(f, "f64", DG_H5_F32, 2, dims, v) == DG_EFORMAT);
    EXPECT(dg_h5_get_i64(f, NULL, "nothing", &n) == DG_EFORMAT);
    EXPECT(says("nothing is missing"));
    EXPECT(!dg_h5_has(f, "no/such/thing") && dg_h5_has(f, "group/texts"));
    dg_h5_close(f);
    VERDICT();
}

/* Cut at any length, the file is refused, with a message. */
static void test_cut_short_is_refused(void **state)
{
    char *whole = NULL;
    size_t bytes = 0;
    H5File *f = NULL;

    (void)state;
    EXPECT(write_file(0, "1") == DG_OK);
    if (comm.rank == 0) {
        EXPECT(dg_file_read(path, &whole, &bytes) == DG_OK);
        for (size_t n = 0; n < bytes; n += 1 + bytes / 37) {
            EXPECT(dg_file_write(path, whole, n) == DG_OK);
            EXPECT(dg_h5_open(&f, path, NULL, 0) == DG_EFORMAT);
            EXPECT(says(path));
        }
        free(whole);
    }
    VERDICT();
}

/* By HDF5 itself, as no writer of ours would. */
static void test_incomplete_is_refused(void **state)
{
    H5File *f = NULL;

    (void)state;
    EXPECT(write_file(0, "1") == DG_OK);
    if (comm.rank == 0) {
        hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        H5Adelete(id, "complete");
        H5Fclose(id);
        EXPECT(dg_h5_open(&f, path, NULL, 0) == DG_EFORMAT);
        EXPECT(says("not written to its end"));
        id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        H5Adelete(id, "format");
        H5Fclose(id);
        EXPECT(dg_h5_open(&f, path, NULL, 0) == DG_EFORMAT);
        EXPECT(says("format is missing"));
    }
    VERDICT();
}

/* In place of the dataset f32: [rows, 3] of the given layout. */
static void replace_f32(hid_t file, hsize_t rows, hid_t how)
{
    const hsize_t dims[] = { rows, STEPS };
    const hid_t space = H5Screate_simple(2, dims, NULL);

    H5Ldelete(file, "f32", H5P_DEFAULT);
    H5Dclose(H5Dcreate2(file, "f32", H5T_IEEE_F32LE, space, H5P_DEFAULT, how,
                        H5P_DEFAULT));
    H5Sclose(space);
}

static void expect_no_f32(const char *word)
{
    float v[ITEMS * STEPS];
    const int64_t any[] = { -1, STEPS };
    H5File *f = NULL;
    H5Shape s;

    EXPECT(!dg_h5_open(&f, path, NULL, 0));
    EXPECT(dg_h5_shape(f, "f32", &s) == DG_EFORMAT && says(word));
    EXPECT(dg_h5_read(f, "f32", DG_H5_F32, 2, any, v) == DG_EFORMAT);
    dg_h5_close(f);
}

/* Files that no writer of ours leaves, but that HDF5 takes. */
static void test_foreign_sets_are_refused(void **state)
{
    const hsize_t chunk[] = { 2, 2 }, huge[] = { 1 << 20, (hsize_t)1 << 43 };

    (void)state;
    EXPECT(write_file(0, "1") == DG_OK);
    for (int i = 0; i < 6 && comm.rank == 0; i++) {
        const hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        const hid_t how = H5Pcreate(H5P_DATASET_CREATE);

        if (i == 2)
            H5Pset_chunk(how, 2, chunk);
        if (i == 3)
            H5Pset_external(how, "outside", 0, H5F_UNLIMITED);
        if (i < 4)
            replace_f32(id, i < 2 ? huge[i] : ITEMS, how);
        else
            H5Ldelete(id, "f32", H5P_DEFAULT);
        if (i == 4)
            H5Lcreate_soft("/f64", id, "f32", H5P_DEFAULT, H5P_DEFAULT);
        if (i == 5)
            H5Lcreate_external("other.h5", "/f32", id, "f32", H5P_DEFAULT,
                               H5P_DEFAULT);
        H5Pclose(how);
        H5Fclose(id);
        expect_no_f32(i < 4 ? "this program never writes" : "f32 is missing");
    }
    VERDICT();
}

/* An attribute of several texts would not fit where one is read. */
static void test_attributes_are_single(void **state)
{
    const hsize_t many = 1000;
    H5File *f = NULL;
    char *text = NULL;
    int64_t n;

    (void)state;
    EXPECT(write_file(0, "1") == DG_OK);
    if (comm.rank == 0) {
        const hid_t id = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        const hid_t space = H5Screate_simple(1, &many, NULL);

        H5Aclose(
            H5Acreate2(id, "texts", H5T_C_S1, space, H5P_DEFAULT, H5P_DEFAULT));
        H5Aclose(H5Acreate2(id, "numbers", H5T_STD_I64LE, space, H5P_DEFAULT,
                            H5P_DEFAULT));
        H5Sclose(space);
        H5Fclose(id);
        EXPECT(!dg_h5_open(&f, path, NULL, 0));
        EXPECT(dg_h5_get_text(f, NULL, "texts", &text) == DG_EFORMAT);
        EXPECT(says("texts is of another type or size"));
        EXPECT(dg_h5_get_i64(f, NULL, "numbers", &n) == DG_EFORMAT);
        dg_h5_close(f);
    }
    VERDICT();
}

static void test_unwritable_folder_is_named(void **state)
{
    char none[] = "/nowhere/at/all.h5";
    H5File *f;

    (void)state;
    EXPECT(dg_h5_create(&f, &comm, none, "dancegrpo test", 1, &info, 0) ==
           DG_EIO);
    EXPECT(says("/nowhere") && says("No such file") &&
           dg_last_error()->rank == 0);
    VERDICT();
}

static int write_big(int64_t reserved)
{
    const int64_t num = 4 << 20;
    float *v = calloc((size_t)num, sizeof *v);
    H5Item d = { .name = "v",
                 .type = DG_H5_F32,
                 .num_dims = 1,
                 .dims = { num },
                 .data = v,
                 .units = "1",
                 .long_name = "v",
                 .axes = "element" };
    H5File *f;
    int err =
        dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &info, reserved);

    if (!err) {
        err = dg_h5_write(f, &d);
        if (err)
            dg_h5_abandon(f);
        else
            err = dg_h5_commit(f);
    }
    free(v);
    return err;
}

/* Two megabytes may be written, sixteen are wanted: a write fails in the
   middle, on all ranks or on the last one alone. The old file stays. */
static void test_failed_write_leaves_old_file(void **state)
{
    struct rlimit old, tight;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    tight = (struct rlimit) { 2 << 20, old.rlim_max };
    for (int alone = 0; alone < 2; alone++) {
        EXPECT(write_file(0, "1") == DG_OK);
        if (!alone || comm.rank == comm.size - 1)
            setrlimit(RLIMIT_FSIZE, &tight);
        EXPECT(write_big(0) == DG_EIO);
        EXPECT(says(path));
        setrlimit(RLIMIT_FSIZE, &old);
        EXPECT(!there(tmp));
        H5File *f = NULL;
        EXPECT(dg_h5_open(&f, path, "dancegrpo test", 3) == DG_OK);
        dg_h5_close(f);
        dg_comm_barrier(&comm);
    }
    EXPECT(write_big(0) == DG_OK); /* and all is well again */
    VERDICT();
}

/* Attributes alone, which HDF5 itself writes at the end: its failure must not
   take the program down, then or when MPI ends. */
static void test_failed_metadata_is_found(void **state)
{
    struct rlimit old, tight;
    char text[20000];
    FileInfo big = info;
    H5File *f;
    int err;

    (void)state;
    memset(text, 'c', sizeof text);
    text[sizeof text - 1] = '\0';
    big.config = text;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    tight = (struct rlimit) { 1000, old.rlim_max };
    EXPECT(!dg_h5_create(&f, &comm, path, "dancegrpo test", 1, &big, 0));
    setrlimit(RLIMIT_FSIZE, &tight);
    err = dg_h5_commit(f);
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT(err == DG_EIO && says("File too large") && says(path));
    EXPECT(!there(path) && !there(tmp));
    VERDICT();
}

/* What a run killed in the middle leaves: nothing under the final name, and
   the next writer is not disturbed by the rest. */
static void test_killed_writer_leaves_no_file(void **state)
{
    const pid_t child = comm.rank == 0 ? fork() : 1;
    int status = 0;

    (void)state;
    if (child == 0) { /* the bytes of an unfinished file, then death */
        const hid_t id =
            H5Fcreate(tmp, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);

        H5Fflush(id, H5F_SCOPE_GLOBAL);
        raise(SIGKILL);
    }
    if (comm.rank == 0)
        EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    dg_comm_barrier(&comm);
    EXPECT(there(tmp) && !there(path));
    EXPECT(write_file(1, "1") == DG_OK);
    EXPECT(!there(tmp) && there(path));
    VERDICT();
}

/* A file system of 8 MB, where the tests may mount one for all ranks. */
static void test_full_disk_is_found(void **state)
{
    int64_t mounted = 0;

    (void)state;
    if (comm.rank == 0 && comm.node_size == comm.size)
        mounted = mount("dg_test", folder, "tmpfs", 0, "size=8m") == 0;
    dg_comm_max_i64(&comm, &mounted, 1);
    if (!mounted)
        skip();
    for (int reserved = 0; reserved < 2; reserved++) {
        EXPECT(write_file(0, "1") == DG_OK);
        EXPECT(write_big(reserved ? 16 << 20 : 0) == DG_EIO);
        EXPECT(says(path));
        if (reserved)
            EXPECT(says("No space left"));
        EXPECT(!there(tmp) && there(path));
        dg_comm_barrier(&comm);
        EXPECT(write_file(1, "1") == DG_OK); /* room is given back */
    }
    dg_comm_barrier(&comm);
    if (comm.rank == 0)
        umount2(folder, MNT_DETACH);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_all_types_come_back, start, end),
    cmocka_unit_test_setup_teardown(test_uneven_shares_are_placed, start, end),
    cmocka_unit_test_setup_teardown(test_units_are_required, start, end),
    cmocka_unit_test_setup_teardown(test_long_config_is_kept, start, end),
    cmocka_unit_test_setup_teardown(test_reader_names_what_is_wrong, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_cut_short_is_refused, start, end),
    cmocka_unit_test_setup_teardown(test_incomplete_is_refused, start, end),
    cmocka_unit_test_setup_teardown(test_foreign_sets_are_refused, start, end),
    cmocka_unit_test_setup_teardown(test_attributes_are_single, start, end),
    cmocka_unit_test_setup_teardown(test_unwritable_folder_is_named, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_failed_write_leaves_old_file, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_failed_metadata_is_found, start, end),
    cmocka_unit_test_setup_teardown(test_killed_writer_leaves_no_file, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_full_disk_is_found, start, end),
};

MPI_MAIN(mpi_h5, tests)
