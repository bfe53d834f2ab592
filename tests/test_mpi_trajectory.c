#define _GNU_SOURCE /* memmem */
#include "mpi_test.h"
#include "base/error.h"
#include "base/piece_digest.h"
#include "store/file.h"
#include "store/inspect.h"
#include "store/trajectory.h"

enum { ITEMS = 10, STEPS = 3, SIZE = 40 };

static char folder[256], path[300];
static const FileInfo info = { .program = "test",
                               .git_commit = "abc",
                               .command = "test",
                               .config = "a = 1;\n",
                               .seed = 1 };

static float value(int64_t item, int step, int element)
{
    return (float)(item * 1000 + step * 100 + element);
}

/* Latents and texts of items, each rank its own, and sigmas of all. */
static int write_file(int64_t iteration)
{
    float latents[ITEMS][STEPS + 1][SIZE], sigmas[] = { 1, 0.7F, 0.4F, 0 };
    char text[ITEMS][16];
    const char *prompts[ITEMS];
    int64_t first, num;

    dg_share_range(ITEMS, comm.rank, comm.size, &first, &num);
    for (int64_t i = 0; i < num; i++) {
        for (int t = 0; t <= STEPS; t++)
            for (int e = 0; e < SIZE; e++)
                latents[i][t][e] = value(first + i, t, e);
        snprintf(text[i], 16, "prompt %d", (int)(first + i));
        prompts[i] = text[i];
    }
    const H5Item items[] = {
        { .name = "latents",
          .type = DG_H5_F32,
          .num_dims = 3,
          .dims = { ITEMS, STEPS + 1, SIZE },
          .shared = 1,
          .first = first,
          .num = num,
          .data = latents,
          .units = "1",
          .long_name = "latents z",
          .axes = "item, step, element" },
        { .name = "prompts",
          .type = DG_H5_TEXT,
          .num_dims = 1,
          .dims = { ITEMS },
          .shared = 1,
          .first = first,
          .num = num,
          .data = prompts,
          .units = "1",
          .long_name = "prompts",
          .axes = "item" },
        { .name = "sigmas",
          .type = DG_H5_F32,
          .num_dims = 1,
          .dims = { STEPS + 1 },
          .data = sigmas,
          .units = "1",
          .long_name = "noise levels",
          .axes = "step" },
    };
    const TrajectoryNote notes[] = { { "weights", "some.h5", 0 },
                                     { "groups", NULL, 5 } };

    return dg_trajectory_write(&comm, folder, iteration, items, 3, notes, 2,
                               &info);
}

static void test_items_of_all_ranks_are_there(void **state)
{
    const int64_t dims[] = { ITEMS, STEPS + 1, SIZE };
    float z[ITEMS][STEPS + 1][SIZE];
    char **texts = NULL, want[24];
    int64_t num = 0, groups = 0, iteration = 0;
    H5File *f = NULL;

    (void)state;
    make_folder(folder);
    EXPECT(write_file(7) == DG_OK);
    dg_trajectory_path(path, sizeof path, folder, 7);
    EXPECT(dg_trajectory_open(&f, path) == DG_OK);
    EXPECT(!dg_h5_read(f, "latents", DG_H5_F32, 3, dims, z));
    for (int i = 0; i < ITEMS; i++)
        for (int t = 0; t <= STEPS; t++)
            for (int e = 0; e < SIZE; e++)
                EXPECT(z[i][t][e] == value(i, t, e));
    EXPECT(!dg_h5_read_rows(f, "latents", DG_H5_F32, 3, dims, 4, 2, z));
    EXPECT(z[1][2][3] == value(5, 2, 3));
    EXPECT(!dg_h5_read_texts(f, "prompts", &texts, &num) && num == ITEMS);
    for (int i = 0; i < num; i++) {
        snprintf(want, sizeof want, "prompt %d", i);
        EXPECT(strcmp(texts[i], want) == 0);
    }
    EXPECT(!dg_h5_get_i64(f, NULL, "groups", &groups) && groups == 5);
    EXPECT(!dg_h5_get_i64(f, NULL, "iteration", &iteration));
    EXPECT(iteration == 7);
    dg_h5_free_texts(texts);
    dg_h5_close(f);
    drop_folder(folder);
    VERDICT();
}

static void test_missing_folder_fails_together(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/nowhere");
    EXPECT(write_file(1) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/nowhere/iter_000001.h5") != NULL);
    EXPECT(dg_last_error()->rank == 0);
    VERDICT();
}

/* As formats.md tells, whoever wrote which rows; and a damaged number is found. */
static void test_numbers_have_digests(void **state)
{
    static float latents[ITEMS][STEPS + 1][SIZE];
    char want[DG_SHA256_HEX], *stored = NULL, *bytes = NULL;
    size_t num = 0;
    H5File *f = NULL;

    (void)state;
    make_folder(folder);
    for (int i = 0; i < ITEMS; i++)
        for (int t = 0; t <= STEPS; t++)
            for (int e = 0; e < SIZE; e++)
                latents[i][t][e] = value(i, t, e);
    EXPECT(!dg_piece_digest(want, latents, sizeof latents));
    EXPECT(write_file(9) == DG_OK);
    dg_trajectory_path(path, sizeof path, folder, 9);
    EXPECT(dg_trajectory_open(&f, path) == DG_OK);
    EXPECT(!dg_h5_get_text(f, "latents", "sha256_pieces", &stored));
    EXPECT(stored != NULL && strcmp(stored, want) == 0);
    EXPECT(dg_h5_has_key(f, "sigmas", "sha256_pieces"));
    EXPECT(!dg_h5_has_key(f, "prompts", "sha256_pieces"));
    free(stored);
    dg_h5_close(f);
    EXPECT(dg_inspect_digest(path, want) == DG_EFORMAT); /* no weights in it */
    EXPECT(strstr(dg_last_error()->text, "state/weights") != NULL);
    dg_comm_barrier(&comm);
    EXPECT(dg_file_read(path, &bytes, &num) == DG_OK);
    char *at = memmem(bytes, num, latents[7], sizeof latents[7]);
    EXPECT(at != NULL);
    if (at != NULL)
        at[100] ^= 1;
    dg_comm_barrier(&comm); /* all have read it */
    if (comm.rank == 0)
        EXPECT(dg_file_write(path, bytes, num) == DG_OK);
    dg_comm_barrier(&comm);
    EXPECT(dg_inspect_digest(path, want) == DG_EFORMAT);
    EXPECT(strstr(dg_last_error()->text, "latents: SHA-256") != NULL);
    free(bytes);
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_items_of_all_ranks_are_there),
    cmocka_unit_test(test_missing_folder_fails_together),
    cmocka_unit_test(test_numbers_have_digests),
};

MPI_MAIN(mpi_trajectory, tests)
