/*
 * Weights that no rank has whole, on GPUs, emulated: a block's weights come
 * while the one before runs, and its gradients leave behind it. The bits of a
 * rank that has all weights, whichever stream is late.
 */
#include "pool_lab.h"

#include "../src/train/pool_internal.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"

#include <unistd.h>

/* Without a way between GPUs. */
static CudaStream *use_apart(const char *streams)
{
    CudaStream *s = NULL;

    setenv("CUDA_EMULATION_STREAMS", streams, 1);
    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    return s;
}

static CudaStream *use(const char *streams)
{
    CudaStream *s = use_apart(streams);

    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    return s;
}

static const char *const streams[] = { "late", "early", "random" };
static const char *const configs[] = { "configs/tiny.cfg",
                                       "configs/tiny_unet.cfg" };

/* All groups of the net but the first follow one that was seen to come before
 * them, once a pass has run. */
static void expect_ahead(const Lab *l, int64_t passes)
{
    EXPECT(dg_pool_take_ahead(l->pool) >=
           passes * (l->held->net.num_groups - 1));
}

static void test_weights_come_ahead(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        CudaStream *s = use(streams[k]);
        Lab l;

        open_lab(&l, dg_backend_cuda(), configs[k / 2], 0, NULL);
        compare_predictions(&l, 1);
        EXPECT(dg_pool_take_ahead(l.pool) == 0); /* nothing is known yet */
        compare_predictions(&l, 2);
        expect_ahead(&l, 2);
        compare_predictions(&l, comm.rank); /* the first has none */
        compare_predictions(&l, comm.size - 1 - comm.rank);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

static void test_gradients_leave_behind(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        CudaStream *s = use(streams[k]);
        Lab l;

        open_lab(&l, dg_backend_cuda(), configs[k / 2], k % 2, NULL);
        compare_sums(&l, 1);
        compare_sums(&l, k < 2 ? 2 : 1);
        compare_sums(&l, comm.rank % 2); /* the first has none */
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* Text encoders that are trained come ahead and leave like the network. */
static void test_text_encoders_come_and_leave(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        CudaStream *s = use(streams[k]);
        Lab l;

        open_lab_with_text(&l, dg_backend_cuda(), configs[k], k);
        compare_sums(&l, 1);
        dg_pool_take_ahead(l.pool);
        compare_sums(&l, 2);
        EXPECT(dg_pool_take_ahead(l.pool) >=
               l.held->net.num_groups + l.held->text.num_groups - 1);
        compare_sums(&l, comm.rank % 2); /* the first has none */
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* Adapters, whole on each rank, over blocks that come ahead both ways. */
static void test_adapters_lie_over_what_comes_ahead(void **state)
{
    CudaStream *s = use("late");
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cuda(), configs[0], 0, "lora.rank=2");
    compare_sums(&l, 1);
    dg_pool_take_ahead(l.pool);
    compare_sums(&l, 1 + comm.rank % 2);
    EXPECT(dg_pool_take_ahead(l.pool) >= l.held->net.num_groups - 1);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static void test_one_room_does_as_well(void **state)
{
    CudaStream *s = use("late");
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cuda(), configs[0], 1, "parallel.ahead=false");
    compare_predictions(&l, 2);
    compare_sums(&l, 1 + comm.rank % 2);
    EXPECT(dg_pool_take_ahead(l.pool) == 0);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* By the host, in more pieces than one: blocks of large networks have many. */
static void test_weights_come_by_the_host_in_pieces(void **state)
{
    CudaStream *s = use_apart("late");
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cuda(), configs[0], 0, NULL);
    EXPECT(!l.pool->beside);
    l.pool->stage_bytes = 4092;
    EXPECT(dg_pool_reload(l.pool) == DG_OK);
    compare_predictions(&l, 1 + comm.rank % 2);
    compare_sums(&l, 1);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* One that ends early is waited for by nobody, and its message is all's. */
static void test_a_failure_is_everybodys(void **state)
{
    CudaStream *s = use("early");
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cuda(), configs[0], 0, NULL);
    l.bad_rank = comm.size - 1;
    EXPECT(dg_team_run(l.team, 2 + comm.rank % 2, predict_one, &l) ==
           DG_EINVAL);
    EXPECT(strstr(dg_last_error()->text, "an item of rank") != NULL);
    EXPECT(dg_team_sum(l.team, &comm, 2, learn_one, &l) == DG_ENUMERIC);
    EXPECT(strstr(dg_last_error()->text, "gradient of transformer.") != NULL);
    l.bad_rank = -1;
    compare_predictions(&l, 2);
    compare_sums(&l, 1);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* While all others are as usual: of what leaves last, late, and of the block that
 * is gone back through first. */
static void test_one_bad_gradient_is_named(void **state)
{
    static const char *const names[] = {
        "gradient of transformer.time_text_embed.timestep_embedder.linear_2.",
        "gradient of transformer.single_transformer_blocks.2.proj_out.weight"
    };

    (void)state;
    for (int k = 0; k < 2; k++) {
        CudaStream *s = use(streams[k]);
        Lab l = { .backend = dg_backend_cuda(),
                  .level = DG_SHARD_PARAMETERS,
                  .steep = k == 0 ? IN_REST : IN_BLOCK };

        open_lab_of(&l, configs[0], NULL);
        compare_predictions(&l, 1);
        EXPECT(dg_team_sum(l.team, &comm, 1, learn_one, &l) == DG_ENUMERIC);
        EXPECT(strstr(dg_last_error()->text, names[k]) != NULL);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* What a rank asks of its link is never done, and others wait for its part: of a
 * rank that goes back through an item, and of one that has none. */
static void break_a_link(ShardLevel level, int works)
{
    const int bad = comm.size - 1;
    CudaStream *s = use("late");
    Lab l = { .backend = dg_backend_cuda(), .level = level, .break_link = 1 };

    open_lab_of(&l, configs[0], NULL);
    compare_sums(&l, 1);
    l.break_rank = works ? bad : -1;
    if (comm.rank == bad && !works)
        setenv("CUDA_EMULATION_LINK", "breaks", 1);
    alarm(60);
    EXPECT(dg_team_sum(l.team, &comm, works || comm.rank != bad ? 2 : 0,
                       learn_one, &l) == DG_EDEVICE);
    alarm(0);
    unsetenv("CUDA_EMULATION_LINK");
    EXPECT(strstr(dg_last_error()->text, "network error") != NULL);
    EXPECT(dg_last_error()->rank == bad);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
}

long cuda_emulation_nccl_calls(void);

/* The last part of an item's sums, which the last rank takes. The first one learns
 * of it at its item's end, where others wait for its part and nobody meets; the
 * last one, without an item, when nobody waits any more. */
static void break_a_link_at_the_end(ShardLevel level, int bad)
{
    const int num = comm.rank < comm.size - 1 || bad == 0;
    CudaStream *s = use("late");
    Lab l = { .backend = dg_backend_cuda(), .level = level };
    long before, after;
    char last[32];

    open_lab_of(&l, configs[0], NULL);
    for (int i = 0; i < 2; i++) { /* the second as all that follow */
        before = cuda_emulation_nccl_calls();
        EXPECT(dg_team_sum(l.team, &comm, num, learn_one, &l) == DG_OK);
        after = cuda_emulation_nccl_calls();
    }
    snprintf(last, sizeof last, "%ld", 2 * after - before);
    if (comm.rank == bad)
        setenv("CUDA_EMULATION_LINK", last, 1);
    alarm(60);
    EXPECT(dg_team_sum(l.team, &comm, num, learn_one, &l) == DG_EDEVICE);
    alarm(0);
    unsetenv("CUDA_EMULATION_LINK");
    EXPECT(strstr(dg_last_error()->text, "network error") != NULL);
    EXPECT(dg_last_error()->rank == bad);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
}

static void test_a_broken_link_ends_all(void **state)
{
    (void)state;
    for (int k = 0; k < 2 && comm.size > 1; k++) {
        const ShardLevel level = k ? DG_SHARD_PARAMETERS : DG_SHARD_GRADIENTS;

        break_a_link(level, 1);
        break_a_link(level, 0);
        break_a_link_at_the_end(level, 0);
        break_a_link_at_the_end(level, comm.size - 1);
    }
    VERDICT();
}

/* The last of all: the GPU stays broken. Others have asked for what it will not
 * send. */
static void test_a_broken_gpu_ends_all(void **state)
{
    const int bad = comm.size - 1;
    CudaStream *s = use("late");
    Lab l;

    (void)state;
    open_lab(&l, dg_backend_cuda(), configs[0], 1, NULL);
    compare_sums(&l, 1);
    l.break_rank = bad;
    EXPECT(dg_team_sum(l.team, &comm, 2, learn_one, &l) == DG_EDEVICE);
    EXPECT(dg_last_error()->rank == bad || comm.size == 1);
    EXPECT(strstr(dg_last_error()->text, "launch failure") != NULL);
    EXPECT(dg_team_run(l.team, 1, predict_one, &l) == DG_EDEVICE);
    close_lab(&l);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

/* --- of weights that all ranks have ------------------------------------------- */

static Lab gradients_of(int recompute)
{
    return (Lab) { .backend = dg_backend_cuda(),
                   .level = DG_SHARD_GRADIENTS,
                   .recompute = recompute };
}

static void test_gradients_alone_leave_behind(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        CudaStream *s = use(streams[k]);
        Lab l = gradients_of(k);

        open_lab_of(&l, configs[k], NULL);
        if (k == 0) /* the first rank has never had one */
            compare_sums(&l, comm.rank % 2);
        dg_team_take_early(l.team);
        compare_sums(&l, 1);
        /* all blocks of an item, but what is in none */
        EXPECT(dg_team_take_early(l.team) ==
               (comm.size > 1 ? l.held->net.num_groups : 0));
        compare_sums(&l, comm.rank % 2);        /* the first has none */
        compare_predictions(&l, comm.rank % 2); /* nobody is met */
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

/* One after the other, and so into sums of the host's memory. */
static void test_gradients_alone_in_one_room(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        CudaStream *s = use("late");
        Lab l = gradients_of(1);

        l.offload = k;
        open_lab_of(&l, configs[0], "parallel.overlap=false");
        compare_sums(&l, k + comm.rank % 2);
        EXPECT(dg_team_take_early(l.team) == 0);
        close_lab(&l);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

static void test_gradients_alone_fail_for_all(void **state)
{
    CudaStream *s = use("early");
    Lab l = gradients_of(0);

    (void)state;
    check_failures(&l, configs[0]);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_weights_come_ahead),
    cmocka_unit_test(test_gradients_leave_behind),
    cmocka_unit_test(test_text_encoders_come_and_leave),
    cmocka_unit_test(test_adapters_lie_over_what_comes_ahead),
    cmocka_unit_test(test_one_room_does_as_well),
    cmocka_unit_test(test_weights_come_by_the_host_in_pieces),
    cmocka_unit_test(test_a_failure_is_everybodys),
    cmocka_unit_test(test_one_bad_gradient_is_named),
    cmocka_unit_test(test_gradients_alone_leave_behind),
    cmocka_unit_test(test_gradients_alone_in_one_room),
    cmocka_unit_test(test_gradients_alone_fail_for_all),
    cmocka_unit_test(test_a_broken_link_ends_all),
    cmocka_unit_test(test_a_broken_gpu_ends_all),
};

MPI_MAIN(mpi_cuda_pool, tests)
