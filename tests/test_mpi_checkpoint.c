#define _GNU_SOURCE /* memmem */
#include "checkpoint_case.h"

#include "base/piece_digest.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

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

/* What a file says of frozen weights is compared; one of before says nothing. */
static void test_other_frozen_weights_are_refused(void **state)
{
    CheckpointNote note = { .key = "frozen_decoder",
                            .value = "0123456789abcdef",
                            .of = "weights of the decoder" };
    int found;

    (void)state;
    EXPECT(save(3, 0) == DG_OK);
    k.notes = &note;
    k.num_notes = 1;
    dg_checkpoint_path(path, sizeof path, folder, 3);
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
    EXPECT(save(4, 0) == DG_OK);
    dg_checkpoint_path(path, sizeof path, folder, 4);
    forget();
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK && holds(4));
    note.value = "0123456789abcdee";
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EINVAL);
    EXPECT(says("other weights of the decoder, of digest 0123456789abcdef "
                "(attribute frozen_decoder); these have 0123456789abcdee"));
    EXPECT(says(path));
    /* nor does a run go back to the file that says nothing */
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_EINVAL);
    EXPECT(says(path));
    VERDICT();
}

/* Of programs that score: what they state, which may be nothing. */
static void test_other_versions_are_refused(void **state)
{
    CheckpointNote note = { .key = "reward_version_0",
                            .value = "",
                            .of = "the program",
                            .is_version = 1 };

    (void)state;
    k.notes = &note;
    k.num_notes = 1;
    dg_checkpoint_path(path, sizeof path, folder, 3);
    EXPECT(save(3, 0) == DG_OK && dg_checkpoint_read(&comm, path, &k) == DG_OK);
    note.value = "of May";
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
    EXPECT(save(3, 0) == DG_OK);
    forget();
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK && holds(3));
    note.value = "of June";
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EINVAL);
    EXPECT(says("another version of the program, \"of May\" (attribute "
                "reward_version_0); this one says \"of June\""));
    note.value = "";
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EINVAL);
    EXPECT(says("; this one says none"));
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

/* No checksum of HDF5's covers what a dataset holds, one number or many. */
static void damage_counter(int64_t iteration, int64_t value)
{
    char *bytes = NULL, *at = NULL;
    size_t num = 0;

    dg_checkpoint_path(path, sizeof path, folder, iteration);
    if (comm.rank == 0) {
        EXPECT(dg_file_read(path, &bytes, &num) == DG_OK);
        at = memmem(bytes, num, &value, sizeof value);
        EXPECT(at != NULL);
    }
    damage(iteration, at != NULL ? (long)(at - bytes) : 0, 0);
    free(bytes);
}

static void test_damaged_counter_is_passed_over(void **state)
{
    int found = 0;

    (void)state;
    EXPECT(!save(1, 0) && !save(1234567, 0));
    damage_counter(1234567, 12345670);
    forget();
    EXPECT(dg_checkpoint_resume(&comm, folder, &k, &info, &found) == DG_OK);
    EXPECT(found && holds(1));
    dg_checkpoint_path(path, sizeof path, folder, 1234567);
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("counters/optimizer_step") && says("SHA-256"));
    VERDICT();
}

/* A file of before a counter was there. */
static void test_a_counter_may_be_lacking(void **state)
{
    (void)state;
    k.num_counters = 1;
    EXPECT(save(3, 0) == DG_OK);
    k.num_counters = 2;
    dg_checkpoint_path(path, sizeof path, folder, 3);
    forget();
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_EFORMAT);
    EXPECT(says("prompt_cursor") && counters[1].value == 99);
    counters[1].optional = 1;
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK);
    EXPECT(counters[0].value == 30 && counters[1].value == 0);
    EXPECT(save(4, 0) == DG_OK);
    forget();
    dg_checkpoint_path(path, sizeof path, folder, 4);
    EXPECT(dg_checkpoint_read(&comm, path, &k) == DG_OK && holds(4));
    VERDICT();
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
    cmocka_unit_test_setup_teardown(test_other_versions_are_refused, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_other_frozen_weights_are_refused,
                                    start, end),
    cmocka_unit_test_setup_teardown(test_data_do_not_depend_on_ranks, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_renamed_is_passed_over, start, end),
    cmocka_unit_test_setup_teardown(test_damaged_is_passed_over, start, end),
    cmocka_unit_test_setup_teardown(test_damaged_counter_is_passed_over, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_a_counter_may_be_lacking, start, end),
    cmocka_unit_test_setup_teardown(test_ranges_are_the_whole_array, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_what_lies_apart_goes_in_pieces, start,
                                    end),
    cmocka_unit_test_setup_teardown(test_codes_are_bytes, start, end),
    cmocka_unit_test_setup_teardown(test_other_network_is_refused, start, end),
    cmocka_unit_test_setup_teardown(test_keep_removes_the_oldest, start, end),
    cmocka_unit_test_setup_teardown(test_full_disk_keeps_the_old, start, end),
    cmocka_unit_test_setup_teardown(test_nan_is_not_saved, start, end),
};

MPI_MAIN(mpi_checkpoint, tests)
