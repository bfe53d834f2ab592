/*
 * A GPU, emulated, that fails while all ranks wait for a sum that it has a part
 * in: those that wait in vain hear of it at once, by their own name for it and
 * not by their patience. In a program of its own, since an emulated GPU fails for
 * good.
 */
#include "mpi_test.h"

#include "base/error.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"
#include "tensor/backend.h"

#include <string.h>
#include <unistd.h>

enum { NUM = 9001 };

static void test_who_waits_for_a_sum_hears(void **unused)
{
    const int fails = comm.rank == comm.size - 1;
    CudaStream *s = NULL;
    char text[32];
    void *at;

    (void)unused;
    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
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
    cmocka_unit_test(test_who_waits_for_a_sum_hears),
};

MPI_MAIN(mpi_cuda_alarm, tests)
