/*
 * What makes a replayed step another one, for which no kept graph stands, and that
 * its inputs are its own.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "tensor/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROWS = 40, WIDTH = 24, N = ROWS * WIDTH };

static float *device_of(int num)
{
    void *p;

    assert_int_equal(dg_cuda_take(&p, sizeof(float) * (size_t)num), DG_OK);
    return p;
}

static CudaStream *use(void)
{
    CudaStream *s;

    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    assert_int_equal(dg_cuda_replays(s), DG_OK);
    return s;
}

/* --- what makes a step another one -------------------------------------------- */

/* A step whose calls differ in one thing at a time. */
enum Varied {
    NOTHING,
    KERNEL, /* with the same arguments */
    UP_TO,
    UP_BYTES,
    A,
    B,
    C,
    NUM_ROWS, /* of samples */
    BIAS,
    PRE,
    Y,
    ALL_VARIED
};

enum { ARRAYS = 12, PER = ROWS / 2 };

typedef struct Vary {
    float *all; /* [ARRAYS, N], device */
    enum Varied by;
} Vary;

/* array i, or where this is what differs the last one */
static float *array_of(const Vary *v, int i, enum Varied what)
{
    return v->all + (v->by == what ? ARRAYS - 1 : i) * N;
}

static void varied_step(void *user)
{
    const Vary *v = user;
    const Backend *be = dg_backend_cuda();
    const int rows = v->by == NUM_ROWS ? PER : 2 * PER;
    float host[8] = { 3, 1, 4, 1, 5, 9, 2, 6 };

    (v->by == KERNEL ? be->bf16 : be)
        ->add(v->all, v->all + N, v->all + 2 * N, 8);
    be->upload(array_of(v, 0, UP_TO) + 8, host, v->by == UP_BYTES ? 16 : 32);
    be->gemm(&(GemmArgs) { .rows_per_sample = PER,
                           .m = rows,
                           .n = WIDTH,
                           .k = WIDTH,
                           .a = array_of(v, 3, A),
                           .lda = WIDTH,
                           .b = array_of(v, 4, B),
                           .ldb = WIDTH,
                           .c = array_of(v, 5, C),
                           .ldc = WIDTH });
    be->bf16->linear(&(LinearArgs) { .rows = rows,
                                     .rows_per_sample = PER,
                                     .in = WIDTH,
                                     .ldw = WIDTH,
                                     .out = WIDTH,
                                     .x = v->all + 6 * N,
                                     .w = v->all + 7 * N,
                                     .bias = array_of(v, 8, BIAS),
                                     .pre = array_of(v, 9, PRE),
                                     .y = array_of(v, 10, Y),
                                     .act = DG_ACT_GELU_TANH });
}

/* all that a step leaves behind */
static void left_by(float *out, Vary *v, int replayed)
{
    static float before[ARRAYS * N];

    for (int i = 0; i < ARRAYS * N; i++)
        before[i] = (float)((i * 37 + i / N * 11) % 101 - 50) / 64;
    dg_cuda_stage_up(v->all, before, sizeof before);
    if (replayed)
        dg_backend_cuda()->replay(varied_step, v, NULL, 0);
    else
        varied_step(v);
    assert_int_equal(dg_cuda_stage_down(out, v->all, sizeof before), DG_OK);
}

static void test_whatever_differs_is_another_step(void **unused)
{
    static float run[ARRAYS * N], replayed[ARRAYS * N], plain[ARRAYS * N];
    CudaStream *s = use();
    Vary v = { .all = device_of(ARRAYS * N) };

    (void)unused;
    left_by(plain, &v, 0);
    for (int i = 0; i < 3; i++)
        left_by(replayed, &v, 1);
    assert_memory_equal(plain, replayed, sizeof plain);
    for (int by = NOTHING + 1; by < ALL_VARIED; by++) {
        v.by = (enum Varied)by;
        left_by(run, &v, 0);
        left_by(replayed, &v, 1);
        assert_memory_equal(run, replayed, sizeof run);
        assert_memory_not_equal(run, plain, sizeof run);
    }
    dg_cuda_free(v.all);
    dg_cuda_stream_destroy(s);
}

/* --- its inputs --------------------------------------------------------------- */

typedef struct Input {
    float *place, *sum; /* device */
    float *host;
    int num;
} Input;

static void add_input(void *user)
{
    const Input *x = user;
    const Backend *be = dg_backend_cuda();

    be->upload(x->place, x->host, sizeof *x->host * (size_t)x->num);
    be->add(x->sum, x->sum, x->place, x->num);
}

/* Whose graphs nobody waits for, and inputs that no pack holds. */
static void test_inputs_are_each_steps_own(void **unused)
{
    static const int nums[] = { N, 3 << 20 };
    CudaStream *s = use();

    (void)unused;
    for (int k = 0; k < 2; k++) {
        const int num = nums[k];
        Input x = { device_of(num), device_of(num),
                    malloc(sizeof(float) * (size_t)num), num };

        for (int i = 1; i <= 7; i++) {
            for (int j = 0; j < num; j++)
                x.host[j] = (float)(i * i);
            dg_backend_cuda()->replay(add_input, &x, NULL, 0);
        }
        assert_int_equal(
            dg_cuda_stage_down(x.host, x.sum, sizeof(float) * (size_t)num),
            DG_OK);
        for (int j = 0; j < num; j++)
            assert_true(x.host[j] == 140);
        dg_cuda_free(x.place);
        dg_cuda_free(x.sum);
        free(x.host);
    }
    dg_cuda_stream_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whatever_differs_is_another_step),
        cmocka_unit_test(test_inputs_are_each_steps_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
