/* What test programs of the GPU side share. Included behind cmocka and
 * cuda/cuda.h. */
#ifndef DG_TESTS_CUDA_TEST_H
#define DG_TESTS_CUDA_TEST_H

/* A copy in device memory; host NULL: room for one. */
static inline void *device_copy(const void *host, size_t bytes)
{
    void *p;

    assert_int_equal(dg_cuda_alloc(&p, bytes), DG_OK);
    if (host != NULL)
        dg_cuda_stage_up(p, host, bytes);
    return p;
}

/* Runs all tests on a stream of their own; the number of failed ones. */
#define CUDA_RUN(failed, tests)                                 \
    do {                                                        \
        CudaStream *stream;                                     \
                                                                \
        failed = 1;                                             \
        if (dg_cuda_stream_create(&stream, 0) != DG_OK) {       \
            print_error("%s\n", dg_last_error()->text);         \
        } else {                                                \
            dg_cuda_use(stream);                                \
            failed = cmocka_run_group_tests(tests, NULL, NULL); \
            dg_cuda_stream_destroy(stream);                     \
        }                                                       \
    } while (0)

#define CUDA_MAIN(tests)         \
    int main(void)               \
    {                            \
        int failed;              \
                                 \
        CUDA_RUN(failed, tests); \
        return failed;           \
    }

/* The same within MPI. */
#define CUDA_COMM_MAIN(tests, comm)                       \
    int main(int argc, char **argv)                       \
    {                                                     \
        int failed;                                       \
                                                          \
        if (dg_comm_init(&(comm), &argc, &argv) != DG_OK) \
            return 1;                                     \
        CUDA_RUN(failed, tests);                          \
        dg_comm_fini(&(comm));                            \
        return failed;                                    \
    }

#endif
