/*
 * Sums from GPU to GPU, emulated: the bits of the host's, on any ranks.
 */
#include "mpi_test.h"

#include "base/error.h"
#include "base/philox.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"
#include "cuda/exact_sum.h"

#include <unistd.h>

enum { NUM = 9001, ITEMS = 6 };

static void gradient(float *g, int item)
{
    const RngKey key = { .seed = 7,
                         .purpose = DG_RNG_TEST,
                         .sample = (uint32_t)item };

    dg_rng_normal(g, 0, NUM, &key);
}

/* this rank's items on the host and on the device */
static void add_items(ExactSum *host, ExactSum *device)
{
    static float g[NUM];
    void *at;

    EXPECT(dg_cuda_take(&at, sizeof g) == DG_OK);
    for (int i = comm.rank; i < ITEMS; i += comm.size) {
        gradient(g, i);
        dg_cuda_stage_up(at, g, sizeof g);
        EXPECT(dg_exact_add(host, g, NULL) == DG_OK);
        EXPECT(dg_cuda_exact_add(device, at, NULL) == DG_OK);
    }
    dg_cuda_free(at);
}

static void check_sum(int exact, int joined)
{
    const size_t bytes = dg_exact_bytes(NUM, exact);
    void *buffer = malloc(bytes), *got = malloc(bytes), *at;
    ExactSum host, device;
    int done = -1;

    EXPECT(dg_cuda_take(&at, bytes) == DG_OK);
    EXPECT(dg_exact_init(&host, buffer, NUM, exact, 40, ITEMS) == DG_OK);
    EXPECT(dg_cuda_exact_init(&device, at, NUM, exact, 40, ITEMS) == DG_OK);
    add_items(&host, &device);
    EXPECT(dg_cuda_exact_allreduce(&comm, &device, &done) == DG_OK);
    EXPECT(done == joined);
    if (joined)
        EXPECT(dg_exact_allreduce(&comm, &host) == DG_OK);
    EXPECT(device.items == host.items);
    EXPECT(dg_cuda_stage_down(got, at, bytes) == DG_OK);
    EXPECT(memcmp(got, buffer, bytes) == 0);
    dg_cuda_free(at);
    free(buffer);
    free(got);
}

/* a stream on that device as the current one */
static CudaStream *use(int device)
{
    CudaStream *s = NULL;

    EXPECT(dg_cuda_stream_create(&s, device) == DG_OK);
    dg_cuda_use(s);
    return s;
}

static void test_sums_have_the_hosts_bits(void **unused)
{
    CudaStream *s = use(comm.rank);

    (void)unused;
    check_sum(1, 0); /* nobody has joined: untouched */
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    EXPECT(dg_cuda_comm_joined(&comm));
    check_sum(1, 1);
    check_sum(0, 1);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* To one GPU alone, and from one to all. */
static void check_root(int root, int exact)
{
    const size_t bytes = dg_exact_bytes(NUM, exact);
    void *buffer = malloc(bytes), *got = malloc(bytes), *at;
    ExactSum host, device;
    int done = 0;

    EXPECT(dg_cuda_take(&at, bytes) == DG_OK);
    EXPECT(dg_exact_init(&host, buffer, NUM, exact, 40, ITEMS) == DG_OK);
    EXPECT(dg_cuda_exact_init(&device, at, NUM, exact, 40, ITEMS) == DG_OK);
    add_items(&host, &device);
    EXPECT(dg_cuda_exact_sum_to(&comm, &device, root, &done) == DG_OK && done);
    dg_exact_sum_to(&comm, &host, root); /* elsewhere: as it was, both */
    EXPECT(dg_cuda_stage_down(got, at, bytes) == DG_OK);
    EXPECT(memcmp(got, buffer, bytes) == 0);
    EXPECT(dg_cuda_comm_bcast(&comm, at, bytes, root) == DG_OK);
    dg_comm_bcast(&comm, buffer, bytes, root);
    EXPECT(dg_cuda_stage_down(got, at, bytes) == DG_OK);
    EXPECT(memcmp(got, buffer, bytes) == 0);
    dg_cuda_free(at);
    free(buffer);
    free(got);
}

static void test_owners_have_the_hosts_bits(void **unused)
{
    CudaStream *s = use(comm.rank);

    (void)unused;
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    for (int root = 0; root < comm.size; root++) {
        check_root(root, 1);
        check_root(root, 0);
    }
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* More items than were announced: the same code on all ranks. */
static void test_too_many_items_are_refused(void **unused)
{
    CudaStream *s = use(comm.rank);
    ExactSum sum;
    void *at;
    int done;

    (void)unused;
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    EXPECT(dg_cuda_take(&at, dg_exact_bytes(NUM, 1)) == DG_OK);
    EXPECT(dg_cuda_exact_init(&sum, at, NUM, 1, 40, 1) == DG_OK);
    sum.items = comm.rank == 0 ? 2 : 0;
    EXPECT(dg_cuda_exact_allreduce(&comm, &sum, &done) == DG_EINVAL);
    dg_cuda_free(at);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static void test_two_ranks_on_one_gpu_cannot_join(void **unused)
{
    CudaStream *s = use(0);

    (void)unused;
    EXPECT(dg_cuda_comm_join(&comm, 600) ==
           (comm.size == 1 ? DG_OK : DG_EDEVICE));
    EXPECT(dg_cuda_comm_joined(&comm) == (comm.size == 1));
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* The ways of a rank that waits, or looks, while sums are under way. */
static int waits_for_a_sum(void *at)
{
    return dg_cuda_comm_sum(&comm, at, NUM, 1);
}

static int waits_at_the_end(void *at)
{
    const int err = dg_cuda_comm_send(at, NUM, 1, -1);

    return dg_cuda_comm_sent(&comm, err, 1);
}

static int looks_at_the_end(void *at)
{
    int err;

    dg_cuda_comm_slot(0);
    err = dg_cuda_comm_send(at, NUM, 1, -1);
    return dg_cuda_comm_sent(&comm, err, 0);
}

static int waits_on_the_way(void *at)
{
    int err;

    dg_cuda_comm_slot(0);
    err = dg_cuda_comm_send(at, NUM, 1, -1);
    dg_cuda_comm_leaves(0);
    dg_cuda_comm_slot(0);
    if (!err)
        err = dg_cuda_wait();
    return dg_cuda_comm_sent(&comm, err, 1);
}

/* Nobody's GPU has failed: the library says what it could not do while a rank
 * waits, of that rank's link, and the others hear of it. */
static void test_a_link_that_breaks_ends_all(void **unused)
{
    static int (*const ways[])(void *) = { waits_for_a_sum, waits_at_the_end,
                                           looks_at_the_end, waits_on_the_way };

    (void)unused;
    for (size_t i = 0; i < sizeof ways / sizeof *ways && comm.size > 1; i++) {
        CudaStream *s = use(comm.rank);
        const char *text = dg_last_error()->text;
        void *at;

        EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
        EXPECT(dg_cuda_take(&at, NUM * sizeof(int64_t)) == DG_OK);
        EXPECT(dg_cuda_wait() == DG_OK);
        if (comm.rank == comm.size - 1)
            setenv("CUDA_EMULATION_LINK", "breaks", 1);
        alarm(60);
        EXPECT(ways[i](at) == DG_EDEVICE);
        alarm(0);
        unsetenv("CUDA_EMULATION_LINK");
        EXPECT(strstr(text, "NCCL: ") && !strstr(text, "NCCL: NCCL"));
        EXPECT(strstr(text, "network error") != NULL);
        EXPECT(dg_last_error()->rank == comm.size - 1);
        dg_cuda_free(at);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* A rank whose GPU has failed sends nothing: the others are not to wait for it
 * in the library, where nobody watches, but to meet it and hear. The last test:
 * an emulated GPU fails for good. */
static void test_nobody_waits_in_the_library(void **unused)
{
    const int fails = comm.size > 1 && comm.rank == comm.size - 1;
    CudaStream *s = use(comm.rank);
    char text[32];
    void *at;
    int err;

    (void)unused;
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    EXPECT(dg_cuda_take(&at, NUM * sizeof(float)) == DG_OK);
    snprintf(text, sizeof text, "%d:0", comm.rank);
    if (fails)
        setenv("CUDA_EMULATION_FAIL", text, 1);
    dg_backend_cuda()->fill(at, 1, NUM);
    EXPECT((dg_cuda_wait() == DG_OK) == !fails);
    unsetenv("CUDA_EMULATION_FAIL");
    alarm(60);
    err = comm.size > 1 ? dg_cuda_comm_send(at, NUM, 0, -1) : DG_EDEVICE;
    EXPECT(comm.size == 1 || (err == DG_OK) == !fails);
    EXPECT(dg_cuda_comm_sent(&comm, err, 1) == DG_EDEVICE);
    EXPECT(comm.size == 1 || strstr(dg_last_error()->text, "launch failure"));
    EXPECT(comm.size == 1 || dg_last_error()->rank == comm.size - 1);
    alarm(0);
    dg_cuda_free(at);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sums_have_the_hosts_bits),
    cmocka_unit_test(test_owners_have_the_hosts_bits),
    cmocka_unit_test(test_too_many_items_are_refused),
    cmocka_unit_test(test_two_ranks_on_one_gpu_cannot_join),
    cmocka_unit_test(test_a_link_that_breaks_ends_all),
    cmocka_unit_test(test_nobody_waits_in_the_library),
};

MPI_MAIN(mpi_cuda, tests)
