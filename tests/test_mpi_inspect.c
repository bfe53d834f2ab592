#include "mpi_test.h"
#include "base/error.h"
#include "base/piece_digest.h"
#include "base/sha256.h"
#include "store/checkpoint.h"
#include "store/conditions.h"
#include "store/file.h"
#include "store/inspect.h"
#include "store/trajectory.h"
#include "store/weights_file.h"

#include <malloc.h>
#include <math.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[256], path[300];
static const FileInfo info = { .program = "prog 1.2",
                               .git_commit = "abc",
                               .command = "test",
                               .config = "a = 1;\nb = 2;\n",
                               .seed = 42 };
static float values[4] = { 1.5F, -2.0F, 4.0F, 0.5F };

/* Description of the file at path, to free. */
static char *describe(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    EXPECT(dg_inspect_describe(path, out) == DG_OK);
    fclose(out);
    return text;
}

static int has(const char *text, const char *part)
{
    const int yes = strstr(text, part) != NULL;

    if (!yes)
        fprintf(stderr, "\"%s\" is not in:\n%s", part, text);
    return yes;
}

static void test_checkpoint_is_described(void **state)
{
    CheckpointArray array = { .name = "weights",
                              .long_name = "master weights",
                              .data = values,
                              .num = 4 };
    CheckpointCounter counter = { .name = "optimizer_step", .value = 17 };
    CheckpointParam param = { "w", 0, 1, { 4 } };
    Checkpoint k = { .iteration = 3,
                     .arrays = &array,
                     .num_arrays = 1,
                     .params = &param,
                     .num_params = 1,
                     .counters = &counter,
                     .num_counters = 1 };
    char got[DG_SHA256_HEX] = "", want[DG_SHA256_HEX] = "";

    (void)state;
    make_folder(folder);
    EXPECT(!dg_checkpoint_write(&comm, folder, &k, &info, 0));
    dg_checkpoint_path(path, sizeof path, folder, 3);
    char *text = describe();
    EXPECT(has(text, "program          prog 1.2"));
    EXPECT(has(text, "seed             42"));
    EXPECT(has(text, "arrays/weights: float32 [4]\n"));
    EXPECT(has(text, "master weights; units 1; axes element\n"));
    EXPECT(has(text, "least -2, greatest 4, mean 1\n"));
    EXPECT(has(text, "counters/optimizer_step: int64 []\n"));
    EXPECT(has(text, "value 17\n"));
    EXPECT(has(text, "parameters/name: text [1]\n"));
    EXPECT(has(text, "    \"w\"\n"));
    EXPECT(has(text, "config:\na = 1;\nb = 2;\n"));
    EXPECT(!dg_inspect_digest(path, got));
    EXPECT(!dg_sha256_bytes(want, values, sizeof values));
    EXPECT(strcmp(got, want) == 0);
    free(text);
    drop_folder(folder);
    VERDICT();
}

/* Most of the address space of this process; 0: it was not lowered. */
static int lower_room(size_t more, struct rlimit *old)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    struct rlimit tight;

    if (f == NULL || fscanf(f, "%ld", &pages) != 1 ||
        getrlimit(RLIMIT_AS, old) != 0)
        pages = 0;
    if (f != NULL)
        fclose(f);
    tight =
        (struct rlimit) { (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more,
                          old->rlim_max };
    return pages > 0 && pages < 1 << 22 && /* no sanitizer's shadow */
           setrlimit(RLIMIT_AS, &tight) == 0;
}

/* One looks at a checkpoint where it would not fit. */
static void test_looking_needs_little_memory(void **state)
{
    enum { NUM = 12 << 20, ROOM = 24 << 20 };
    CheckpointArray array = { .name = "weights",
                              .long_name = "master weights",
                              .data = calloc(NUM, sizeof(float)),
                              .num = NUM };
    Checkpoint k = { .iteration = 3, .arrays = &array, .num_arrays = 1 };
    char got[DG_SHA256_HEX] = "", want[DG_SHA256_HEX] = "";
    struct rlimit old;

    (void)state;
    make_folder(folder);
    EXPECT(!dg_checkpoint_write(&comm, folder, &k, &info, 0));
    dg_checkpoint_path(path, sizeof path, folder, 3);
    EXPECT(!dg_sha256_bytes(want, array.data, NUM * sizeof(float)));
    free(array.data);
    if (lower_room(ROOM, &old)) {
        char *text = describe();
        EXPECT(!dg_inspect_digest(path, got));
        EXPECT(strcmp(got, want) == 0);
        EXPECT(has(text, "least 0, greatest 0, mean 0\n"));
        setrlimit(RLIMIT_AS, &old);
        free(text);
    }
    drop_folder(folder);
    VERDICT();
}

static void test_weights_digest_sees_all(void **state)
{
    WeightTensor t[] = { { "a", 1, { 4 }, values },
                         { "b", 2, { 2, 2 }, values } };
    const WeightNote note = { "score", "0.5" };
    const WeightsContent w = {
        .tensors = t, .num_tensors = 2, .notes = &note, .num_notes = 1
    };
    char first[DG_SHA256_HEX] = "", next[DG_SHA256_HEX] = "";
    float other[4] = { 1.5F, -2.0F, 4.0F, 0.625F };

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/w.h5", folder);
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F16, &w, &info));
    EXPECT(!dg_inspect_digest(path, first));
    char *text = describe();
    EXPECT(has(text, "provenance\n  score            0.5\n"));
    EXPECT(has(text, "weights/b: float16 [2, 2]\n"));
    free(text);
    dg_comm_barrier(&comm);
    t[1].data = other;
    EXPECT(!dg_weights_write(&comm, path, DG_H5_F16, &w, &info));
    EXPECT(!dg_inspect_digest(path, next));
    EXPECT(strcmp(first, next) != 0);
    drop_folder(folder);
    VERDICT();
}

static void test_other_files_have_no_digest(void **state)
{
    const double v[] = { NAN, 2, INFINITY };
    const H5Item item = { .name = "rewards",
                          .type = DG_H5_F64,
                          .num_dims = 1,
                          .dims = { 3 },
                          .data = v,
                          .units = "1",
                          .long_name = "rewards",
                          .axes = "item" };
    char hex[DG_SHA256_HEX];

    (void)state;
    make_folder(folder);
    EXPECT(!dg_trajectory_write(&comm, folder, 1, &item, 1, NULL, 0, &info));
    dg_trajectory_path(path, sizeof path, folder, 1);
    EXPECT(dg_inspect_digest(path, hex) == DG_EFORMAT);
    EXPECT(has(dg_last_error()->text, "dataset state/weights is missing"));
    char *text = describe();
    EXPECT(has(text, "least 2, greatest 2, mean 2, 2 not finite\n"));
    free(text);
    EXPECT(dg_inspect_digest("/nowhere.h5", hex) == DG_EIO);
    drop_folder(folder);
    VERDICT();
}

/* Weights that an iteration began with, by the digest in the file's root, of
 * either version. */
static void test_trajectory_digest_is_that_of_its_weights(void **state)
{
    enum { NUM = DG_PIECE_BYTES / 4 + 5 }; /* two pieces */
    static float v[NUM];
    const H5Item item = { .name = "state/weights",
                          .type = DG_H5_F32,
                          .num_dims = 1,
                          .dims = { NUM },
                          .data = v,
                          .units = "1",
                          .long_name = "weights",
                          .axes = "parameter" };
    char want[DG_SHA256_HEX], pieces[DG_SHA256_HEX], hex[DG_SHA256_HEX] = "";
    const TrajectoryNote notes[] = {
        { "weights_before_sha256_pieces", pieces, 0 },
        { "weights_before_sha256", want, 0 },
        { "weights_before_sha256", pieces, 0 }, /* another's */
    };

    (void)state;
    make_folder(folder);
    for (int i = 0; i < NUM; i++)
        v[i] = (float)(i % 997);
    EXPECT(!dg_sha256_bytes(want, v, sizeof v));
    EXPECT(!dg_piece_digest(pieces, v, sizeof v));
    for (int i = 0; i < 3; i++) {
        EXPECT(!dg_trajectory_write(&comm, folder, i, &item, 1, &notes[i], 1,
                                    &info));
        dg_trajectory_path(path, sizeof path, folder, i);
        EXPECT(dg_inspect_digest(path, hex) == (i < 2 ? DG_OK : DG_EFORMAT));
        EXPECT(strcmp(hex, want) == 0);
        EXPECT(i < 2 || has(dg_last_error()->text, "state/weights: SHA-256"));
    }
    drop_folder(folder);
    VERDICT();
}

/* The file is another's: what it holds must not steer the terminal. */
static void test_texts_are_legible(void **state)
{
    static const char *const texts[] = { "red\x1b[2J\nblue", "\xc2\x9b\xff." };
    const FileInfo hostile = { .program = "prog\x1b]0;a\x07",
                               .git_commit = "abc\ndef\x9b",
                               .command = "test",
                               .config = "a = 1;\n\x1b[31mb = 2;\r\n",
                               .seed = 42 };
    const H5Item items[] = { { .name = "re\x1bward",
                               .type = DG_H5_F32,
                               .num_dims = 1,
                               .dims = { 4 },
                               .data = values,
                               .units = "\x1b[1m",
                               .long_name = "re\rward",
                               .axes = "item\x7f" },
                             { .name = "prompt",
                               .type = DG_H5_TEXT,
                               .num_dims = 1,
                               .dims = { 2 },
                               .data = texts,
                               .units = "1",
                               .long_name = "prompts",
                               .axes = "prompt" } };

    (void)state;
    make_folder(folder);
    EXPECT(!dg_trajectory_write(&comm, folder, 1, items, 2, NULL, 0, &hostile));
    dg_trajectory_path(path, sizeof path, folder, 1);
    char *text = describe();
    EXPECT(has(text, "program          prog?]0;a?\n"));
    EXPECT(has(text, "git_commit:\nabc\ndef?\n"));
    EXPECT(has(text, "config:\na = 1;\n?[31mb = 2;?\n"));
    EXPECT(has(text, "re?ward: float32 [4]\n"));
    EXPECT(has(text, "    re?ward; units ?[1m; axes item?\n"));
    EXPECT(has(text, "    \"red?[2J?blue\"\n    \"???.\"\n"));
    for (const char *at = text; *at != '\0'; at++)
        EXPECT(*at == '\n' || ((unsigned char)*at >= 0x20 && *at != 0x7f));
    free(text);
    drop_folder(folder);
    VERDICT();
}

/* A digest of another length would be read beyond its end. */
static void test_short_digests_are_refused(void **state)
{
    const float rows[] = { 1, 2 };
    const char *prompt = "p";
    const HexDigest digest = "ab";
    const ConditionsContent k = { .prompt = &prompt,
                                  .key = &digest,
                                  .tokens = &digest,
                                  .condition = &digest,
                                  .encoder = "e",
                                  .num = 1,
                                  .num_local = comm.rank == 0,
                                  .first = comm.rank != 0,
                                  .width = 2,
                                  .type = DG_H5_F32,
                                  .rows = rows };
    char hex[DG_SHA256_HEX];

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/conditions.h5", folder);
    EXPECT(!dg_conditions_write(&comm, path, &k, &info));
    EXPECT(dg_inspect_digest(path, hex) == DG_EFORMAT);
    EXPECT(has(dg_last_error()->text, "text 0 is no SHA-256 digest"));
    drop_folder(folder);
    VERDICT();
}

/* With a byte of its lists of names changed, which HDF5 finds by their check
 * sums: an error, or the whole description, but no end of the program. */
static void describe_damaged(char *bytes, size_t num, size_t at)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = fopen(path, "wb"), *out = open_memstream(&text, &size);

    bytes[at] ^= 0x55;
    EXPECT(f != NULL && fwrite(bytes, 1, num, f) == num && fclose(f) == 0);
    bytes[at] ^= 0x55;
    const int err = dg_inspect_describe(path, out);
    fclose(out);
    if (!err)
        EXPECT(has(text, "t63: float32 [4]\n"));
    EXPECT(!err || err == DG_EFORMAT || err == DG_EIO);
    EXPECT(!err || strstr(dg_last_error()->text, "is missing") == NULL);
    free(text);
}

static void test_damaged_lists_are_told(void **state)
{
    enum { NUM = 64 }; /* more names than HDF5 keeps in a group's head */
    static const char *const parts[] = { "FRHP", "FHDB", "BTHD", "BTLF",
                                         "FSSE" };
    H5Item item[NUM];
    char name[NUM][8], *bytes = NULL;
    size_t num = 0;
    int found = 0;

    (void)state;
    mallopt(M_PERTURB, 0x55); /* what nobody wrote is no NULL by chance */
    make_folder(folder);
    for (int i = 0; i < NUM; i++) {
        snprintf(name[i], sizeof name[i], "t%d", i);
        item[i] = (H5Item) { .name = name[i],
                             .type = DG_H5_F32,
                             .num_dims = 1,
                             .dims = { 4 },
                             .data = values,
                             .units = "1",
                             .long_name = "values",
                             .axes = "item" };
    }
    EXPECT(!dg_trajectory_write(&comm, folder, 1, item, NUM, NULL, 0, &info));
    dg_trajectory_path(path, sizeof path, folder, 1);
    if (comm.rank == 0)
        EXPECT(!dg_file_read(path, &bytes, &num));
    for (size_t i = 0; i + 64 < num; i++)
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
            if (memcmp(bytes + i, parts[k], 4) == 0) {
                found++;
                for (size_t j = i + 5; j < i + 300 && j < num; j += 31)
                    describe_damaged(bytes, num, j);
            }
    EXPECT(comm.rank != 0 || found >= 5);
    free(bytes);
    mallopt(M_PERTURB, 0);
    dg_comm_barrier(&comm);
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_checkpoint_is_described),
    cmocka_unit_test(test_looking_needs_little_memory),
    cmocka_unit_test(test_weights_digest_sees_all),
    cmocka_unit_test(test_other_files_have_no_digest),
    cmocka_unit_test(test_trajectory_digest_is_that_of_its_weights),
    cmocka_unit_test(test_texts_are_legible),
    cmocka_unit_test(test_short_digests_are_refused),
    cmocka_unit_test(test_damaged_lists_are_told),
};

MPI_MAIN(mpi_inspect, tests)
