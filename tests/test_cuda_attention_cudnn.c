/*
 * Attention by cuDNN: what its graphs say, by plain loops in the library's place
 * (tests/cuda_emulation/cudnn_graph.cc), and on a GPU by the real one; which
 * engines are taken, and what is left to own kernels.
 */
#include "attention_bed.h"
#include "base/clock.h"
#include "cuda/attention_cudnn.h"
#include "cuda/attention_mma.h"
#include "cuda_test.h"

static const Attention cudnn = { dg_cuda_attention_cudnn,
                                 dg_cuda_attention_cudnn_grad };

static const Attention own = { dg_cuda_attention_mma,
                               dg_cuda_attention_mma_grad };

static CudaStream *stream;

/* A stream of its own, whose library has not been asked yet. 0: this machine
 * has none. */
static int open_stream(const char *mode)
{
    char version[32];

    if (mode != NULL)
        setenv("CUDA_EMULATION_CUDNN", mode, 1);
    must(dg_cuda_stream_create(&stream, 0));
    dg_cuda_use(stream);
    if (dg_cuda_attention_library(stream, version, sizeof version) == DG_OK)
        return 1;
    print_message("left out: %s\n", dg_last_error()->text);
    return 0;
}

static void close_stream(void)
{
    dg_cuda_stream_destroy(stream);
    unsetenv("CUDA_EMULATION_CUDNN");
}

static int emulated(void)
{
    return cuda_emulation_order != NULL;
}

/* Tails of queries and keys, words beside a map, heads that are not all done at
 * a time for want of room. */
static void test_as_loops_in_double(void **state)
{
    static const Case cases[] = {
        { 1, 2, 64, 70, 70, 0, 0 },  { 2, 2, 40, 33, 77, 0, 0 },
        { 1, 1, 128, 65, 67, 0, 6 }, { 1, 1, 160, 20, 63, 0, 0 },
        { 1, 3, 8, 140, 1, 0, 0 },   { 2, 3, 16, 200, 210, 0, 0 },
    };

    (void)state;
    if (open_stream(NULL))
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            check_attention(&cudnn, &cases[i]);
    close_stream();
}

static void test_neighbours_do_not_matter(void **state)
{
    static const Case cases[] = { { 2, 2, 64, 70, 65, 0, 0 },
                                  { 2, 3, 16, 200, 210, 0, 0 } };

    (void)state;
    if (open_stream(NULL))
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            compare_alone(&cudnn, &cases[i]);
    close_stream();
}

/* Of a forward pass that is not recorded nobody wants lse: same bits. */
static void test_what_is_not_kept_does_not_matter(void **state)
{
    static const Case c = { 2, 2, 64, 70, 65, 0, 0 };
    uint16_t *first;
    Bed b;

    (void)state;
    if (open_stream(NULL)) {
        open_bed(&b, &c);
        assert_int_equal(dg_cuda_attention_cudnn(&b.args), 1);
        fetch(&b);
        first = malloc((size_t)b.count[O] * 2);
        assert_non_null(first);
        memcpy(first, b.host[O], (size_t)b.count[O] * 2);
        dg_cuda_stage_up(b.at[O], b.host[Q], (size_t)b.count[O] * 2);
        b.args.lse = NULL;
        assert_int_equal(dg_cuda_attention_cudnn(&b.args), 1);
        fetch(&b);
        assert_memory_equal(first, b.host[O], (size_t)b.count[O] * 2);
        free(first);
        close_bed(&b);
    }
    close_stream();
}

/* Again and again the same bits; a GPU gets enough work for its blocks to come
 * in any order. */
static void test_bits_repeat(void **state)
{
    const Case few = { 1, 2, 16, 70, 70, 0, 0 };
    const Case many = { 1, 24, 128, 2304, 2304, 0, 0 };
    uint16_t *kept[ARRAYS] = { NULL };
    Bed b;

    (void)state;
    if (open_stream(NULL)) {
        open_bed(&b, emulated() ? &few : &many);
        for (int n = 0; n < (emulated() ? 3 : 20); n++) {
            assert_int_equal(dg_cuda_attention_cudnn(&b.args), 1);
            assert_int_equal(dg_cuda_attention_cudnn_grad(&b.args), 1);
            fetch(&b);
            for (int i = O; i < ARRAYS; i++) {
                const size_t bytes = (size_t)b.count[i] * 2;

                if (n == 0)
                    kept[i] = memcpy(malloc(bytes), b.host[i], bytes);
                assert_memory_equal(kept[i], b.host[i], bytes);
            }
        }
        for (int i = 0; i < ARRAYS; i++)
            free(kept[i]);
        close_bed(&b);
    }
    close_stream();
}

/* A library whose sums have another order each time, and that says nothing of
 * it, is an error that says what to do: backward too, though forward's first call
 * ends the run already, so that it is made by a library that does not vary yet. */
static void test_bits_that_do_not_repeat_are_told(void **state)
{
    const Case c = { 1, 2, 16, 70, 70, 0, 0 };
    Bed b;

    (void)state;
    if (!emulated())
        skip();
    for (int back = 0; back < 2; back++) {
        if (!open_stream(back ? NULL : "vary"))
            continue;
        open_bed(&b, &c);
        assert_int_equal(dg_cuda_attention_cudnn(&b.args), 1);
        if (back) {
            must(dg_cuda_wait());
            setenv("CUDA_EMULATION_CUDNN", "vary", 1);
            assert_int_equal(dg_cuda_attention_cudnn_grad(&b.args), 1);
        }
        assert_int_equal(dg_cuda_wait(), DG_EDEVICE);
        assert_non_null(strstr(dg_last_error()->text,
                               "the same call twice has given other bits"));
        assert_int_equal(strstr(dg_last_error()->text, "backward") != NULL,
                         back);
        unsetenv("CUDA_EMULATION_CUDNN");
        close_bed(&b);
        close_stream();
    }
}

/* ms of a call, the least of some */
static double least_ms(int (*call)(const AttentionArgs *a),
                       const AttentionArgs *a)
{
    double least = 0;

    for (int n = 0; n < (emulated() ? 2 : 10); n++) {
        const double began = dg_clock_now();

        assert_int_equal(call(a), 1);
        must(dg_cuda_wait());

        const double took = dg_clock_now() - began;

        if (n == 1 || (n > 1 && took < least))
            least = took;
    }
    return 1e3 * least;
}

/* No test, but what a GPU is asked for: whose attention is faster. */
static void test_speed_beside_own(void **state)
{
    static const Case large[] = { { 1, 24, 128, 4608, 4608, 0, 0 },
                                  { 1, 8, 40, 4096, 4096, 0, 0 },
                                  { 1, 8, 80, 1024, 77, 0, 0 } };
    static const Case little[] = { { 1, 2, 16, 40, 40, 0, 0 } };
    const int num = emulated() ? 1 : 3;
    Bed b;

    (void)state;
    if (open_stream(NULL))
        for (int i = 0; i < num; i++) {
            const Case *c = emulated() ? &little[i] : &large[i];

            double ms[4];

            open_bed(&b, c);
            ms[0] = least_ms(own.forward, &b.args);
            ms[1] = least_ms(own.backward, &b.args);
            ms[2] = least_ms(cudnn.forward, &b.args);
            ms[3] = least_ms(cudnn.backward, &b.args);
            print_message("speed: %d x %d, %d keys: own %.3f, %.3f ms, cuDNN "
                          "%.3f, %.3f ms\n",
                          (int)c->heads, (int)c->d, (int)c->sk, ms[0], ms[1],
                          ms[2], ms[3]);
            close_bed(&b);
        }
    close_stream();
}

/* Neither forward nor backward, and nothing is done. */
static void expect_own(const Case *c)
{
    Bed b;

    open_bed(&b, c);
    assert_int_equal(dg_cuda_attention_cudnn(&b.args), 0);
    assert_int_equal(dg_cuda_attention_cudnn_grad(&b.args), 0);
    b.args.causal = 0;
    close_bed(&b);
}

static void test_what_it_has_not_is_own(void **state)
{
    static const Case causal = { 1, 2, 16, 20, 20, 1, 0 };
    static const Case odd = { 1, 2, 12, 20, 20, 0, 0 };
    static const Case lacking = { 1, 2, 56, 20, 20, 0, 0 };
    static const Case plain = { 1, 2, 16, 20, 20, 0, 0 };
    static const Case long_one = { 1, 1, 8, 400, 400, 0, 0 };
    AttentionArgs a;
    Bed b;

    (void)state;
    if (open_stream(NULL)) {
        expect_own(&causal);
        expect_own(&odd);
        if (emulated()) {
            expect_own(&lacking);
            expect_own(&long_one); /* dS has no room */
        }
        open_bed(&b, &plain);
        a = b.args;
        a.bias = (const float *)b.at[Q];
        assert_int_equal(dg_cuda_attention_cudnn(&a), 0);
        a = b.args;
        a.k = (const float *)((const char *)a.k + 4);
        assert_int_equal(dg_cuda_attention_cudnn(&a), 0);
        must(dg_cuda_wait());
        close_bed(&b);
    }
    close_stream();
}

/* Shapes whose gradient the library spoils on Hopper, and only there. */
static void test_half_tiles_on_hopper_are_own(void **state)
{
    static const Case spoiled[] = { { 1, 2, 16, 20, 64, 0, 0 },
                                    { 1, 2, 16, 20, 192, 0, 0 },
                                    { 1, 2, 16, 1, 128, 0, 0 } };
    static const Case whole[] = { { 1, 2, 16, 20, 128, 0, 0 },
                                  { 1, 2, 16, 20, 65, 0, 0 } };

    (void)state;
    if (!emulated())
        return;
    setenv("CUDA_EMULATION_MAJOR", "9", 1);
    assert_int_equal(open_stream(NULL), 1);
    for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++)
        expect_own(&spoiled[i]);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        check_attention(&cudnn, &whole[i]);
    close_stream();
    unsetenv("CUDA_EMULATION_MAJOR");
    assert_int_equal(open_stream(NULL), 1);
    for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++)
        check_attention(&cudnn, &spoiled[i]);
    close_stream();
}

/* Engines that sum in any order are none, and forward goes with backward. */
static void test_engines_are_chosen(void **state)
{
    static const char *const modes[] = { "unordered", "nothing", "forward" };
    static const Case plain = { 1, 2, 16, 20, 20, 0, 0 };

    (void)state;
    for (int i = 0; emulated() && i < 3; i++) {
        assert_int_equal(open_stream(modes[i]), 1);
        expect_own(&plain);
        close_stream();
    }
}

/* Backward in two kernels, all heads at once. */
static void test_kernels_without_workspace(void **state)
{
    static const Case c = { 2, 3, 16, 200, 210, 0, 0 };

    (void)state;
    if (!emulated())
        return;
    assert_int_equal(open_stream("blackwell"), 1);
    check_attention(&cudnn, &c);
    compare_alone(&cudnn, &c);
    close_stream();
}

static void test_without_a_library_is_told(void **state)
{
    (void)state;
    if (!emulated())
        return;
    assert_int_equal(open_stream("none"), 0);
    assert_non_null(strstr(dg_last_error()->text, "no cuDNN 9"));
    close_stream();
    assert_int_equal(open_stream("old"), 0);
    assert_non_null(strstr(dg_last_error()->text, "9.19 or later"));
    close_stream();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_as_loops_in_double),
    cmocka_unit_test(test_neighbours_do_not_matter),
    cmocka_unit_test(test_what_is_not_kept_does_not_matter),
    cmocka_unit_test(test_bits_repeat),
    cmocka_unit_test(test_bits_that_do_not_repeat_are_told),
    cmocka_unit_test(test_speed_beside_own),
    cmocka_unit_test(test_what_it_has_not_is_own),
    cmocka_unit_test(test_half_tiles_on_hopper_are_own),
    cmocka_unit_test(test_engines_are_chosen),
    cmocka_unit_test(test_kernels_without_workspace),
    cmocka_unit_test(test_without_a_library_is_told),
};

int main(void)
{
    return cmocka_run_group_tests(tests, NULL, NULL);
}
