/*
 * What the doctor finds between ranks, by an MPI that is wrong: its calls stand
 * here, over the real ones, and spoil what the last rank gives or gets.
 */
#include "mpi_test.h"

#include "../src/train/doctor_internal.h"
#include "base/error.h"
#include "cpu/cpu.h"

#include <mpi.h>

typedef enum Fault {
    NONE,
    GIVES,    /* the last rank's part of sums to all has lost a bit */
    GETS,     /* it gets another sum than there is */
    GETS_ITS, /* of those to one rank, its own */
    RECEIVES, /* broadcasts, the end of them */
    GATHERS,  /* blocks of all ranks */
    SENDS     /* messages */
} Fault;

static Fault fault;

static int is_last(void)
{
    return comm.rank == comm.size - 1;
}

static size_t size_of(MPI_Datatype type)
{
    return type == MPI_INT64_T ? 8 : 4;
}

/* The doctor's own, not what it agrees by. */
static int is_tried(int count, MPI_Datatype type)
{
    return count >= 128 && (type == MPI_INT64_T || type == MPI_FLOAT);
}

/* Of a number that is 0 nothing is lost. */
static void spoil(void *v, int count, MPI_Datatype type)
{
    char *at = (char *)v + size_of(type) * (size_t)(count / 2);
    int64_t whole;
    float plain;

    if (type == MPI_INT64_T) {
        memcpy(&whole, at, sizeof whole);
        whole &= whole - 1;
        memcpy(at, &whole, sizeof whole);
    } else {
        memcpy(&plain, at, sizeof plain);
        plain *= 2;
        memcpy(at, &plain, sizeof plain);
    }
}

static void flip(void *v, size_t at)
{
    ((char *)v)[at] ^= 1;
}

int MPI_Allreduce(const void *in, void *out, int count, MPI_Datatype type,
                  MPI_Op op, MPI_Comm on)
{
    const int tried = is_last() && is_tried(count, type);
    int err;

    if (fault == GIVES && tried)
        spoil(out, count, type);
    err = PMPI_Allreduce(in, out, count, type, op, on);
    if (fault == GETS && tried)
        flip(out, 0);
    return err;
}

int MPI_Reduce(const void *in, void *out, int count, MPI_Datatype type,
               MPI_Op op, int root, MPI_Comm on)
{
    const int err = PMPI_Reduce(in, out, count, type, op, root, on);

    if (fault == GETS_ITS && root == comm.rank && is_last() &&
        is_tried(count, type))
        flip(out, 5);
    return err;
}

int MPI_Bcast(void *v, int count, MPI_Datatype type, int root, MPI_Comm on)
{
    const int err = PMPI_Bcast(v, count, type, root, on);

    if (fault == RECEIVES && is_last() && count > 1 << 16)
        flip(v, (size_t)count - 1);
    return err;
}

int MPI_Allgather(const void *in, int count, MPI_Datatype type, void *out,
                  int num, MPI_Datatype to, MPI_Comm on)
{
    const int err = PMPI_Allgather(in, count, type, out, num, to, on);

    if (fault == GATHERS && is_last() && count == 1024)
        flip(out, 7);
    return err;
}

int MPI_Send(const void *v, int count, MPI_Datatype type, int to, int tag,
             MPI_Comm on)
{
    char *spoiled = malloc((size_t)count);
    int err;

    memcpy(spoiled, v, (size_t)count);
    if (fault == SENDS && is_last())
        flip(spoiled, (size_t)count / 2);
    err = PMPI_Send(spoiled, count, type, to, tag, on);
    free(spoiled);
    return err;
}

static int try(DoctorLink *out, Fault of, int exact)
{
    Config config;
    const Session s = { .comm = &comm,
                        .config = &config,
                        .backend = dg_backend_cpu() };
    int err;

    dg_config_defaults(&config);
    config.parallel.exact_sum = exact;
    fault = of;
    err = dg_doctor_link(out, &s);
    fault = NONE;
    return err;
}

/* what the message says on all ranks */
static int says(const char *text)
{
    return strstr(dg_last_error()->text, text) != NULL;
}

static void test_a_right_link_is_measured(void **state)
{
    static const double elements[] = { 1 << 7, 1 << 14, 1 << 20 };
    DoctorLink l;

    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        EXPECT(try(&l, NONE, exact) == DG_OK);
        EXPECT(l.whole == exact && l.devices == 0);
        EXPECT(l.num == (comm.size > 1 ? DG_DOCTOR_SIZES - 1 : 0));
        for (int i = 0; i < l.num; i++)
            EXPECT(l.seconds[i] > 0 &&
                   l.bytes[i] == (exact ? 8.0 : 4.0) * elements[i]);
        EXPECT(comm.node_size == 1 || l.within > 0);
        EXPECT(comm.size > 1 || l.within == 0);
        EXPECT((l.between > 0) == (comm.node_size < comm.size));
        EXPECT(l.within_least <= l.within);
        EXPECT(l.between_least <= l.between);
    }
    VERDICT();
}

static void test_whose_part_is_lost_is_named(void **state)
{
    char who[64];
    DoctorLink l;

    (void)state;
    snprintf(who, sizeof who, "what rank %d on ", comm.size - 1);
    for (int exact = 0; exact < 2 && comm.size > 1; exact++) {
        EXPECT(try(&l, GIVES, exact) == DG_EPROMISE);
        EXPECT(says("rank 0 on ") && says("gets a wrong sum of 128 "));
        EXPECT(says(who));
        EXPECT(says("gives does not arrive"));
    }
    VERDICT();
}

static void test_who_sees_a_wrong_sum_is_named(void **state)
{
    char who[64], all[64];
    DoctorLink l;

    (void)state;
    snprintf(who, sizeof who, "rank %d on ", comm.size - 1);
    snprintf(all, sizeof all, "%d of %d sums are wrong", comm.size, comm.size);
    if (comm.size > 1) {
        EXPECT(try(&l, GETS, 1) == DG_EPROMISE);
        EXPECT(says(who) && says("gets a wrong sum of 128 integers by MPI"));
        EXPECT(says(all));
        EXPECT(try(&l, GETS_ITS, 1) == DG_EPROMISE);
        EXPECT(says(who) && says("gets a wrong sum of 16384 integers"));
    }
    VERDICT();
}

static void test_who_gets_other_bytes_is_named(void **state)
{
    char who[64], sender[64];
    DoctorLink l;

    (void)state;
    snprintf(who, sizeof who, "rank %d on ", comm.size - 1);
    snprintf(sender, sizeof sender, "gets wrong bytes of rank %d on ",
             comm.size - 1);
    if (comm.size > 1) {
        EXPECT(try(&l, RECEIVES, 1) == DG_EPROMISE);
        EXPECT(says(who) && says("gets a wrong broadcast of 16384 integers"));
        EXPECT(says("it comes from rank 0 on "));
        EXPECT(try(&l, GATHERS, 1) == DG_EPROMISE);
        EXPECT(says(who) && says("gathers other numbers of rank 0 on "));
        EXPECT(try(&l, SENDS, 1) == DG_EPROMISE);
        EXPECT(says(sender));
    }
    VERDICT();
}

/* Most are right, also where rank 0 is not one of them. */
static void test_the_odd_rank_is_named(void **state)
{
    static const char *const part[] = { "trajectories", "scores", NULL };
    DoctorFound mine = { .digest = { "aaaa", "bbbb" } },
                *all = malloc(sizeof *all * (size_t)comm.size);

    (void)state;
    EXPECT(dg_doctor_compare(&comm, all, &mine, part) == DG_OK);
    for (int odd = 0; odd < comm.size && comm.size > 2; odd++) {
        char who[64];

        strcpy(mine.digest[1], comm.rank == odd ? "cccc" : "bbbb");
        snprintf(who, sizeof who, "rank %d on ", odd);
        EXPECT(dg_doctor_compare(&comm, all, &mine, part) == DG_EPROMISE);
        EXPECT(strncmp(dg_last_error()->text, who, strlen(who)) == 0);
        EXPECT(says("other scores (cccc)"));
    }
    free(all);
    VERDICT();
}

static void test_pace_finds_the_slowest(void **state)
{
    const DoctorFound all[4] = {
        { .seconds = 2 }, { .seconds = 1 }, { .seconds = 7 }, { .seconds = 2 }
    };
    DoctorPace pace;

    (void)state;
    dg_doctor_pace(&pace, all, 4);
    EXPECT(pace.rank == 2 && pace.slowest == 7 && pace.median == 2);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_a_right_link_is_measured),
    cmocka_unit_test(test_whose_part_is_lost_is_named),
    cmocka_unit_test(test_who_sees_a_wrong_sum_is_named),
    cmocka_unit_test(test_who_gets_other_bytes_is_named),
    cmocka_unit_test(test_the_odd_rank_is_named),
    cmocka_unit_test(test_pace_finds_the_slowest),
};

MPI_MAIN(mpi_doctor, tests)
