/*
 * Convolutions by cuDNN: what their graphs say, by plain loops in the library's
 * place (tests/cuda_emulation/cudnn_graph.cc), and on a GPU by the real one;
 * which engines are taken, what is left to own kernels, whose are faster.
 */
#include "conv_bed.h"

#include "base/clock.h"
#include "cuda/conv_cudnn.h"

/* One for all that asks no library of a kind of its own: a kernel that the library
 * compiles takes it a second. */
static CudaStream *shared, *stream;

/* As the current stream one whose library has not been asked yet. 0: this machine
 * has none. */
static int open_stream(CudaStream **out, const char *mode)
{
    char version[32];

    if (mode != NULL)
        setenv("CUDA_EMULATION_CUDNN", mode, 1);
    assert_int_equal(dg_cuda_stream_create(out, 0), DG_OK);
    dg_cuda_use(*out);
    if (dg_cuda_conv_library(*out, version, sizeof version) == DG_OK)
        return 1;
    print_message("left out: %s\n", dg_last_error()->text);
    return 0;
}

static void close_stream(void)
{
    dg_cuda_stream_destroy(stream);
    unsetenv("CUDA_EMULATION_CUDNN");
}

/* The shared one from now on; its first calls are graphs too. */
static int with_library(void)
{
    static int there;

    if (shared == NULL) {
        there = open_stream(&shared, NULL);
        assert_int_equal(dg_cuda_replays(shared), DG_OK);
    }
    dg_cuda_use(shared);
    return there;
}

static int emulated(void)
{
    return cuda_emulation_order != NULL;
}

/* All that networks ask for: strides, zeros on one side, a zoomed map, one that
 * is cut, four channels, other kernels, channels beyond a block's. */
static const Shape shapes[] = {
    { 9, 6, 24, 40, 1, 1, 1, 1, 0, 3 },  { 1, 1, 8, 8, 1, 1, 1, 1, 0, 3 },
    { 2, 3, 72, 16, 1, 1, 1, 1, 0, 3 },  { 2, 2, 8, 136, 1, 1, 1, 1, 0, 3 },
    { 5, 4, 16, 24, 1, 0, 2, 1, 0, 3 },  { 5, 6, 16, 16, 1, 0, 0, 1, 0, 3 },
    { 9, 18, 24, 16, 2, 1, 1, 1, 0, 3 }, { 8, 6, 80, 8, 2, 0, 1, 1, 0, 3 },
    { 3, 5, 16, 24, 1, 1, 1, 2, 0, 3 },  { 3, 2, 8, 72, 1, 1, 1, 2, 1, 3 },
    { 3, 4, 24, 8, 2, 1, 1, 2, 0, 3 },   { 8, 8, 4, 24, 1, 1, 1, 1, 0, 3 },
    { 8, 8, 24, 4, 1, 1, 1, 1, 0, 3 },   { 4, 4, 16, 8, 2, 0, 0, 1, 0, 1 },
    { 6, 4, 8, 16, 1, 2, 2, 1, 0, 5 },
};
enum { NUM = sizeof shapes / sizeof *shapes };

/* Arguments in device memory, drawn; freed by close_args(). */
static ConvArgs open_args(const Shape *s, int64_t batch)
{
    ConvArgs a = args_of(s, batch);
    Place all[PLACES];
    float *p[PLACES];

    places_of(all, &a);
    kernel_draws_from(7);
    for (int i = 0; i < PLACES; ++i) {
        uint16_t *narrow = calloc((size_t)all[i].count, 4);

        for (int64_t k = 0; k < all[i].count && all[i].bytes == 2; ++k)
            narrow[k] = dg_bfloat_from_float(kernel_draw());
        p[i] = device_copy(narrow, (size_t)(all[i].count * all[i].bytes));
        done();
        free(narrow);
    }
    point_at(&a, p);
    a.scratch = device_copy(NULL, under_test()->conv_scratch(&a));
    return a;
}

static void close_args(const ConvArgs *a)
{
    const void *all[] = { a->x,  a->weight,  a->bias,  a->y,      a->dy,
                          a->dx, a->dweight, a->dbias, a->scratch };

    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        dg_cuda_free((void *)all[i]);
}

/* That the library has them, each way. */
static void test_library_is_asked(void **state)
{
    (void)state;
    if (with_library())
        for (int i = 0; i < NUM; ++i) {
            const ConvArgs a = open_args(&shapes[i], 2);

            assert_int_equal(dg_cuda_conv_cudnn(&a), 1);
            assert_int_equal(dg_cuda_conv_cudnn_input_grad(&a), 1);
            assert_int_equal(dg_cuda_conv_cudnn_weight_grad(&a), 1);
            done();
            close_args(&a);
        }
}

static void test_as_double_loops(void **state)
{
    (void)state;
    if (with_library())
        for (int i = 0; i < NUM; ++i) {
            kernel_draws_from(40u + (unsigned)i);
            check_loops(&shapes[i], 0, 1.0);
        }
}

static void test_neighbours_do_not_matter(void **state)
{
    (void)state;
    if (with_library())
        for (int i = 0; i < NUM; ++i) {
            kernel_draws_from(60u + (unsigned)i);
            check_batch(&shapes[i]);
        }
}

/* A convolution of no bias is the same with one of zeros. */
static void test_without_a_bias(void **state)
{
    const Shape *s = &shapes[0];

    (void)state;
    if (with_library()) {
        ConvArgs a = open_args(s, 1);
        const size_t bytes = (size_t)(a.out_h * a.out_w * a.out) * 2;
        char *first = malloc(bytes), *second = malloc(bytes);
        uint16_t zeros[64] = { 0 };

        assert_true(a.out <= 64);
        dg_cuda_upload((void *)a.bias, zeros, (size_t)a.out * 2);
        assert_int_equal(dg_cuda_conv_cudnn(&a), 1);
        dg_cuda_download(first, a.y, bytes);
        done();
        const float *bias = a.bias;
        a.bias = NULL;
        assert_int_equal(dg_cuda_conv_cudnn(&a), 1);
        dg_cuda_download(second, a.y, bytes);
        done();
        /* a sum of -0 becomes 0 by a zero that is added */
        for (size_t i = 0; i < bytes / 2; ++i)
            assert_true(((uint16_t *)first)[i] == ((uint16_t *)second)[i] ||
                        (((uint16_t *)second)[i] == 0x8000 || emulated() == 0));
        a.bias = bias;
        close_args(&a);
        free(first);
        free(second);
    }
}

/* which of the three, and back for the gradients */
static int (*const calls[])(const ConvArgs *a) = {
    dg_cuda_conv_cudnn, dg_cuda_conv_cudnn_input_grad,
    dg_cuda_conv_cudnn_weight_grad
};

static void expect(const Shape *s, int forward, int map, int weights)
{
    const ConvArgs a = open_args(s, 1);
    const int want[] = { forward, map, weights };

    for (int way = 0; way < 3; ++way)
        assert_int_equal(calls[way](&a), want[way]);
    done();
    close_args(&a);
}

/* Three channels, 56 of the emulation's, more than there is room for, places that
 * are not aligned. */
static void test_what_it_has_not_is_own(void **state)
{
    const Shape odd = { 4, 4, 3, 8, 1, 1, 1, 1, 0, 3 };
    const Shape lacking = { 4, 4, 56, 8, 1, 1, 1, 1, 0, 3 };
    const Shape large = { 4, 4, 96, 96, 1, 1, 1, 1, 0, 3 };
    const Shape *plain = &shapes[0];

    (void)state;
    if (with_library()) {
        expect(&odd, 0, 0, 0);
        if (emulated()) {
            expect(&lacking, 0, 0, 0);
            expect(&large, 1, 1, 0); /* as float32 they have no room */
        }
        ConvArgs a = open_args(plain, 1);
        const float *x = a.x;
        a.x = (const float *)((const char *)x + 8);
        assert_int_equal(dg_cuda_conv_cudnn(&a), 0);
        a.x = x;
        done();
        close_args(&a);
    }
}

/* Engines that sum in any order, or split sums, are none. */
static void test_engines_are_chosen(void **state)
{
    static const char *const modes[] = { "unordered", "nothing", "splits",
                                         "forward" };

    (void)state;
    for (int i = 0; emulated() && i < 4; ++i) {
        assert_int_equal(open_stream(&stream, modes[i]), 1);
        expect(&shapes[0], i == 3, 0, 0);
        close_stream();
    }
}

static void upload_narrow(const float *to, const float *from, int64_t num)
{
    uint16_t *narrow = malloc((size_t)num * 2);

    dg_bfloat_narrow(narrow, from, num);
    dg_cuda_upload((void *)to, narrow, (size_t)num * 2);
    done();
    free(narrow);
}

/* Maps that are the same everywhere, no bias, weights that the second half of channels, of either side,
 * has with the other sign: forward and the map's gradient are sums of 0, of which
 * nothing is left but how they were rounded. */
static void cancel(const ConvArgs *a)
{
    enum { MOST = 8192 };
    const int64_t taps = a->kernel_h * a->kernel_w;
    float *w = malloc(MOST * sizeof *w), all[MOST], zeros[64] = { 0 };

    assert_true(a->out * a->in * taps <= MOST && a->h * a->w * a->in <= MOST &&
                a->out_h * a->out_w * a->out <= MOST && a->out <= 64);
    for (int64_t i = 0; i < MOST; ++i)
        all[i] = 1.1f; /* products of many digits */
    for (int64_t i = 0; i < a->out * a->in * taps; ++i) {
        const int64_t t = i % taps, c = i / taps % a->in, o = i / taps / a->in;
        const int64_t c2 = c % (a->in / 2), o2 = o % (a->out / 2);

        w[i] = c2 == c && o2 == o ? kernel_draw()
                                  : w[(o2 * a->in + c2) * taps + t] *
                                        ((c2 == c) == (o2 == o) ? 1.0f : -1.0f);
    }
    upload_narrow(a->x, all, a->h * a->w * a->in);
    upload_narrow(a->dy, all, a->out_h * a->out_w * a->out);
    upload_narrow(a->weight, w, a->out * a->in * taps);
    upload_narrow(a->bias, zeros, a->out);
    free(w);
}

/* A library whose sums have another order each time, and that says nothing of
 * it, is an error that says what to do: each way. */
static void test_bits_that_do_not_repeat_are_told(void **state)
{
    static const Shape s = { 6, 6, 24, 24, 1, 1, 1, 1, 0, 3 };

    (void)state;
    for (int way = 0; emulated() && way < 3; ++way) {
        assert_int_equal(open_stream(&stream, "vary"), 1);
        const ConvArgs a = open_args(&s, 1);

        if (way < 2)
            cancel(&a);
        assert_int_equal(calls[way](&a), 1);
        assert_int_equal(dg_cuda_wait(), DG_EDEVICE);
        assert_non_null(strstr(dg_last_error()->text,
                               "the same call twice has given other bits"));
        close_args(&a);
        close_stream();
    }
}

/* Where steps are replayed a first call is a graph once too: one that cannot be is
 * told, and without replays it does not matter. */
static void test_calls_that_cannot_be_captured_are_told(void **state)
{
    (void)state;
    for (int replays = 0; emulated() && replays < 2; ++replays) {
        assert_int_equal(open_stream(&stream, "uncaptured"), 1);
        if (replays)
            assert_int_equal(dg_cuda_replays(stream), DG_OK);
        const ConvArgs a = open_args(&shapes[0], 1);

        assert_int_equal(dg_cuda_conv_cudnn(&a), 1);
        assert_int_equal(dg_cuda_wait(), replays ? DG_EDEVICE : DG_OK);
        if (replays)
            assert_non_null(strstr(dg_last_error()->text,
                                   "cannot keep its call in a graph"));
        close_args(&a);
        close_stream();
    }
}

/* Again and again the same bits; a GPU gets enough work for its blocks to come
 * in any order. */
static void test_bits_repeat(void **state)
{
    const Shape few = { 6, 6, 16, 24, 1, 1, 1, 1, 0, 3 };
    const Shape many = { 64, 64, 640, 320, 1, 1, 1, 1, 0, 3 };
    const Shape *s = emulated() ? &few : &many;

    (void)state;
    if (with_library()) {
        const ConvArgs a = open_args(s, 2);
        const void *const at[] = { a.y, a.dx, a.dweight };
        const size_t bytes[] = { (size_t)(a.batch * a.out_h * a.out_w * a.out) *
                                     2,
                                 (size_t)(a.batch * a.h * a.w * a.in) * 2,
                                 (size_t)(a.out * a.in * 9) * 4 };
        const Backend *t = under_test();

        for (int way = 0; way < 3; ++way) {
            char *kept = malloc(bytes[way]), *now = malloc(bytes[way]);

            for (int n = 0; n < (emulated() ? 3 : 20); ++n) {
                t->fill((float *)at[way], 0.0f, (int64_t)(bytes[way] / 2));
                assert_int_equal(calls[way](&a), 1);
                assert_int_equal(dg_cuda_stage_down(n == 0 ? kept : now,
                                                    at[way], bytes[way]),
                                 DG_OK);
                if (n > 0)
                    assert_memory_equal(kept, now, bytes[way]);
            }
            free(kept);
            free(now);
        }
        close_args(&a);
    }
}

/* ms of a call of a table's, the least of some */
static double least_ms(void (*call)(const ConvArgs *a), const ConvArgs *a)
{
    double least = 0;

    for (int n = 0; n < (emulated() ? 2 : 10); ++n) {
        const double began = dg_clock_now();

        call(a);
        done();

        const double took = dg_clock_now() - began;

        if (n == 1 || (n > 1 && took < least))
            least = took;
    }
    return 1e3 * least;
}

/* ms of the three on the current stream */
static void measure(double ms[3], const Shape *s, int64_t batch)
{
    const Backend *t = under_test();
    const ConvArgs a = open_args(s, batch);

    ms[0] = least_ms(t->conv, &a);
    ms[1] = least_ms(t->conv_input_grad, &a);
    ms[2] = least_ms(t->conv_weight_grad, &a);
    close_args(&a);
}

/* No test, but what a GPU is asked for: whose convolutions are faster. */
static void test_speed_beside_own(void **state)
{
    static const Shape large[] = { { 64, 64, 320, 320, 1, 1, 1, 1, 0, 3 },
                                   { 32, 32, 640, 640, 1, 1, 1, 1, 0, 3 },
                                   { 16, 16, 1280, 1280, 1, 1, 1, 1, 0, 3 },
                                   { 8, 8, 1280, 1280, 1, 1, 1, 1, 0, 3 },
                                   { 64, 64, 320, 320, 2, 1, 1, 1, 0, 3 },
                                   { 32, 32, 640, 640, 1, 1, 1, 2, 0, 3 } };
    static const Shape little[] = { { 4, 4, 8, 8, 1, 1, 1, 1, 0, 3 } };

    (void)state;
    for (int i = 0; with_library() && i < (emulated() ? 2 : 12); ++i) {
        const Shape *s = emulated() ? little : &large[i / 2];
        const int64_t batch = i % 2 ? 8 : 1;
        double own[3], cudnn[3];

        measure(cudnn, s, batch);
        assert_int_equal(dg_cuda_stream_create(&stream, 0), DG_OK);
        dg_cuda_use(stream);
        measure(own, s, batch);
        dg_cuda_stream_destroy(stream);
        print_message("speed: %d x %d x %d to %d%s, batch %d: own %.3f, %.3f, "
                      "%.3f ms, cuDNN %.3f, %.3f, %.3f ms\n",
                      (int)s->h, (int)s->w, (int)s->in, (int)s->out,
                      s->stride == 2 ? ", stride 2"
                      : s->zoom == 2 ? ", zoomed"
                                     : "",
                      (int)batch, own[0], own[1], own[2], cudnn[0], cudnn[1],
                      cudnn[2]);
    }
}

static void test_without_a_library_is_told(void **state)
{
    (void)state;
    if (!emulated())
        return;
    assert_int_equal(open_stream(&stream, "none"), 0);
    assert_non_null(strstr(dg_last_error()->text,
                           "run.convolution = \"cudnn\": no cuDNN 9"));
    close_stream();
    assert_int_equal(open_stream(&stream, "old"), 0);
    assert_non_null(strstr(dg_last_error()->text, "9.19 or later"));
    close_stream();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_library_is_asked),
    cmocka_unit_test(test_as_double_loops),
    cmocka_unit_test(test_neighbours_do_not_matter),
    cmocka_unit_test(test_without_a_bias),
    cmocka_unit_test(test_what_it_has_not_is_own),
    cmocka_unit_test(test_engines_are_chosen),
    cmocka_unit_test(test_bits_that_do_not_repeat_are_told),
    cmocka_unit_test(test_calls_that_cannot_be_captured_are_told),
    cmocka_unit_test(test_bits_repeat),
    cmocka_unit_test(test_speed_beside_own),
    cmocka_unit_test(test_without_a_library_is_told),
};

int main(void)
{
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    dg_cuda_stream_destroy(shared);
    return failed;
}
