/* Gradients of items over threads, ranks and levels: always the same sum. */
#include "mpi_test.h"

#include "base/error.h"
#include "base/philox.h"
#include "cpu/cpu.h"
#include "train/team.h"

enum { NUM = 9001, BLOCK = 64, ITEMS = 11, PIECE = 1000 };

typedef struct Work {
    int64_t first; /* of this rank's items */
    int fails;     /* this item of all fails; -1: none */
    int aside;     /* this one has no gradient */
} Work;

static void gradient(float *g, int64_t item)
{
    const RngKey key = { .seed = 9,
                         .purpose = DG_RNG_TEST,
                         .sample = (uint32_t)item };

    dg_rng_normal(g, 0, NUM, &key);
}

static int run_one(Worker *w, int64_t i, void *user)
{
    const Work *k = user;
    const int64_t item = k->first + i;

    if (item == k->fails)
        return dg_fail(DG_EINVAL, "item %lld", (long long)item);
    gradient(w->grads, item);
    if (item != k->aside)
        return dg_team_add(w, NULL);
    w->grads[5] = 1e30F;
    EXPECT(dg_team_add(w, NULL) == DG_ENUMERIC);
    return DG_OK;
}

static Team *new_team(int threads, ShardLevel level, int exact)
{
    TeamOpts o = { .backend = dg_backend_cpu(),
                   .num_threads = threads,
                   .num_grads = NUM,
                   .exact = exact,
                   .max_items = ITEMS,
                   .piece = PIECE };
    Team *t = NULL;

    dg_shard_init(&o.shard, &comm, level, NUM, BLOCK);
    EXPECT(dg_team_create(&t, &o) == DG_OK);
    EXPECT(t->bytes == dg_team_bytes(&o));
    return t;
}

/* One rank, one thread. */
static void reference(int64_t *want, int aside)
{
    float g[NUM];
    ExactSum s;

    EXPECT(dg_exact_init(&s, want, NUM, 1, DG_EXACT_SCALE_BITS, ITEMS) ==
           DG_OK);
    for (int i = 0; i < ITEMS; i++) {
        gradient(g, i);
        if (i != aside)
            EXPECT(dg_exact_add(&s, g, NULL) == DG_OK);
    }
}

static void check(int threads, ShardLevel level, int aside, const int64_t *want)
{
    Team *t = new_team(threads, level, 1);
    Work k = { .fails = -1, .aside = aside };
    int64_t num;

    dg_share_range(ITEMS, comm.rank, comm.size, &k.first, &num);
    for (int again = 0; again < 2; again++) {
        ExactSum own;

        EXPECT(dg_team_sum(t, &comm, num, run_one, &k) == DG_OK);
        own = dg_team_own(t);
        EXPECT(own.num == t->shard.num);
        EXPECT(own.items == ITEMS - (aside >= 0));
        EXPECT(memcmp(own.fixed, want + t->shard.first,
                      (size_t)own.num * sizeof *want) == 0);
    }
    dg_team_destroy(t);
}

static void test_any_level_same_sum(void **state)
{
    int64_t *want = malloc(NUM * sizeof *want);

    (void)state;
    for (int aside = -1; aside < ITEMS; aside += 5) {
        reference(want, aside);
        for (int threads = 1; threads <= 3; threads++)
            for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++)
                check(threads, (ShardLevel)l, aside, want);
    }
    free(want);
    VERDICT();
}

/* One rank's item: all ranks have its text, and none waits. */
static void test_a_failed_item_fails_all(void **state)
{
    (void)state;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        Team *t = new_team(2, (ShardLevel)l, 1);
        Work k = { .fails = ITEMS - 1, .aside = -1 };
        int64_t num;

        dg_share_range(ITEMS, comm.rank, comm.size, &k.first, &num);
        EXPECT(dg_team_sum(t, &comm, num, run_one, &k) == DG_EINVAL);
        EXPECT(strcmp(dg_last_error()->text, "item 10") == 0);
        dg_team_destroy(t);
    }
    VERDICT();
}

/* More than was announced could wrap: refused at every level. */
static void test_too_many_items_are_refused(void **state)
{
    (void)state;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        Team *t = new_team(1, (ShardLevel)l, 1);
        Work k = { .fails = -1, .aside = -1 };

        EXPECT(dg_team_sum(t, &comm, comm.rank == 0 ? ITEMS : 1, run_one, &k) ==
               (comm.size > 1 ? DG_EINVAL : DG_OK));
        dg_team_destroy(t);
    }
    VERDICT();
}

/* A rank of several keeps less, the less the more levels. */
static void test_levels_hold_less(void **state)
{
    int64_t bytes[3];

    (void)state;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        Team *t = new_team(1, (ShardLevel)l, 1);

        bytes[l] = (int64_t)t->bytes;
        dg_team_destroy(t);
    }
    EXPECT(bytes[1] == bytes[0]);
    EXPECT(bytes[0] - bytes[2] >= 8 * (NUM - PIECE - NUM / comm.size - BLOCK));
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_any_level_same_sum),
    cmocka_unit_test(test_a_failed_item_fails_all),
    cmocka_unit_test(test_too_many_items_are_refused),
    cmocka_unit_test(test_levels_hold_less),
};

MPI_MAIN(mpi_team_sum, tests)
