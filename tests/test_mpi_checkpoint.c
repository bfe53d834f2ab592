#include "mpi_test.h"
#include "base/error.h"
#include "base/log.h"
#include "base/piece_digest.h"
#include "store/checkpoint.h"
#include "store/file.h"
#include "store/inspect.h"

#include <hdf5.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { NUM = 700000 }; /* beyond the size that rank 0 writes alone */

static char folder[256], path[300];
static float *weights, *moment;
static const FileInfo info = { .program = "test",
                               .git_commit = "abc",
                               .command = "test",
                               .config = "a = 1;\n",
                               .seed = 1,
                               .arithmetic = "kernels" };
static const CheckpointParam params[] = {
    { "block.0.weight", 0, 2, { 700, 990 } },
    { "block.0.bias", 693008, 1, { 6992 } },
};
static CheckpointArray arrays[2];
static CheckpointCounter counters[2];
static Checkpoint k;

static void fill(float *v, int salt)
{
    for (int i = 0; i < NUM; i++)
        v[i] = (float)((i * 31 + salt * 7) % 1000) / 3.0F;
}

static int start(void **state)
{
    (void)state;
    dg_log_setup(comm.rank, DG_LOG_ERROR); /* warnings are counted */
    make_folder(folder);
    weights = malloc(NUM * sizeof *weights);
    moment = malloc(NUM * sizeof *moment);
    arrays[0] = (CheckpointArray) { .name = "weights",
                                    .long_name = "master weights",
                                    .data = weights,
                                    .num = NUM };
    arrays[1] = (CheckpointArray) { .name = "adam_m",
                                    .long_name = "first moment",
                                    .data = moment,
                                    .num = NUM };
    counters[0] = (CheckpointCounter) { "optimizer_step", 0 };
    counters[1] = (CheckpointCounter) { "prompt_cursor", 0 };
    k = (Checkpoint) { .arrays = arrays,
                       .num_arrays = 2,
                       .params = params,
                       .num_params = 2,
                       .counters = counters,
                       .num_counters = 2 };
    return 0;
}

static int end(void **state)
{
    (void)state;
    drop_folder(folder);
    free(weights);
    free(moment);
    return 0;
}

static int save(int64_t iteration, int64_t keep)
{
    fill(weights, (int)iteration);
    fill(moment, -(int)iteration);
    counters[0].value = 10 * iteration;
    counters[1].value = -iteration;
    k.iteration = iteration;
    return dg_checkpoint_write(&comm, folder, &k, &info, keep);
}

static void forget(void)
{
    memset(weights, 0, NUM * sizeof *weights);
    memset(moment, 0, NUM * sizeof *moment);
    counters[0].value = counters[1].value = 99;
    k.iteration = 99;
}

/* Content of the iteration, on this rank. */
static int holds(int64_t iteration)
{
    float *want = malloc(NUM * sizeof *want);
    int good = k.iteration == iteration &&
               counters[0].value == 10 * iteration &&
               counters[1].value == -iteration;

    fill(want, (int)iteration);
    good = good && memcmp(want, weights, NUM * sizeof *want) == 0;
    fill(want, -(int)iteration);
    good = good && memcmp(want, moment, NUM * sizeof *want) == 0;
    free(want);
    return good;
}

static int says(const char *word)
{
    const int yes = strstr(dg_last_error()->text, word) != NULL;

    if (!yes)
        fprintf(stderr, "rank %d said: %s\n", comm.rank, dg_last_error()->text);
    return yes;
}

/* Changes bytes behind the back of HDF5, on rank 0. */
static void damage(int64_t iteration, long at, int cut)
{
    char *bytes = NULL;
    size_t num = 0;

    dg_comm_barrier(&comm);
    dg_checkpoint_path(path, sizeof path, folder, iteration);
    if (comm.rank == 0 && dg_file_read(path, &bytes, &num) == DG_OK) {
        bytes[at < 0 ? (long)num + at : at] ^= 1;
        EXPECT(dg_file_write(path, bytes, cut ? num / 2 : num) == DG_OK);
        free(bytes);
    }
    dg_comm_barrier(&comm);
}

static void test_resume_gives_the_newest(void **state)
{
    int found = 1;

    (void)state;
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(!found);
    EXPECT(save(3, 0) == DG_OK && save(20, 0) == DG_OK);
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(found && holds(20));
    dg_checkpoint_path(path, sizeof path, folder, 3);
    forget();
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK && holds(3));
    VERDICT();
}

/* Other kernels give other bits, which is told; another build is a hint. */
static void test_resume_tells_other_kernels(void **state)
{
    FileInfo now = info;
    int found;

    (void)state;
    EXPECT(save(3, 0) == DG_OK);
    for (int i = 0; i < 3; i++) {
        const long warnings = dg_log_count(DG_LOG_WARN);

        now.git_commit = i > 0 ? "def" : "abc";
        now.arithmetic = i > 1 ? "other kernels" : "kernels";
        EXPECT(dg_checkpoint_resume(&comm, folder, &k, &now, &found) == DG_OK);
        EXPECT(found && holds(3));
        if (comm.rank == 0)
            EXPECT(dg_log_count(DG_LOG_WARN) == warnings + (i > 1));
    }
    VERDICT();
}

/* The same digest whatever the number of ranks: a constant of this test. */
static void test_data_do_not_depend_on_ranks(void **state)
{
    char digest[DG_SHA256_HEX] = "", *stored = NULL;
    float *v = malloc(NUM * sizeof *v);
    const int64_t dims[] = { NUM };
    H5File *f = NULL;

    (void)state;
    EXPECT(save(5, 0) == DG_OK);
    dg_checkpoint_path(path, sizeof path, folder, 5);
    EXPECT(dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, 2) == DG_OK);
    EXPECT(!dg_h5_read(f, "arrays/weights", DG_H5_F32, 1, dims, v));
    EXPECT(memcmp(v, weights, NUM * sizeof *v) == 0);
    EXPECT(!dg_h5_get_text(f, "arrays/weights", "sha256_pieces", &stored));
    EXPECT(!dg_piece_digest(digest, v, NUM * sizeof *v));
    EXPECT(stored && strcmp(digest, stored) == 0);
    dg_h5_close(f);
    free(stored);
    free(v);
    VERDICT();
}

/* Ranks that read their ranges themselves would open another file. */
static void test_renamed_is_passed_over(void **state)
{
    const long warnings = dg_log_count(DG_LOG_WARN);
    char other[sizeof path];
    int found = 0;

    (void)state;
    EXPECT(!save(1, 0) && !save(2, 0));
    dg_checkpoint_path(path, sizeof path, folder, 1);
    dg_checkpoint_path(other, sizeof other, folder, 9);
    if (comm.rank == 0)
        EXPECT(rename(path, other) == 0);
    dg_comm_barrier(&comm);
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(found && holds(2));
    if (comm.rank == 0)
        EXPECT(dg_log_count(DG_LOG_WARN) == warnings + 1);
    VERDICT();
}

static void test_damaged_is_passed_over(void **state)
{
    const long warnings = dg_log_count(DG_LOG_WARN);
    int found = 0;

    (void)state;
    EXPECT(!save(1, 0) && !save(2, 0) && !save(3, 0));
    damage(3, 200000, 0); /* one bit of the weights */
    damage(2, 0, 1);      /* cut short */
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(found && holds(1));
    if (comm.rank == 0)
        EXPECT(dg_log_count(DG_LOG_WARN) == warnings + 2);
    dg_checkpoint_path(path, sizeof path, folder, 3);
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("arrays/weights: SHA-256") && says(path));
    damage(1, 0, 1);
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) ==
           DG_EFORMAT);
    EXPECT(says("none of 3"));
    VERDICT();
}

/* This rank's rows of the moment, in blocks of unequal length: the last rank
 * may have none. */
static void share_moment(int64_t most)
{
    const int64_t first = comm.rank * most < NUM ? comm.rank * most : NUM;
    const int64_t left = NUM - first;

    arrays[1].shared = 1;
    arrays[1].first = first;
    arrays[1].held = left < most && comm.rank < comm.size - 1 ? left
                     : comm.rank < comm.size - 1              ? most
                                                              : left;
    arrays[1].data = moment + first;
}

static void stop_sharing(void)
{
    arrays[1].shared = 0;
    arrays[1].first = arrays[1].held = 0;
    arrays[1].data = moment;
}

/* What the ranks hold in ranges is the same file, and comes back whole, or in
 * other ranges; of a damaged one all ranks are told. */
static void test_ranges_are_the_whole_array(void **state)
{
    int found = 0;

    (void)state;
    share_moment(NUM / comm.size + 5000);
    EXPECT(save(8, 0) == DG_OK);
    stop_sharing();
    dg_checkpoint_path(path, sizeof path, folder, 8);
    forget();
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK && holds(8));
    for (int64_t most = NUM / 2; most <= NUM; most += NUM / 2) {
        forget();
        share_moment(most);
        EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
        /* the others' ranges are as they were: fill them in */
        for (int64_t i = 0; i < NUM; i++)
            if (i < arrays[1].first || i >= arrays[1].first + arrays[1].held) {
                EXPECT(moment[i] == 0);
                moment[i] = (float)((i * 31 - 8 * 7) % 1000) / 3.0F;
            }
        EXPECT(holds(8));
        stop_sharing();
    }
    share_moment(NUM / 2);
    EXPECT(save(9, 0) == DG_OK);
    damage(9, -(long)sizeof(float) * NUM / 2, 0);
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK &&
           found);
    EXPECT(k.iteration == 8);
    stop_sharing();
    VERDICT();
}

/* A place that only copies reach: of the range that is held here, at most a
 * few megabytes at once. */
typedef struct Apart {
    float *at; /* the first that is held */
    int64_t held, most;
    int fails;
} Apart;

static int get(void *user, void *to, int64_t first, int64_t num)
{
    Apart *a = user;

    EXPECT(first >= 0 && num > 0 && first + num <= a->held);
    a->most = num > a->most ? num : a->most;
    memcpy(to, a->at + first, sizeof *a->at * (size_t)num);
    return a->fails ? dg_fail(DG_EDEVICE, "the place apart") : DG_OK;
}

static int put(void *user, const void *from, int64_t first, int64_t num)
{
    Apart *a = user;

    EXPECT(first >= 0 && num > 0 && first + num <= a->held);
    a->most = num > a->most ? num : a->most;
    memcpy(a->at + first, from, sizeof *a->at * (size_t)num);
    return DG_OK;
}

/* the moment, as it is held, to be reached through a */
static void keep_apart(Apart *a)
{
    *a = (Apart) { arrays[1].data,
                   arrays[1].shared ? arrays[1].held : arrays[1].num, 0, 0 };
    arrays[1].data = NULL;
    arrays[1].get = get;
    arrays[1].put = put;
    arrays[1].user = a;
}

static void bring_back(void)
{
    arrays[1].get = NULL;
    arrays[1].put = NULL;
    stop_sharing();
}

/* What is fetched in pieces is the same file; it comes back the same way, or
 * whole; what is whole comes back in pieces. */
static void check_apart(int shared, int first)
{
    Apart a;
    int found = 0;

    if (shared)
        share_moment(NUM / comm.size + 5000);
    keep_apart(&a);
    EXPECT(save(first, 0) == DG_OK);
    EXPECT(a.held == 0 || (a.most > 0 && a.most < NUM / 2));
    bring_back();
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK &&
           found);
    EXPECT(holds(first));
    EXPECT(save(first + 1, 0) == DG_OK);
    forget();
    if (shared)
        share_moment(NUM / comm.size + 5000);
    keep_apart(&a);
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK &&
           found);
    EXPECT(a.most < NUM / 2);
    for (int64_t i = 0; i < a.held; i++)
        EXPECT(a.at[i] ==
               (float)(((arrays[1].first + i) * 31 - (first + 1) * 7) % 1000) /
                   3.0F);
    a.fails = comm.rank == comm.size - 1 && a.held > 0;
    /* one rank's trouble is all ranks' */
    EXPECT(save(first + 2, 0) == DG_EDEVICE && says("the place apart"));
    bring_back();
}

static void test_what_lies_apart_goes_in_pieces(void **state)
{
    (void)state;
    check_apart(0, 4);
    check_apart(1, 6);
    VERDICT();
}

/* The digest stored with the moment; to free. */
static char *stored_digest(void)
{
    char *text = NULL;
    H5File *f;

    if (dg_h5_open(&f, path, DG_CHECKPOINT_FORMAT, 2) != DG_OK)
        return NULL;
    EXPECT(!dg_h5_get_text(f, "arrays/adam_m", DG_CHECKPOINT_PIECES, &text));
    dg_h5_close(f);
    return text;
}

/* What is held here of the moment is the iteration's, and the rest untouched. */
static int moment_is(int64_t iteration)
{
    const int64_t first = arrays[1].shared ? arrays[1].first : 0;
    const int64_t end = first + (arrays[1].shared ? arrays[1].held : NUM);

    for (int64_t i = 0; i < NUM; i++)
        if (moment[i] != (i >= first && i < end
                              ? (float)((i * 31 - iteration * 7) % 1000) / 3.0F
                              : 0))
            return 0;
    return 1;
}

/* Wherever ranges are cut, also within a piece of the digest, of which several
 * ranks then have parts: the digest is that of all bytes in order, and all that
 * is read is checked and comes to its place. */
static void test_pieces_do_not_know_ranges(void **state)
{
    static const int64_t mosts[] = { 0, 1000, 262144, 262145, 350000 };
    char want[DG_SHA256_HEX];

    (void)state;
    fill(moment, -8);
    EXPECT(!dg_piece_digest(want, moment, NUM * sizeof *moment));
    for (size_t i = 0; i < sizeof mosts / sizeof *mosts; i++) {
        char *stored;

        share_moment(mosts[i]);
        EXPECT(save(8, 0) == DG_OK);
        dg_checkpoint_path(path, sizeof path, folder, 8);
        stored = stored_digest();
        EXPECT(stored != NULL && strcmp(stored, want) == 0);
        free(stored);
        forget();
        EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
        EXPECT(moment_is(8));
        for (int at = 1; at < 5; at += 3) { /* each piece is somebody's */
            damage(8, -(long)sizeof(float) * at * NUM / 5, 0);
            EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT &&
                   says("arrays/adam_m: SHA-256"));
            damage(8, -(long)sizeof(float) * at * NUM / 5, 0);
        }
    }
    stop_sharing();
    VERDICT();
}

/* A file of version 1: an array has one digest, of all of its bytes. */
static void save_version_1(int64_t iteration)
{
    char digest[DG_SHA256_HEX] = "";
    H5Item item = { .type = DG_H5_F32,
                    .num_dims = 1,
                    .dims = { NUM },
                    .units = "1",
                    .long_name = "an array",
                    .axes = "element" };
    H5File *f = NULL;

    fill(weights, (int)iteration);
    fill(moment, -(int)iteration);
    dg_checkpoint_path(path, sizeof path, folder, iteration);
    EXPECT(!dg_h5_create(&f, &comm, path, DG_CHECKPOINT_FORMAT, 1, &info, 0));
    EXPECT(!dg_h5_put_i64(f, NULL, "iteration", iteration));
    for (int i = 0; i < 2; i++) {
        item.name = i == 0 ? "arrays/weights" : "arrays/adam_m";
        item.data = i == 0 ? weights : moment;
        EXPECT(!dg_h5_write(f, &item));
        EXPECT(!dg_sha256_bytes(digest, item.data, NUM * sizeof(float)));
        EXPECT(!dg_h5_put_text(f, item.name, "sha256", digest));
    }
    EXPECT(!dg_h5_commit(f));
}

static void test_version_1_is_read(void **state)
{
    char got[DG_SHA256_HEX] = "", want[DG_SHA256_HEX] = "";
    float *want_weights = malloc(NUM * sizeof *want_weights);

    (void)state;
    k.num_params = k.num_counters = 0;
    for (int apart = 0; apart < 2; apart++)
        for (int shared = 0; shared < 2; shared++) {
            Apart a;

            save_version_1(7);
            EXPECT(!dg_sha256_bytes(want, weights, NUM * sizeof *weights));
            EXPECT(!dg_inspect_digest(path, got) && strcmp(got, want) == 0);
            forget();
            if (shared)
                share_moment(NUM / comm.size + 5000);
            if (apart)
                keep_apart(&a);
            EXPECT(!dg_checkpoint_read(&comm, path, &k) && k.iteration == 7);
            EXPECT(moment_is(7));
            fill(want_weights, 7);
            EXPECT(memcmp(weights, want_weights, NUM * sizeof(float)) == 0);
            bring_back();
        }
    damage(7, -(long)sizeof(float) * NUM / 2, 0);
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("arrays/adam_m: SHA-256"));
    damage(7, 200000, 0);
    if (comm.rank == 0)
        EXPECT(dg_inspect_digest(path, got) == DG_EFORMAT &&
               says("arrays/weights: SHA-256"));
    free(want_weights);
    VERDICT();
}

static uint8_t code_at(int64_t i)
{
    return (uint8_t)(i * 7 + i / 4096);
}

/* Codes of 8 bits, held whole or in ranges: all are, float32 NaN or not, a byte
 * each; they are not float32. */
static void test_codes_are_bytes(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        uint8_t *codes;

        fill(weights, 1);
        if (shared)
            share_moment(NUM / comm.size + 5000);
        arrays[1].data = codes = (uint8_t *)moment + arrays[1].first;
        arrays[1].coded = 1;
        for (int64_t i = 0; i < NUM; i++)
            ((uint8_t *)moment)[i] = code_at(i);
        EXPECT(dg_checkpoint_write(&comm, folder, &k, &info, 0) == DG_OK);
        memset(moment, 0, NUM);
        dg_checkpoint_path(path, sizeof path, folder, k.iteration);
        EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
        for (int64_t i = 0; i < (shared ? arrays[1].held : NUM); i++)
            if (codes[i] != code_at(arrays[1].first + i)) {
                EXPECT(codes[i] == code_at(arrays[1].first + i));
                break;
            }
        stop_sharing();
    }
    arrays[1].coded = 0;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("uint8 [700000]") && says("float32 [700000]"));
    VERDICT();
}

static void test_other_network_is_refused(void **state)
{
    CheckpointParam other[2] = { params[0], params[1] };
    CheckpointArray more[3] = { arrays[0], arrays[1], arrays[1] };

    (void)state;
    EXPECT(save(4, 0) == DG_OK);
    dg_checkpoint_path(path, sizeof path, folder, 4);
    other[1].dims[0] = 6993;
    k.params = other;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("block.0.bias"));
    k.params = params;
    k.num_params = 1;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("has 2 parameters") && says("has 1"));
    k.num_params = 2;
    arrays[0].num = NUM - 1;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("float32 [700000]") && says("float32 [699999]"));
    arrays[0].num = NUM;
    more[2].name = "ema";
    k.arrays = more;
    k.num_arrays = 3;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("arrays/ema is missing"));
    VERDICT();
}

static void test_keep_removes_the_oldest(void **state)
{
    int64_t *list = NULL;
    int num = 0;

    (void)state;
    for (int i = 1; i <= 4; i++)
        EXPECT(save(i, 0) == DG_OK);
    EXPECT(save(9, 0) == DG_OK);
    EXPECT(save(6, 2) == DG_OK); /* after a resume that passed over 9 */
    dg_comm_barrier(&comm);
    EXPECT(dg_checkpoint_list(folder, &list, &num) == DG_OK);
    EXPECT(num == 3 && list[0] == 4 && list[1] == 6 && list[2] == 9);
    free(list);
    VERDICT();
}

/* Half a megabyte may be written: the new one fails, the old one stays. */
static void test_full_disk_keeps_the_old(void **state)
{
    struct rlimit old, tight;
    int found = 0;

    (void)state;
    EXPECT(save(1, 1) == DG_OK);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    tight = (struct rlimit) { 1 << 19, old.rlim_max };
    setrlimit(RLIMIT_FSIZE, &tight);
    EXPECT(save(2, 1) == DG_EIO);
    setrlimit(RLIMIT_FSIZE, &old);
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(found && holds(1));
    VERDICT();
}

static void test_nan_is_not_saved(void **state)
{
    Apart a;

    (void)state;
    fill(weights, 1);
    fill(moment, 1);
    moment[17] = NAN;
    EXPECT(dg_checkpoint_write(&comm, folder, &k, &info, 0) == DG_ENUMERIC);
    EXPECT(says("adam_m[17]"));
    keep_apart(&a);
    moment[NUM - 3] = moment[17]; /* in another piece */
    moment[17] = 0;
    EXPECT(dg_checkpoint_write(&comm, folder, &k, &info, 0) == DG_ENUMERIC);
    EXPECT(says("adam_m[699997]"));
    bring_back();
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_resume_gives_the_newest, start, end),
    cmocka_unit_test_setup_teardown(test_resume_tells_other_kernels, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_data_do_not_depend_on_ranks, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_renamed_is_passed_over, start, end),
    cmocka_unit_test_setup_teardown(test_damaged_is_passed_over, start, end),
    cmocka_unit_test_setup_teardown(test_ranges_are_the_whole_array, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_what_lies_apart_goes_in_pieces, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_pieces_do_not_know_ranges, start, end),
    cmocka_unit_test_setup_teardown(test_version_1_is_read, start, end),
    cmocka_unit_test_setup_teardown(test_codes_are_bytes, start, end),
    cmocka_unit_test_setup_teardown(test_other_network_is_refused, start, end),
    cmocka_unit_test_setup_teardown(test_keep_removes_the_oldest, start, end),
    cmocka_unit_test_setup_teardown(test_full_disk_keeps_the_old, start, end),
    cmocka_unit_test_setup_teardown(test_nan_is_not_saved, start, end),
};

MPI_MAIN(mpi_checkpoint, tests)
