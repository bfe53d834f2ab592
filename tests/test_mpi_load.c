/* Weights on every rank: read once per node, passed on, failures agreed. */
#include "mpi_test.h"
#include "base/error.h"
#include "weights/load.h"
#include "weights/safetensors.h"

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
    /* the others need no file: only the node's first rank reads */
    o.path = comm.node_rank == 0 ? folder : "/nowhere";
    EXPECT(dg_load_values(&comm, &o, 0, NUM + 4, got) == DG_OK);
    EXPECT(got[0] == 0 && got[2] == 0 && got[NUM + 3] == 0);
    EXPECT(memcmp(got + 3, data, sizeof data) == 0);
    EXPECT(dg_load_values(&comm, &o, 13, 5, got) == DG_OK);
    EXPECT(memcmp(got, data + 10, 5 * sizeof *got) == 0);
    o.path = "/nowhere";
    EXPECT(dg_load_values(&comm, &o, 0, NUM, got) == DG_EIO);
    EXPECT(strstr(dg_last_error()->text, "/nowhere: cannot open") != NULL);
    drop_folder(folder);
    VERDICT();
}

/* Pages that are not there any more are a signal, by which all would end. */
static void test_a_file_cut_short_meanwhile_is_named(void **state)
{
    enum { MANY = 1 << 16 };
    const WeightType types[] = { DG_WEIGHT_F32, DG_WEIGHT_BF16 };
    const WeightWant want = { "w", 1, { MANY }, 0 };
    const LoadOpts o = { .wants = &want, .num_wants = 1 };
    char folder[256], path[300];
    float *data = calloc(MANY, sizeof *data);
    LoadOpts mine = o;

    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    mine.path = folder;
    /* 8192: the list of tensors stays, 1: not even that */
    for (int i = 0; i < 4; i++) {
        const WeightOut t = { "w", types[i % 2], 1, { MANY }, data };

        if (comm.rank == 0)
            EXPECT(!dg_safetensors_write(path, &t, 1, NULL, NULL));
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
    free(data);
    drop_folder(folder);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    /* the first one: cmocka takes back handlers of signals after a test */
    cmocka_unit_test(test_a_file_cut_short_meanwhile_is_named),
    cmocka_unit_test(test_node_bcast_from_any_root),
    cmocka_unit_test(test_every_rank_gets_the_values),
};

MPI_MAIN(mpi_load, tests)
