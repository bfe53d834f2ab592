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
        dg_cuda_upload(p, host, bytes);
    return p;
}

/* main(), with a stream of its own, on which all tests run. */
#define CUDA_MAIN(tests)                                    \
    int main(void)                                          \
    {                                                       \
        CudaStream *stream;                                 \
        int failed;                                         \
                                                            \
        if (dg_cuda_stream_create(&stream, 0) != DG_OK) {   \
            print_error("%s\n", dg_last_error()->text);     \
            return 1;                                       \
        }                                                   \
        dg_cuda_use(stream);                                \
        failed = cmocka_run_group_tests(tests, NULL, NULL); \
        dg_cuda_stream_destroy(stream);                     \
        return failed;                                      \
    }

#endif
