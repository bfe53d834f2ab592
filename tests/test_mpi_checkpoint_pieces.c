/* Digests of a checkpoint's arrays: in pieces, and as version 1 has them. */
#include "checkpoint_case.h"

#include "base/piece_digest.h"
#include "store/inspect.h"

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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_pieces_do_not_know_ranges, start, end),
    cmocka_unit_test_setup_teardown(test_version_1_is_read, start, end),
};

MPI_MAIN(mpi_checkpoint_pieces, tests)
