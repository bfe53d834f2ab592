/*
 * A rank that fails while the others' GPUs, emulated, wait for its part in a sum:
 * those that wait in vain hear of it at once, by their own name for it and not by
 * their patience, whatever the host waits for. In a program of its own, since an
 * emulated GPU that fails does so for good.
 */
#include "mpi_test.h"

#include "base/error.h"
#include "cuda/attention_cudnn.h"
#include "cuda/conv_cudnn.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"
#include "tensor/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    NUM = 9001,
    PINNED = 8 << 20, /* that a stream has for copies */
    AHEAD = 200       /* calls that the driver takes before one waits */
};

static CudaStream *use(void)
{
    CudaStream *s = NULL;

    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    return s;
}

/* --- whatever the host waits for --------------------------------------------- */

/* of kernels that wait for a sum; at: [PINNED + 4] bytes, device. Each ends with
 * what the wait has found. */
static int for_all(float *at)
{
    (void)at;
    return dg_cuda_wait();
}

static int for_a_result(float *at)
{
    dg_backend_cuda()->first_nonfinite(at, NUM);
    return dg_cuda_wait();
}

/* to memory that is not pinned, where such a copy waits */
static int for_a_copy(float *at)
{
    float x;

    setenv("CUDA_EMULATION_PAGEABLE", "waits", 1);
    dg_cuda_download(&x, at, sizeof x);
    unsetenv("CUDA_EMULATION_PAGEABLE");
    return dg_cuda_wait();
}

static int for_pinned_memory(float *at)
{
    char *host = calloc(1, PINNED + 4);

    dg_cuda_stage_up(at, host, PINNED + 4);
    free(host);
    return dg_cuda_wait();
}

static void step(void *user)
{
    const float one = 1;

    dg_backend_cuda()->upload(user, &one, sizeof one);
    dg_backend_cuda()->scale(user, user, 2, NUM);
}

static int for_a_steps_inputs(float *at)
{
    for (int i = 0; i < 6; i++)
        dg_backend_cuda()->replay(step, at, NULL, 0);
    return dg_cuda_wait();
}

static int take(void *user, const void *part, size_t at, size_t bytes)
{
    (void)user, (void)part, (void)at, (void)bytes;
    return DG_OK;
}

static int for_parts(float *at)
{
    return dg_cuda_drain(at, PINNED, take, NULL);
}

/* What comes to the device for the first time: the driver may wait for all that
 * runs there. */
static int for_code(void (*first)(float *at), float *at)
{
    setenv("CUDA_EMULATION_LOAD", "waits", 1);
    first(at);
    unsetenv("CUDA_EMULATION_LOAD");
    return dg_cuda_wait();
}

static void new_kernel(float *at)
{
    dg_backend_cuda()->add(at, at, at, NUM);
}

static void multiply(float *at, int64_t samples, int64_t k)
{
    const GemmArgs g = { .m = 16 * samples,
                         .rows_per_sample = 16,
                         .n = 3,
                         .k = k,
                         .lda = k,
                         .ldb = 3,
                         .ldc = 3,
                         .a = at,
                         .b = at + 400,
                         .c = at + 500 };

    dg_backend_cuda()->gemm(&g);
}

static void new_product(float *at)
{
    multiply(at, 1, 6);
}

static void new_batch(float *at)
{
    multiply(at, 2, 5);
}

static void attend(float *at, int64_t d, int back)
{
    const AttentionArgs a = { .batch = 1,
                              .heads = 1,
                              .d = d,
                              .sq = 16,
                              .sk = 16,
                              .scale = 1,
                              .q = at,
                              .k = at,
                              .v = at,
                              .o = at + 400,
                              .lse = at + 800,
                              .d_o = at,
                              .dq = at + 1200,
                              .dk = at + 1600,
                              .dv = at + 2000 };

    EXPECT(back ? dg_cuda_attention_cudnn_grad(&a)
                : dg_cuda_attention_cudnn(&a));
}

static void new_attention(float *at)
{
    attend(at, 16, 0);
}

static void new_way_back(float *at)
{
    attend(at, 8, 1);
}

static void new_convolution(float *at)
{
    const ConvArgs a = { .batch = 1,
                         .h = 2,
                         .w = 2,
                         .in = 8,
                         .out_h = 2,
                         .out_w = 2,
                         .out = 8,
                         .kernel_h = 3,
                         .kernel_w = 3,
                         .stride = 1,
                         .top = 1,
                         .left = 1,
                         .zoom = 1,
                         .x = at,
                         .weight = at,
                         .y = at + 400 };

    EXPECT(dg_cuda_conv_cudnn(&a));
}

/* What a library launches, call by call, and more than a driver takes ahead. */
static int for_room_of_products(float *at)
{
    for (int i = 0; i < 2 * AHEAD; i++)
        multiply(at, 1, 5);
    return dg_cuda_wait();
}

static int for_room_of_attention(float *at)
{
    for (int i = 0; i < 2 * AHEAD; i++)
        attend(at, 8, 0);
    return dg_cuda_wait();
}

static int for_a_kernels_code(float *at)
{
    return for_code(new_kernel, at);
}

static int for_a_products_code(float *at)
{
    return for_code(new_product, at);
}

static int for_a_batchs_code(float *at)
{
    return for_code(new_batch, at);
}

static int for_an_attentions_code(float *at)
{
    return for_code(new_attention, at);
}

static int for_a_way_backs_code(float *at)
{
    return for_code(new_way_back, at);
}

static int for_a_convolutions_code(float *at)
{
    return for_code(new_convolution, at);
}

/* Nobody's GPU fails: one rank has, and gives an alarm in place of its part. */
static void hear(int (*wait)(float *at))
{
    const int fails = comm.rank == comm.size - 1;
    CudaStream *s = use();
    char version[32];
    int err = DG_OK;
    void *sum, *at;

    EXPECT(dg_cuda_replays(s) == DG_OK);
    EXPECT(dg_cuda_attention_library(s, version, sizeof version) == DG_OK);
    EXPECT(dg_cuda_conv_library(s, version, sizeof version) == DG_OK);
    EXPECT(dg_cuda_take(&sum, NUM * sizeof(int64_t)) == DG_OK);
    EXPECT(dg_cuda_take(&at, PINNED + 4) == DG_OK);
    multiply(at, 1, 5); /* which is known when a batch of it comes, */
    attend(at, 8, 0);   /* and this when its way back does */
    EXPECT(dg_cuda_wait() == DG_OK);
    dg_cuda_comm_slot(0);
    if (fails) {
        err = dg_fail(DG_EDEVICE, "a rank fails");
        dg_comm_alarm(&comm);
    } else {
        EXPECT(dg_cuda_comm_send(sum, NUM, 1, -1) == DG_OK);
        dg_cuda_comm_leaves(0);
        if (wait != for_a_products_code) /* which the driver does */
            dg_cuda_comm_slot(0);        /* the kernels wait for it */
        dg_backend_cuda()->fill(at, 1, NUM);
        alarm(60);
        EXPECT(wait(at) == DG_EDEVICE);
        alarm(0);
        EXPECT(strstr(dg_last_error()->text, "another rank has failed"));
    }
    EXPECT(dg_cuda_comm_sent(&comm, err, 1) == DG_EDEVICE);
    EXPECT(strcmp(dg_last_error()->text, "a rank fails") == 0);
    EXPECT(dg_last_error()->rank == comm.size - 1);
    dg_cuda_free(at);
    dg_cuda_free(sum);
    dg_cuda_stream_destroy(s);
}

static void test_who_waits_behind_a_sum_hears(void **unused)
{
    static int (*const waits[])(float *) = { for_all,
                                             for_a_result,
                                             for_a_copy,
                                             for_pinned_memory,
                                             for_a_steps_inputs,
                                             for_parts,
                                             for_room_of_products,
                                             for_room_of_attention,
                                             for_a_kernels_code,
                                             for_a_products_code,
                                             for_a_batchs_code,
                                             for_an_attentions_code,
                                             for_a_way_backs_code,
                                             for_a_convolutions_code };

    char text[16];

    (void)unused;
    snprintf(text, sizeof text, "%d", AHEAD);
    setenv("CUDA_EMULATION_QUEUE", text, 1); /* seen at the first launch */
    for (size_t i = 0; i < sizeof waits / sizeof *waits && comm.size > 1; i++)
        hear(waits[i]);
    VERDICT();
}

/* --- a sum that is waited for -------------------------------------------------- */

static void test_who_waits_for_a_sum_hears(void **unused)
{
    const int fails = comm.rank == comm.size - 1;
    CudaStream *s = use();
    char text[32];
    void *at;

    (void)unused;
    EXPECT(dg_cuda_take(&at, NUM * sizeof(int64_t)) == DG_OK);
    snprintf(text, sizeof text, "%d:0", comm.rank);
    if (fails)
        setenv("CUDA_EMULATION_FAIL", text, 1);
    dg_backend_cuda()->fill(at, 1, 2 * NUM); /* queued: no rank knows yet */
    alarm(60);
    EXPECT(dg_cuda_comm_sum(&comm, at, NUM, 1) == DG_EDEVICE);
    alarm(0);
    EXPECT(strstr(dg_last_error()->text, "launch failure") != NULL);
    EXPECT(comm.size == 1 || dg_last_error()->rank == comm.size - 1);
    dg_cuda_free(at);
    dg_cuda_stream_destroy(s);
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_who_waits_behind_a_sum_hears),
    cmocka_unit_test(test_who_waits_for_a_sum_hears), /* the last */
};

MPI_MAIN(mpi_cuda_alarm, tests)
