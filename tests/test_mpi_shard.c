/* Ranges of a flat buffer, their sums and values between any ranks. */
#include "mpi_test.h"

#include "base/error.h"
#include "base/philox.h"
#include "optim/grad_norm.h"
#include "parallel/shard.h"

#include <math.h>

enum { NUM = 9001, BLOCK = 64, ITEMS = 7 };

static void gradient(float *g, int item)
{
    const RngKey key = { .seed = 9,
                         .purpose = DG_RNG_TEST,
                         .sample = (uint32_t)item };

    dg_rng_normal(g, 0, NUM, &key);
}

/* Whole blocks, in order, without gaps, of nearly equal numbers; owners are
 * who holds. */
static void check_ranges(int64_t total, int64_t block, int size)
{
    int64_t at = 0, least = total + block, most = 0;

    for (int r = 0; r < size; r++) {
        int64_t first, num, blocks;
        Shard s;

        dg_shard_outline(&s, r, size, DG_SHARD_OPTIMIZER, total, block);
        dg_shard_range(&s, r, &first, &num);
        EXPECT(s.first == first && s.num == num && first == at && num >= 0);
        EXPECT(first % block == 0 || first == total);
        blocks = (num + block - 1) / block;
        least = blocks < least ? blocks : least;
        most = blocks > most ? blocks : most;
        if (num > 0 && size > 1) {
            EXPECT(dg_shard_owner(&s, first) == r);
            EXPECT(dg_shard_owner(&s, first + num - 1) == r);
        }
        at += num;
    }
    EXPECT(at == total && most - least <= 1);
}

static void test_ranges_are_a_partition(void **state)
{
    static const int64_t totals[] = {
        0, 1, 63, 64, 65, 4096, 9001, 11901408320
    };

    (void)state;
    for (int i = 0; i < 8; i++)
        for (int size = 1; size <= 33; size++) {
            check_ranges(totals[i], 64, size);
            check_ranges(totals[i], 4096, size);
        }
    VERDICT();
}

/* What ranks hold of a range, one after the other, is the range. */
static void check_overlaps(const Shard *s, int64_t first, int64_t num)
{
    int64_t at = first;

    for (int r = 0; r < s->size; r++) {
        int64_t from, here, mine, held;

        dg_shard_range(s, r, &mine, &held);
        dg_shard_overlap(s, r, &(ShardRange) { first, num }, &from, &here);
        EXPECT(here >= 0);
        if (here == 0) {
            EXPECT(num == 0 || held == 0 || mine + held <= first ||
                   mine >= first + num);
            continue;
        }
        EXPECT(from == at && from >= mine && from + here <= mine + held);
        at += here;
    }
    EXPECT(at == first + num);
}

static void test_overlaps_are_the_range(void **state)
{
    (void)state;
    for (int size = 1; size <= 7; size++) {
        Shard s;

        dg_shard_outline(&s, 0, size, DG_SHARD_PARAMETERS, 50, 8);
        for (int64_t first = 0; first <= 50; first++)
            for (int64_t num = 0; first + num <= 50; num++)
                check_overlaps(&s, first, num);
    }
    VERDICT();
}

static void test_level_none_holds_all(void **state)
{
    int *own = malloc(NUM * sizeof *own);
    Shard s;

    (void)state;
    dg_shard_init(&s, &comm, DG_SHARD_NONE, NUM, BLOCK);
    EXPECT(!dg_shard_split(&s) && s.first == 0 && s.num == NUM);
    EXPECT(dg_shard_owner(&s, 0) == 0 && dg_shard_owner(&s, NUM - 1) == 0);
    /* nothing is gathered: what each has stays */
    for (int i = 0; i < NUM; i++)
        own[i] = comm.rank;
    dg_shard_gather(&s, own, sizeof *own);
    dg_shard_gather_blocks(&s, own, sizeof *own);
    for (int i = 0; i < NUM; i++)
        EXPECT(own[i] == comm.rank);
    free(own);
    dg_shard_outline(&s, 0, 1, DG_SHARD_GRADIENTS, NUM, BLOCK);
    EXPECT(!dg_shard_split(&s) && s.first == 0 && s.num == NUM);
    dg_shard_outline(&s, 1, 2, DG_SHARD_OPTIMIZER, NUM, BLOCK);
    EXPECT(dg_shard_split(&s));
    VERDICT();
}

/* Of items 0 .. ITEMS - 1, this rank's or all. */
static ExactSum sum_of(int exact, int all)
{
    ExactSum s = { 0 };
    float *g = malloc(NUM * sizeof *g);
    const int step = all ? 1 : comm.size;

    EXPECT(dg_exact_init(&s, malloc(dg_exact_bytes(NUM, exact)), NUM, exact,
                         DG_EXACT_SCALE_BITS, ITEMS) == DG_OK);
    for (int i = all ? 0 : comm.rank; i < ITEMS; i += step) {
        gradient(g, i);
        EXPECT(dg_exact_add(&s, g, NULL) == DG_OK);
    }
    free(g);
    return s;
}

/* Every level, the sums of one rank on what is held. */
static void test_sums_reach_their_owners(void **state)
{
    (void)state;
    for (int level = DG_SHARD_NONE; level <= DG_SHARD_GRADIENTS; level++) {
        ExactSum want = sum_of(1, 1), got = sum_of(1, 0);
        ExactSum plain = sum_of(0, 0);
        Shard s;

        dg_shard_init(&s, &comm, (ShardLevel)level, NUM, BLOCK);
        EXPECT(dg_shard_sum(&s, &got) == DG_OK && got.items == ITEMS);
        EXPECT(memcmp(got.fixed + s.first, want.fixed + s.first,
                      (size_t)s.num * sizeof *got.fixed) == 0);
        EXPECT(dg_shard_sum(&s, &plain) == DG_OK && plain.items == ITEMS);
        for (int64_t i = s.first; i < s.first + s.num; i++)
            EXPECT(fabs((double)plain.plain[i] -
                        ldexp((double)want.fixed[i], -DG_EXACT_SCALE_BITS)) <
                   ITEMS * 32 * 6e-8);
        free(want.fixed);
        free(got.fixed);
        free(plain.plain);
    }
    VERDICT();
}

static void test_too_many_items_are_refused(void **state)
{
    ExactSum got = sum_of(1, 0);
    Shard s;

    (void)state;
    dg_shard_init(&s, &comm, DG_SHARD_OPTIMIZER, NUM, BLOCK);
    got.max_items = ITEMS - 1;
    EXPECT(dg_shard_sum(&s, &got) == DG_EINVAL);
    EXPECT(strstr(dg_last_error()->text, "7 items, at most 6") != NULL);
    free(got.fixed);
    VERDICT();
}

static void test_values_come_from_their_owners(void **state)
{
    float want[NUM], got[NUM];
    Shard s;

    (void)state;
    gradient(want, 3);
    dg_shard_init(&s, &comm, DG_SHARD_OPTIMIZER, NUM, BLOCK);
    for (int i = 0; i < NUM; i++)
        got[i] = NAN;
    memcpy(got + s.first, want + s.first, (size_t)s.num * sizeof *got);
    dg_shard_gather(&s, got, sizeof *got);
    EXPECT(memcmp(got, want, sizeof want) == 0);
    VERDICT();
}

/* The norm of a gradient of which each rank has its range: any rank count
 * gives the bits of one call. */
static void test_norms_do_not_depend_on_ranks(void **state)
{
    enum { LONG = 5 * DG_GRAD_NORM_CHUNK + 77 };
    float *g = malloc(LONG * sizeof *g);
    const RngKey key = { .seed = 5, .purpose = DG_RNG_TEST };
    double whole[6], part[6] = { 0 };
    Shard s;

    (void)state;
    dg_rng_normal(g, 0, LONG, &key);
    dg_shard_init(&s, &comm, DG_SHARD_OPTIMIZER, LONG, DG_GRAD_NORM_CHUNK);
    dg_grad_norm_chunks(part + s.first / DG_GRAD_NORM_CHUNK, g + s.first,
                        s.num);
    dg_shard_gather_blocks(&s, part, sizeof *part);
    EXPECT(sqrt(dg_grad_norm_fold(part, 6)) == dg_grad_norm(g, LONG, whole));
    free(g);
    VERDICT();
}

static void test_a_block_passes_between_two(void **state)
{
    const int last = comm.size - 1;
    int64_t v[3] = { comm.rank, 1, 2 };

    (void)state;
    dg_comm_pass(&comm, v, sizeof v, last, 0);
    EXPECT(v[0] == (comm.rank == 0 ? last : comm.rank));
    dg_comm_sum_i64_to(&comm, v + 1, 2, last);
    EXPECT(v[1] == (comm.rank == last ? comm.size : 1));
    EXPECT(v[2] == (comm.rank == last ? 2 * comm.size : 2));
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_ranges_are_a_partition),
    cmocka_unit_test(test_overlaps_are_the_range),
    cmocka_unit_test(test_level_none_holds_all),
    cmocka_unit_test(test_sums_reach_their_owners),
    cmocka_unit_test(test_too_many_items_are_refused),
    cmocka_unit_test(test_values_come_from_their_owners),
    cmocka_unit_test(test_norms_do_not_depend_on_ranks),
    cmocka_unit_test(test_a_block_passes_between_two),
};

MPI_MAIN(mpi_shard, tests)
