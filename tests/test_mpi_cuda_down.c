/*
 * Gradients to sums of the host's, of several ranks, emulated: a block's go from
 * GPU to GPU and down while the one before it is gone back through, or where
 * GPUs have no way of their own down, and then by a thread from host to host. The
 * bits of a rank that has all sums on its GPU, whichever stream is late.
 */
#include "pool_lab.h"

#include "cuda/comm.h"
#include "cuda/cuda.h"

static int links = 1;

static CudaStream *use(const char *streams)
{
    CudaStream *s = NULL;

    setenv("CUDA_EMULATION_STREAMS", streams, 1);
    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    EXPECT(!links || dg_cuda_comm_join(&comm, 600) == DG_OK);
    return s;
}

static void open_down(Lab *l, const char *config, const char *set)
{
    open_lab_of(l, config, set);
    l->session.device_ranks = 1;
    EXPECT(dg_pool_beside(l->pool, &l->session) == DG_OK);
}

static const char *const configs[] = { "configs/tiny.cfg",
                                       "configs/tiny_unet.cfg" };

static Lab lab_of(ShardLevel level, int recompute)
{
    return (Lab) { .backend = dg_backend_cuda(),
                   .level = level,
                   .recompute = recompute,
                   .offload = 1 };
}

/* Of weights that all have, and in ranges. */
static void come_down(void)
{
    static const char *const orders[] = { "late", "late", "early", "random" };

    for (int k = 0; k < 4; k++) {
        CudaStream *s = use(orders[k]);
        Lab l = lab_of(k % 2 && comm.size > 1 ? DG_SHARD_PARAMETERS
                                              : DG_SHARD_GRADIENTS,
                       k % 2);

        l.text = k == 3;
        open_down(&l, configs[k == 2], NULL);
        EXPECT(l.team->sends == (links && comm.size > 1));
        compare_sums(&l, 1);
        EXPECT(dg_team_take_early(l.team) ==
               l.held->net.num_groups + (l.text ? l.held->text.num_groups : 0));
        compare_sums(&l, k < 2 ? 2 : 1);
        compare_sums(&l, comm.rank % 2); /* the first has none */
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
}

static void test_they_come_down_behind(void **state)
{
    (void)state;
    come_down();
    VERDICT();
}

static void test_they_come_down_by_a_thread(void **state)
{
    (void)state;
    links = 0;
    come_down();
    links = 1;
    VERDICT();
}

static void test_copies_that_are_slow(void **state)
{
    CudaStream *s = use("all early");
    Lab l = lab_of(DG_SHARD_GRADIENTS, 0);

    (void)state;
    setenv("CUDA_EMULATION_SLOW", "1", 1);
    open_down(&l, configs[0], NULL);
    compare_sums(&l, 1 + comm.rank % 2);
    unsetenv("CUDA_EMULATION_SLOW");
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* Elements of the network's first group in a rank's sum that are not zero. */
static int64_t there(const Lab *l)
{
    const ParamGroup *g = &l->held->net.groups[0];
    const Shard *s = &l->team->shard;
    const ExactSum *sum = &l->team->workers[0].sum;
    int64_t num = 0;

    for (int64_t i = 0; i < s->num; i++)
        num += s->first + i >= g->first && s->first + i < g->first + g->num &&
               sum->fixed[i] != 0;
    return num;
}

/* --- the way itself -------------------------------------------------------------- */

enum { PARTS = 3, LONG = 1300003, SHORT = 24, MANY = 5000 };

static void take(void *user, ExactSum *into, const ExactSum *part)
{
    ++*(int64_t *)user;
    EXPECT(dg_exact_merge(into, part) == DG_OK);
}

static int64_t number(int64_t i, int part, int rank)
{
    return (i * 7919 + part * 104729 + rank * 31) % 1000003 - 500000;
}

/* num sums of a length through one place on the GPU, to each rank in turn. */
static void send_parts(int num, int64_t length)
{
    const size_t bytes = dg_exact_bytes(length, 1);
    const Engine *e = dg_engine_of(dg_backend_cuda());
    int64_t *x = malloc(bytes), *into = malloc(bytes), taken = 0;
    void *at;
    ExactSend send = { .take = take, .user = &taken, .slot = -1 };

    EXPECT(e->descends() == DG_OK);
    EXPECT(dg_cuda_take(&at, (size_t)num * bytes) == DG_OK);
    EXPECT(dg_exact_init(&send.into, into, length, 1, 40, 64) == DG_OK);
    for (int k = 0; k < num; k++) {
        for (int64_t i = 0; i < length; i++)
            x[i] = number(i, k, comm.rank);
        dg_kernel_upload(dg_backend_cuda(), (char *)at + (size_t)k * bytes, x,
                         bytes);
    }
    send.part = send.into;
    for (int k = 0; k < num; k++) {
        send.root = k % comm.size;
        send.into.num = send.root == comm.rank ? length : 0;
        send.part.fixed = (int64_t *)((char *)at + (size_t)k * bytes);
        EXPECT(e->send(&comm, &send) == DG_OK);
    }
    EXPECT(e->sent(&comm, DG_OK, 1) == DG_OK);
    EXPECT(taken == (num - comm.rank + comm.size - 1) / comm.size *
                        ((length + 524287) / 524288));
    for (int64_t i = 0; i < length; i++) {
        int64_t want = 0;

        for (int k = comm.rank; k < num; k += comm.size)
            for (int r = 0; r < comm.size; r++)
                want += number(i, k, r);
        EXPECT(into[i] == want);
    }
    dg_cuda_free(at);
    free(into);
    free(x);
}

/* Longer than both halves of the pinned memory. */
static void test_sums_of_any_length_arrive(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        CudaStream *s = use(k ? "all early" : "late");

        send_parts(PARTS, LONG);
        send_parts(1, 1);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* More than may be on their way at a time. */
static void test_sums_of_any_number_arrive(void **state)
{
    CudaStream *s = use("late");
    const Engine *e = dg_engine_of(dg_backend_cuda());
    int64_t x[SHORT], into[SHORT], taken = 0;
    ExactSend send = { .take = take, .user = &taken, .slot = -1 };
    void *at;

    (void)state;
    for (int i = 0; i < SHORT; i++)
        x[i] = number(i, 0, comm.rank);
    EXPECT(e->descends() == DG_OK);
    EXPECT(dg_cuda_take(&at, sizeof x) == DG_OK);
    EXPECT(dg_exact_init(&send.into, into, SHORT, 1, 40, 64) == DG_OK);
    dg_kernel_upload(dg_backend_cuda(), at, x, sizeof x);
    send.part = send.into;
    send.part.fixed = at;
    e->beside(); /* after the upload */
    for (int k = 0; k < MANY; k++)
        EXPECT(dg_cuda_comm_descend(&send) == DG_OK);
    EXPECT(e->sent(&comm, DG_OK, 1) == DG_OK);
    EXPECT(taken == MANY);
    for (int i = 0; i < SHORT; i++)
        EXPECT(into[i] == MANY * x[i]);
    dg_cuda_free(at);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* --- beside the way back --------------------------------------------------------- */

static int64_t seen;

static int look_one(Worker *w, int64_t i, void *user)
{
    const int err = go_back(w, i, user);

    seen += there(user);
    return err ? err : dg_team_add(w, NULL);
}

/* The first group is gone back through last: it has been given, and where
 * streams are late nobody has waited until it has arrived; but where one room
 * has to do. */
static void test_the_way_back_waits_for_none(void **state)
{
    static const char *const waits[] = { NULL, NULL, "parallel.overlap=false",
                                         "parallel.ahead=false" };

    (void)state;
    for (int k = 0; k < 4 && comm.size > 1; k++) {
        CudaStream *s = use("late");
        Lab l = lab_of(k % 2 ? DG_SHARD_PARAMETERS : DG_SHARD_GRADIENTS, 0);

        open_down(&l, configs[0], waits[k]);
        /* the first one waits for what the library loads */
        EXPECT(dg_team_sum(l.team, &comm, 1, look_one, &l) == DG_OK);
        seen = 0;
        EXPECT(dg_team_sum(l.team, &comm, 1, look_one, &l) == DG_OK);
        EXPECT(seen == (waits[k] != NULL ? there(&l) : 0));
        EXPECT(comm.rank > 0 || there(&l) > 0);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

static int refused;

static int note_one(Worker *w, int64_t i, void *user)
{
    const int err = learn_one(w, i, user);

    refused += err == DG_ENUMERIC;
    return err == DG_ENUMERIC ? DG_OK : err;
}

/* Who goes on without such an update sets this sample aside alone. */
static void test_what_is_refused_is_one_ranks(void **state)
{
    (void)state;
    for (links = 0; links < 2; links++) {
        CudaStream *s = use("early");
        Lab l = lab_of(DG_SHARD_GRADIENTS, 0);

        open_down(&l, configs[0], NULL);
        l.bad_rank = comm.size - 1;
        refused = 0;
        EXPECT(dg_team_sum(l.team, &comm, 2, note_one, &l) == DG_OK);
        EXPECT(refused == (comm.rank == l.bad_rank));
        l.bad_rank = -1;
        compare_sums(&l, 1);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    links = 1;
    VERDICT();
}

static void test_failures_are_all_ranks(void **state)
{
    (void)state;
    for (links = 0; links < 2; links++) {
        CudaStream *s = use("early");
        Lab l = lab_of(DG_SHARD_GRADIENTS, 0);

        open_down(&l, configs[0], NULL);
        fail_and_go_on(&l);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    links = 1;
    VERDICT();
}

/* The last of all: the GPU stays broken. The host's sum is given back, which
 * nobody is to look at any more. */
static void test_a_broken_gpu_ends_all(void **state)
{
    const int bad = comm.size - 1;
    CudaStream *s = use("late");
    Lab l = lab_of(DG_SHARD_GRADIENTS, 1);

    (void)state;
    open_down(&l, configs[0], NULL);
    compare_sums(&l, 1);
    l.break_rank = bad;
    EXPECT(dg_team_sum(l.team, &comm, 2, learn_one, &l) == DG_EDEVICE);
    EXPECT(dg_last_error()->rank == bad || comm.size == 1);
    EXPECT(strstr(dg_last_error()->text, "launch failure") != NULL);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sums_of_any_length_arrive),
    cmocka_unit_test(test_sums_of_any_number_arrive),
    cmocka_unit_test(test_they_come_down_behind),
    cmocka_unit_test(test_they_come_down_by_a_thread),
    cmocka_unit_test(test_copies_that_are_slow),
    cmocka_unit_test(test_the_way_back_waits_for_none),
    cmocka_unit_test(test_what_is_refused_is_one_ranks),
    cmocka_unit_test(test_failures_are_all_ranks),
    cmocka_unit_test(test_a_broken_gpu_ends_all),
};

MPI_MAIN(mpi_cuda_down, tests)
