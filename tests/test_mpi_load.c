/* Weights on every rank: read once per node, a part by each rank, passed on,
 * failures agreed. */
#define _GNU_SOURCE /* memmem */
#include "mpi_test.h"
#include "base/error.h"
#include "base/in_file.h"
#include "base/value_digest.h"
#include "weights/load.h"
#include "weights/safetensors.h"

#include <malloc.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NUM = 100 };

/* A file that is mapped from now on is at once cut to so many bytes, as by
 * somebody who copies another one over it. NULL: none. */
static const char *cut;
static long cut_to;

/* In place of libc's. The sanitizer's library calls it before it has begun. */
__attribute__((no_sanitize("thread"))) void *mmap(void *at, size_t bytes,
                                                  int prot, int flags, int fd,
                                                  off_t from)
{
    void *map =
        (void *)syscall(SYS_mmap, at, bytes, prot, flags, fd, (long)from);

    if (cut != NULL && fd >= 0 && prot == PROT_READ && comm.rank == 0 &&
        truncate(cut, cut_to) != 0)
        return MAP_FAILED;
    return map;
}

static void test_node_bcast_from_any_root(void **state)
{
    (void)state;
    EXPECT(comm.node_size >= 1 && comm.node_rank < comm.node_size);
    for (int root = 0; root < comm.node_size; root++) {
        int v[2] = { -1, -1 };

        if (comm.node_rank == root)
            v[0] = v[1] = 100 + root;
        dg_comm_node_bcast(&comm, v, sizeof v, root);
        EXPECT(v[0] == 100 + root && v[1] == 100 + root);
    }
    VERDICT();
}

static int is_on_first_node(void)
{
    int first = comm.rank;

    dg_comm_node_bcast(&comm, &first, sizeof first, 0);
    return first == 0;
}

static void write_file(const char *path, const float *data)
{
    const WeightOut t = { "w", DG_WEIGHT_F32, 1, { NUM }, data };

    if (comm.rank == 0)
        EXPECT(dg_safetensors_write(path, &t, 1, NULL, NULL) == DG_OK);
    dg_comm_barrier(&comm);
}

static void test_every_rank_gets_the_values(void **state)
{
    const WeightWant want = { "w", 1, { NUM }, 3 };
    char folder[256], path[300];
    float data[NUM], got[NUM + 4];
    LoadOpts o = { .wants = &want, .num_wants = 1 };

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    for (int i = 0; i < NUM; i++)
        data[i] = 0.5f * (float)i;
    write_file(path, data);
    o.path = folder;
    for (int i = 0; i < 2; i++) {
        EXPECT(dg_load_values(&comm, &o, 0, NUM + 4, got) == DG_OK);
        EXPECT(got[0] == 0 && got[2] == 0 && got[NUM + 3] == 0);
        EXPECT(memcmp(got + 3, data, sizeof data) == 0);
        EXPECT(dg_load_values(&comm, &o, 13, 5, got) == DG_OK);
        EXPECT(memcmp(got, data + 10, 5 * sizeof *got) == 0);
        /* where others have none, the first reads all */
        o.path = comm.node_rank == 0 ? folder : "/nowhere";
    }
    o.path = "/nowhere";
    EXPECT(dg_load_values(&comm, &o, 0, NUM, got) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/nowhere: cannot open") != NULL);
    drop_folder(folder);
    VERDICT();
}

/* Bytes of the heap that are in use. */
static size_t in_use(void)
{
#if __GLIBC_PREREQ(2, 33)
    return mallinfo2().uordblks;
#else
    return (size_t)mallinfo().uordblks;
#endif
}

/* Of a file of more than a page whose first alone is there when its list of
 * tensors is read, as of one that another rank sees being cut. The heap keeps some
 * of what it is given back at hand, less than the least that a time can lose. */
static void expect_all_given_back(const char *path)
{
    enum { TIMES = 400, WARM = 20, LEAST = 24, WHOLE = 1 << 16 };
    size_t before = 0;
    WeightFile *f;

    for (int i = 0; i < TIMES; i++) {
        if (i == WARM)
            before = in_use();
        EXPECT(i == 0 || truncate(path, WHOLE) == 0);
        cut = path;
        cut_to = 4096;
        EXPECT(dg_weight_file_open(&f, path) == DG_EIO);
        cut = NULL;
        EXPECT(strstr(dg_last_error()->text, "has become shorter") != NULL);
    }
    EXPECT(in_use() < before + (size_t)(TIMES - WARM) * LEAST);
}

static void expect_both_kinds_given_back(const char *folder)
{
    enum { TENSORS = 200 };
    static const float one[] = { 1 };
    static char names[TENSORS][40];
    WeightOut out[TENSORS];
    char path[300], command[600];

    for (int i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof *names, "a.rather.long.name.of.number.%d", i);
        out[i] = (WeightOut) { names[i], DG_WEIGHT_F32, 1, { 1 }, one };
    }
    snprintf(path, sizeof path, "%s/many.safetensors", folder);
    EXPECT(!dg_safetensors_write(path, out, TENSORS, NULL, NULL));
    expect_all_given_back(path);
    snprintf(path, sizeof path, "%s/torch.bin", folder);
    snprintf(command, sizeof command, "cp tests/golden/weights/torch.bin '%s'",
             path);
    EXPECT(system(command) == 0);
    expect_all_given_back(path);
}

/* Pages that are not there any more are a signal, by which all would end. Other
 * nodes have a file of their own: they may open theirs only when it is cut. */
static void test_a_file_cut_short_meanwhile_is_named_and_given_back(
    void **state)
{
    enum { MANY = 1 << 16 };
    const WeightType types[] = { DG_WEIGHT_F32, DG_WEIGHT_BF16 };
    const WeightWant want = { "w", 1, { MANY }, 0 };
    const LoadOpts o = { .wants = &want, .num_wants = 1 };
    const int same_node = is_on_first_node();
    char folder[256], path[300], other[300];
    float *data = calloc(MANY, sizeof *data);
    LoadOpts mine = o;

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(other, sizeof other, "%s/other.safetensors", folder);
    mine.path = same_node ? folder : other;
    /* 8192: the list of tensors stays, 1: not even that */
    for (int i = 0; i < 4; i++) {
        const WeightOut t = { "w", types[i % 2], 1, { MANY }, data };

        if (comm.rank == 0)
            EXPECT(!dg_safetensors_write(path, &t, 1, NULL, NULL) &&
                   !dg_safetensors_write(other, &t, 1, NULL, NULL));
        dg_comm_barrier(&comm);
        EXPECT(!dg_load_values(&comm, &mine, 0, MANY, data));
        cut = path;
        cut_to = i < 2 ? 8192 : 0;
        EXPECT(dg_load_values(&comm, &mine, 0, MANY, data) == DG_EIO);
        cut = NULL;
        EXPECT(strstr(dg_last_error()->text, path) != NULL);
        EXPECT(strstr(dg_last_error()->text, "has become shorter") != NULL);
        EXPECT(dg_last_error()->rank == 0);
    }
    if (comm.rank == 0)
        expect_both_kinds_given_back(folder);
    free(data);
    drop_folder(folder);
    VERDICT();
}

/* --- parts --------------------------------------------------------------- */

enum { VALUES = 177, BITS = 101, ROWS = 5, COLUMNS = 9, TURNED = 117 };

/* Tensors of several kinds with gaps between, of which no bound is a multiple of
 * anything; visual.proj stands turned in its file. */
static const WeightWant wants[] = {
    { "a", 1, { 7 }, 3 },
    { "b", 1, { BITS }, 13 },
    { "visual_projection.weight", 2, { ROWS, COLUMNS }, TURNED },
    { "c", 1, { 11 }, 163 },
};

static void write_several(const char *path, float plus)
{
    static float data[BITS];
    const WeightOut out[] = {
        { "a", DG_WEIGHT_F32, 1, { 7 }, data },
        { "b", DG_WEIGHT_BF16, 1, { BITS }, data },
        { "c", DG_WEIGHT_F16, 1, { 11 }, data },
        { "visual.proj", DG_WEIGHT_F32, 2, { COLUMNS, ROWS }, data },
    };

    for (int i = 0; i < BITS; i++)
        data[i] = plus + (float)i;
    EXPECT(dg_safetensors_write(path, out, 4, NULL, NULL) == DG_OK);
}

/* As one rank reads them by itself. */
static void load_alone(float *want, const LoadOpts *o, int64_t first,
                       int64_t num)
{
    Comm self;

    EXPECT(dg_comm_self(&self) == DG_OK);
    EXPECT(dg_load_values(&self, o, first, num, want) == DG_OK);
    dg_comm_self_free(&self);
}

static LoadOpts several_at(char path[300], const char *folder)
{
    snprintf(path, 300, "%s/model.safetensors", folder);
    if (comm.rank == 0)
        write_several(path, 1);
    dg_comm_barrier(&comm);
    return (LoadOpts) { .path = path, .wants = wants, .num_wants = 4 };
}

/* Whatever range is read, by however many. */
static void test_parts_are_what_one_rank_reads(void **state)
{
    static const int64_t ranges[][2] = {
        { 0, VALUES }, { 0, 1 }, { 14, 2 }, { 9, 160 }, { 120, 31 }
    };
    float want[VALUES], got[VALUES];
    char folder[256], path[300];
    uint64_t digest = 0;
    LoadOpts o;

    (void)state;
    make_folder(folder);
    o = several_at(path, folder);
    for (int i = 0; i < 5; i++) {
        const int64_t first = ranges[i][0], num = ranges[i][1];

        load_alone(want, &o, first, num);
        o.digest = &digest;
        memset(got, 0xff, sizeof got);
        EXPECT(dg_load_values(&comm, &o, first, num, got) == DG_OK);
        EXPECT(memcmp(got, want, sizeof *got * (size_t)num) == 0);
        EXPECT(digest == dg_value_digest(first, want, num));
        EXPECT(!dg_load_compare(&comm, path, num, want, &digest));
        EXPECT(digest == dg_value_digest(0, want, num));
    }
    load_alone(want, &o, 0, VALUES);
    EXPECT(want[3] == 1 && want[13 + BITS - 1] == 101 && want[163] == 1);
    EXPECT(want[TURNED + 1] == 1 + ROWS && want[TURNED + COLUMNS] == 2);
    drop_folder(folder);
    VERDICT();
}

/* In memory that they have together each writes its part and nothing else; here
 * everyone's is its own, so that the others' parts stay as they were. */
static void test_each_rank_reads_its_part_alone(void **state)
{
    float want[VALUES], got[VALUES], before[VALUES];
    char folder[256], path[300];
    int64_t from, num;
    LoadOpts o;

    (void)state;
    make_folder(folder);
    o = several_at(path, folder);
    o.together = 1;
    load_alone(want, &o, 0, VALUES);
    memset(before, 0xff, sizeof before);
    memset(got, 0xff, sizeof got);
    EXPECT(dg_load_values(&comm, &o, 0, VALUES, got) == DG_OK);
    dg_share_range(VALUES, comm.node_rank, comm.node_size, &from, &num);
    memcpy(before + from, want + from, sizeof *want * (size_t)num);
    EXPECT(memcmp(got, before, sizeof got) == 0);
    drop_folder(folder);
    VERDICT();
}

/* A file of the same form under that name on one rank, as where it is being
 * replaced: nobody gets some of both. */
static void test_another_file_is_not_mixed_in(void **state)
{
    float want[VALUES], got[VALUES];
    char folder[256], path[300], other[300];
    LoadOpts o;

    (void)state;
    make_folder(folder);
    snprintf(other, sizeof other, "%s/other.safetensors", folder);
    o = several_at(path, folder);
    load_alone(want, &o, 0, VALUES);
    usleep(20000); /* another time of change */
    if (comm.rank == 0)
        write_several(other, 2);
    dg_comm_barrier(&comm);
    if (comm.node_rank > 0 && comm.rank == comm.size - 1)
        o.path = other;
    EXPECT(dg_load_values(&comm, &o, 0, VALUES, got) == DG_OK);
    EXPECT(memcmp(got, want, sizeof got) == 0);
    drop_folder(folder);
    VERDICT();
}

/* Writes bytes in the place of others, where a file has them. */
static void patch(const char *path, const void *old, const void *new,
                  size_t bytes)
{
    char *text = NULL, *at;
    size_t num = 0;
    FILE *f;

    EXPECT(dg_in_read(path, &text, &num) == DG_OK);
    at = memmem(text, num, old, bytes);
    EXPECT(at != NULL);
    memcpy(at, new, bytes);
    f = fopen(path, "wb");
    EXPECT(f != NULL && fwrite(text, 1, num, f) == num && fclose(f) == 0);
    free(text);
}

/* All get the one message that a single rank would give. */
static void expect_told(const LoadOpts *o, int code, const char *text)
{
    float got[VALUES];

    EXPECT(dg_load_values(&comm, o, 0, VALUES, got) == code);
    EXPECT(strstr(dg_last_error()->text, text) != NULL);
    EXPECT(strstr(dg_last_error()->text, o->path) != NULL);
    EXPECT(dg_last_error()->rank == 0);
    dg_clear_error();
}

static void test_damage_in_any_part_is_told_once(void **state)
{
    const uint16_t last[] = { 0x4880, 0x4900, 0x4980 }; /* 9, 10, 11 */
    const uint16_t no[] = { 0x4880, 0x4900, 0x7e00 };
    const float first[] = { 6, 7 }, none[] = { 6, NAN };
    char folder[256], path[300];
    LoadOpts o;

    (void)state;
    make_folder(folder);
    o = several_at(path, folder);
    if (comm.rank == 0) /* the last rank's */
        patch(path, last, no, sizeof no);
    dg_comm_barrier(&comm);
    expect_told(&o, DG_ENUMERIC, "tensor c, element 10 is nan");
    if (comm.rank == 0) /* and the first's: the message that comes first */
        patch(path, first, none, sizeof none);
    dg_comm_barrier(&comm);
    expect_told(&o, DG_ENUMERIC, "tensor a, element 6 is nan");
    drop_folder(folder);
    VERDICT();
}

/* A copy of a file whose members have checksums, with a bit of a tensor flipped. */
static void damage(const char *path, const char *name)
{
    static const char whole[] = "tests/golden/weights/torch.bin";
    unsigned char is[240], becomes[240];
    char command[600];
    size_t bytes;
    WeightFile *f;
    int64_t i;

    snprintf(command, sizeof command, "cp '%s' '%s'", whole, path);
    EXPECT(system(command) == 0);
    EXPECT(dg_weight_file_open(&f, whole) == DG_OK);
    i = dg_weight_file_find(f, name);
    bytes = (size_t)dg_weight_file_info(f, i)->bytes;
    EXPECT(bytes <= sizeof is);
    EXPECT(dg_weight_file_read_raw(f, i, is) == DG_OK);
    dg_weight_file_close(f);
    memcpy(becomes, is, bytes);
    becomes[bytes / 2] ^= 4;
    patch(path, is, becomes, bytes);
}

/* What checksums alone tell: by the rank whose part it is, before values are read,
 * of which nobody wants any here. */
static void test_damaged_members_are_told_once(void **state)
{
    static const char *const all[] = { "state_dict.*", "optimizer.*" };
    static const struct {
        const char *tensor, *member;
    } of[] = { { "state_dict.f32", "/data/0:" },
               { "state_dict.f64", "/data/3:" },
               { "state_dict.position_ids", "/data/8:" } };
    const ManifestOpts rest = { all, 2 };
    const WeightWant want = { "state_dict.scalar", 0, { 0 }, 0 };
    char folder[256], path[300];
    const LoadOpts o = {
        .path = path, .wants = &want, .num_wants = 1, .manifest = &rest
    };

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/torch.bin", folder);
    for (int i = 0; i < 3; i++) {
        if (comm.rank == 0)
            damage(path, of[i].tensor);
        dg_comm_barrier(&comm);
        expect_told(&o, DG_EFORMAT, of[i].member);
    }
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    /* the first one: cmocka takes back handlers of signals after a test */
    cmocka_unit_test(test_a_file_cut_short_meanwhile_is_named_and_given_back),
    cmocka_unit_test(test_node_bcast_from_any_root),
    cmocka_unit_test(test_every_rank_gets_the_values),
    cmocka_unit_test(test_parts_are_what_one_rank_reads),
    cmocka_unit_test(test_each_rank_reads_its_part_alone),
    cmocka_unit_test(test_another_file_is_not_mixed_in),
    cmocka_unit_test(test_damage_in_any_part_is_told_once),
    cmocka_unit_test(test_damaged_members_are_told_once),
};

MPI_MAIN(mpi_load, tests)
