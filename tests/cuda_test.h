/* main() of a test program of the GPU side: a stream of its own, on which all
 * tests run. */
#ifndef DG_TESTS_CUDA_TEST_H
#define DG_TESTS_CUDA_TEST_H

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
