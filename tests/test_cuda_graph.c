/*
 * Steps that are replayed as graphs: the bits of steps that are run, whatever
 * changes between them.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* of the emulation; a GPU does not tell */
long cuda_emulation_graphs(void) __attribute__((weak));

enum { ROWS = 40, WIDTH = 24, N = ROWS * WIDTH, W = WIDTH * WIDTH };

/* A step in small: two products, and a place that serves two uploads, one
 * after the other, with a kernel's result between them. */
typedef struct Step {
    const float *z, *more;
    float *weights, *place, *sum, *out; /* device */
    float time, alpha;
    const float **list; /* the first is 'more', where there are any */
    int rows, calls;
} Step;

static void product(const Step *s, float *c, const float *a)
{
    dg_backend_cuda()->gemm(&(GemmArgs) { .rows_per_sample = ROWS / 2,
                                          .m = s->rows,
                                          .n = WIDTH,
                                          .k = WIDTH,
                                          .a = a,
                                          .lda = WIDTH,
                                          .b = s->weights,
                                          .ldb = WIDTH,
                                          .c = c,
                                          .ldc = WIDTH });
}

/* A few rows more. Between the members of what is handed over lies something
 * else each time. */
static void few_rows(const Step *s)
{
    GemmArgs g;

    memset(&g, s->calls, sizeof g);
    g.rows_per_sample = g.m = 4;
    g.n = g.k = g.lda = g.ldb = g.ldc = WIDTH;
    g.trans_a = 0;
    g.trans_b = s->calls > 0; /* always: who cannot know leaves the memory */
    g.beta = 1;
    g.a = s->place;
    g.b = s->weights;
    g.c = s->sum;
    dg_backend_cuda()->gemm(&g);
}

static void run_step(void *user)
{
    Step *s = user;
    const Backend *be = dg_backend_cuda();
    float host[N];

    s->calls++;
    if (s->list != NULL)
        s->more = s->list[0];
    for (int i = 0; i < N; i++)
        host[i] = s->time * (float)(i % 7);
    be->upload(s->place, host, sizeof host);
    be->add(s->sum, s->z, s->place, N);
    be->scale(s->sum, s->sum, s->alpha, N);
    be->add(s->sum, s->sum, s->more, N);
    product(s, s->place, s->sum);
    be->add(s->sum, s->sum, s->place, N);
    for (int i = 0; i < N; i++)
        host[i] = s->time + (float)(i % 5);
    be->upload(s->place, host, sizeof host);
    be->add(s->sum, s->sum, s->place, N);
    few_rows(s);
    product(s, s->out, s->sum);
}

static float *device_of(int num, int seed)
{
    float *host = malloc((size_t)num * sizeof *host);
    void *p;

    for (int i = 0; i < num; i++)
        host[i] = (float)((i * 37 + seed * 11) % 101 - 50) / 64;
    assert_int_equal(dg_cuda_take(&p, (size_t)num * sizeof *host), DG_OK);
    dg_cuda_stage_up(p, host, (size_t)num * sizeof *host);
    free(host);
    return p;
}

static void take_step(Step *s)
{
    *s = (Step) { .rows = ROWS, .alpha = 1 };
    s->weights = device_of(W, 1);
    s->place = device_of(N, 2);
    s->sum = device_of(N, 3);
    s->out = device_of(N, 4);
    s->more = s->place;
}

static void give_step(Step *s)
{
    dg_cuda_free(s->weights);
    dg_cuda_free(s->place);
    dg_cuda_free(s->sum);
    dg_cuda_free(s->out);
}

static void replay_step(Step *s, int64_t count)
{
    const Moving z = { &s->z, 1, count };

    dg_backend_cuda()->replay(run_step, s, &z, 1);
}

/* latents at another place each time, another time, now and then another
 * factor, summand and number of rows */
static void outputs(float *out, int replayed, int num)
{
    float *z[3] = { device_of(N, 5), device_of(N, 6), device_of(N, 7) };
    Step s;

    take_step(&s);
    for (int i = 0; i < num; i++) {
        s.z = z[i % 3];
        s.time = 0.25f * (float)i;
        s.rows = i % 4 == 3 ? ROWS - 3 : ROWS;
        s.alpha = i % 2 ? 0.5f : 0.25f;
        s.more = z[i % 4 / 2];
        if (replayed)
            replay_step(&s, N);
        else
            run_step(&s);
        assert_int_equal(
            dg_cuda_stage_down(out + i * N, s.out, sizeof *out * N), DG_OK);
    }
    give_step(&s);
    for (int i = 0; i < 3; i++)
        dg_cuda_free(z[i]);
}

static CudaStream *use(int replays)
{
    CudaStream *s;

    if (dg_cuda_stream_create(&s, 0) != DG_OK)
        fail_msg("%s", dg_last_error()->text);
    dg_cuda_use(s);
    if (replays)
        assert_int_equal(dg_cuda_replays(s), DG_OK);
    return s;
}

static long graphs(void)
{
    return cuda_emulation_graphs != NULL ? cuda_emulation_graphs() : 0;
}

static void test_replayed_steps_have_the_same_bits(void **unused)
{
    enum { NUM = 16 };
    static float run[NUM * N], replayed[NUM * N];
    CudaStream *s = use(1);
    const long before = graphs();

    (void)unused;
    outputs(run, 0, NUM);
    outputs(replayed, 1, NUM);
    assert_memory_equal(run, replayed, sizeof run);
    /* all but the first of each of the four */
    if (cuda_emulation_graphs != NULL)
        assert_int_equal(graphs() - before, NUM - 4);
    dg_cuda_stream_destroy(s);
}

/* Three arrays of the second kind, two of which are one, at other places each time:
 * one graph; where they do not fit, one for each place. */
static void second_kind(int64_t count, int places, int alike)
{
    enum { ROUNDS = 4 };
    const long before = graphs();
    static float want[N], got[N];
    float *z[3] = { device_of(N, 5), device_of(N, 6), device_of(N, 7) };
    const float *at[3];
    Step s;

    take_step(&s);
    for (int i = 0; i < ROUNDS * places; i++) {
        const float *first = z[i % places], *other = z[(i + 1) % places];
        const Moving moving[] = { { &s.z, 1, N }, { at, 3, count } };

        s.z = z[2];
        s.more = first;
        run_step(&s);
        assert_int_equal(dg_cuda_stage_down(want, s.out, sizeof want), DG_OK);
        at[0] = at[2] = first;
        at[1] = other;
        s.z = z[2];
        s.list = at;
        dg_backend_cuda()->replay(run_step, &s, moving, 2);
        s.list = NULL;
        assert_int_equal(dg_cuda_stage_down(got, s.out, sizeof got), DG_OK);
        assert_memory_equal(want, got, sizeof want);
        assert_ptr_equal(at[0], at[2]);
        assert_true((at[0] == first) == !alike);
    }
    if (cuda_emulation_graphs != NULL)
        assert_int_equal(graphs() - before,
                         ROUNDS * places - (alike ? 1 : places));
    give_step(&s);
    for (int i = 0; i < 3; i++)
        dg_cuda_free(z[i]);
}

static void test_conditions_share_a_graph(void **unused)
{
    CudaStream *s = use(1);

    (void)unused;
    second_kind(N, 2, 1);
    second_kind(5 << 20, 2, 0); /* two of 20 MB; nobody reads them */
    assert_int_equal(dg_cuda_wait(), DG_OK);
    dg_cuda_stream_destroy(s);
}

static void test_without_graphs_steps_are_run(void **unused)
{
    static float run[3 * N], off[3 * N];
    CudaStream *s = use(0);
    const long before = graphs();

    (void)unused;
    outputs(run, 0, 3);
    outputs(off, 1, 3);
    assert_memory_equal(run, off, sizeof run);
    assert_int_equal(graphs(), before);
    dg_cuda_stream_destroy(s);
}

/* More shapes than graphs are kept: the oldest make room, bits stay. */
static void test_old_graphs_make_room(void **unused)
{
    enum { SHAPES = 36, ROUNDS = 2 };
    static float want[N], got[N];
    CudaStream *stream = use(1);
    float *z = device_of(N, 8);
    size_t left, first = 0, all;
    Step s;

    (void)unused;
    take_step(&s);
    for (int i = 0; i < 2 * SHAPES * ROUNDS; i++) {
        s.rows = 4 + i / 2 % SHAPES;
        s.time = (float)i;
        s.z = z;
        run_step(&s);
        assert_int_equal(dg_cuda_stage_down(want, s.out, sizeof want), DG_OK);
        s.z = z;
        replay_step(&s, N);
        assert_int_equal(dg_cuda_stage_down(got, s.out, sizeof got), DG_OK);
        assert_memory_equal(want, got, sizeof want);
        if ((i + 1) % (2 * SHAPES) != 0)
            continue;
        /* as many graphs after each round */
        assert_int_equal(dg_cuda_room(&left, &all), DG_OK);
        first = first > 0 ? first : left;
        assert_true(cuda_emulation_graphs == NULL || left == first);
    }
    give_step(&s);
    dg_cuda_free(z);
    dg_cuda_stream_destroy(stream);
}

/* --- a way back ------------------------------------------------------------ */

/* A layer used twice, as a block, and its way back. */
typedef struct Way {
    Context ctx;
    Tensor weight;
    float *grads; /* [W], device */
    void *saved;
    Tensor *y, *grad;
    int err;
} Way;

static void layer(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    out[0] = dg_op_linear(ctx, in[0], *(const Tensor *const *)args, NULL,
                          DG_ACT_SILU);
}

static void way_forward(Way *w, const float *x, int rows)
{
    const Tensor *weight = &w->weight;
    TapeBlock b = { .fn = layer,
                    .args = &weight,
                    .args_bytes = sizeof weight,
                    .num_in = 1,
                    .num_out = 1 };
    const int64_t dims[2] = { rows, WIDTH };

    dg_context_reset(&w->ctx);
    b.in[0] = dg_tensor_new(&w->ctx, DG_F32, 2, dims);
    w->grad = dg_tensor_new(&w->ctx, DG_F32, 2, dims);
    dg_backend_cuda()->scale(b.in[0]->data, x, 1, rows * WIDTH);
    dg_backend_cuda()->scale(w->grad->data, x, 0.5f, rows * WIDTH);
    dg_tape_begin(&w->ctx);
    dg_tape_watch(b.in[0]);
    for (int i = 0; i < 2; i++) {
        dg_tape_block(&w->ctx, &b, &w->y);
        b.in[0] = w->y;
    }
}

static void way_back(void *user)
{
    Way *w = user;

    dg_context_restore(&w->ctx, w->saved);
    w->err = dg_tape_backward(&w->ctx, w->y, w->grad);
}

static void take_way(Way *w, int recompute)
{
    *w = (Way) { .err = DG_OK };
    assert_int_equal(
        dg_context_init(&w->ctx, dg_backend_cuda(), (size_t)1 << 20), DG_OK);
    w->weight = (Tensor) { .dtype = DG_F32,
                           .num_dims = 2,
                           .dims = { WIDTH, WIDTH },
                           .data = device_of(W, 1),
                           .param_set = 1 };
    w->grads = device_of(W, 2);
    w->saved = malloc(dg_context_saved_bytes());
    w->ctx.recompute = recompute;
    dg_context_train(&w->ctx, 1, w->grads, 1);
}

static void give_way(Way *w)
{
    dg_cuda_free(w->weight.data);
    dg_cuda_free(w->grads);
    free(w->saved);
    dg_context_fini(&w->ctx);
}

/* gradients after num ways back, each added to them */
static void gradients(float *out, int replayed, int num, int recompute)
{
    float *x = device_of(N, 5);
    Way w;

    take_way(&w, recompute);
    dg_backend_cuda()->fill(w.grads, 0, W);
    for (int i = 0; i < num; i++) {
        uint64_t flops;

        w.ctx.flops = 0;
        way_forward(&w, x, i % 4 == 3 ? ROWS - 3 : ROWS);
        flops = w.ctx.flops;
        dg_context_save(&w.ctx, w.saved);
        if (replayed)
            dg_backend_cuda()->replay(way_back, &w, NULL, 0);
        else
            way_back(&w);
        assert_int_equal(w.err, DG_OK);
        assert_true(w.ctx.flops == flops * (recompute ? 4 : 3));
        dg_backend_cuda()->scale(x, x, 0.75f, N);
        assert_int_equal(
            dg_cuda_stage_down(out + i * W, w.grads, sizeof *out * W), DG_OK);
    }
    give_way(&w);
    dg_cuda_free(x);
}

static void test_ways_back_are_replayed(void **unused)
{
    enum { NUM = 9 };
    static float run[NUM * W], replayed[NUM * W];
    CudaStream *s = use(1);

    (void)unused;
    for (int recompute = 0; recompute < 2; recompute++) {
        const long before = graphs();

        gradients(run, 0, NUM, recompute);
        gradients(replayed, 1, NUM, recompute);
        assert_memory_equal(run, replayed, sizeof run);
        if (cuda_emulation_graphs != NULL)
            assert_int_equal(graphs() - before, NUM - 2);
    }
    dg_cuda_stream_destroy(s);
}

/* --- a token of each sample -------------------------------------------------- */

enum { PICKED = 3, TOKENS = 5, ALL = PICKED * TOKENS * WIDTH };

/* Two tokens of each sample picked and added, and their way back. */
typedef struct Pick {
    Context ctx;
    const float *x, *dy; /* [PICKED, TOKENS, WIDTH], [PICKED, WIDTH], device */
    int32_t index[2][PICKED];
    Tensor *leaf, *y;
    int err;
} Pick;

static void pick(void *user)
{
    Pick *p = user;
    const Backend *be = dg_backend_cuda();
    Tensor *grad;

    dg_context_reset(&p->ctx);
    p->leaf = dg_tensor_new(&p->ctx, DG_F32, 3,
                            (int64_t[]) { PICKED, TOKENS, WIDTH });
    be->scale(p->leaf->data, p->x, 1, ALL);
    dg_tape_begin(&p->ctx);
    dg_tape_watch(p->leaf);
    p->y = dg_op_add(&p->ctx, dg_op_pick_token(&p->ctx, p->leaf, p->index[0]),
                     dg_op_pick_token(&p->ctx, p->leaf, p->index[1]));
    grad = dg_tensor_like(&p->ctx, p->y);
    be->scale(grad->data, p->dy, 1, PICKED * WIDTH);
    p->err = dg_tape_backward(&p->ctx, p->y, grad);
}

static void check_pick(const Pick *p, const float *x, const float *dy)
{
    static float y[PICKED * WIDTH], dx[ALL];

    assert_int_equal(p->err, DG_OK);
    assert_int_equal(dg_cuda_stage_down(y, p->y->data, sizeof y), DG_OK);
    assert_int_equal(dg_cuda_stage_down(dx, p->leaf->grad->data, sizeof dx),
                     DG_OK);
    for (int i = 0; i < ALL; i++) {
        const int b = i / (TOKENS * WIDTH), c = i % WIDTH;
        const int token = i / WIDTH % TOKENS;
        const int times = (p->index[0][b] == token) + (p->index[1][b] == token);

        assert_true(dx[i] == (float)times * dy[b * WIDTH + c]);
        if (token == 0)
            assert_true(y[b * WIDTH + c] ==
                        x[(b * TOKENS + p->index[0][b]) * WIDTH + c] +
                            x[(b * TOKENS + p->index[1][b]) * WIDTH + c]);
    }
}

/* Which it is, is data of the step: one graph serves all. */
static void test_any_token_is_picked_by_one_graph(void **unused)
{
    enum { NUM = 6 };
    static float x[ALL], dy[PICKED * WIDTH];
    CudaStream *s = use(1);
    float *device[2] = { device_of(ALL, 3), device_of(PICKED * WIDTH, 4) };
    const long before = graphs();
    Pick p = { .x = device[0], .dy = device[1] };

    (void)unused;
    assert_int_equal(dg_cuda_stage_down(x, device[0], sizeof x), DG_OK);
    assert_int_equal(dg_cuda_stage_down(dy, device[1], sizeof dy), DG_OK);
    assert_int_equal(
        dg_context_init(&p.ctx, dg_backend_cuda(), (size_t)1 << 20), DG_OK);
    for (int i = 0; i < NUM; i++) {
        for (int b = 0; b < PICKED; b++) {
            p.index[0][b] = (i + 2 * b) % TOKENS;
            p.index[1][b] = (3 * i + b) % TOKENS; /* the same now and then */
        }
        dg_backend_cuda()->replay(pick, &p, NULL, 0);
        check_pick(&p, x, dy);
    }
    if (cuda_emulation_graphs != NULL)
        assert_int_equal(graphs() - before, NUM - 1);
    dg_context_fini(&p.ctx);
    for (int i = 0; i < 2; i++)
        dg_cuda_free(device[i]);
    dg_cuda_stream_destroy(s);
}

/* What does not fit into the fixed places is run. */
static void test_large_inputs_are_run(void **unused)
{
    enum { LARGE = 9 << 20 }; /* 4 bytes each: more than 32 MB */
    CudaStream *stream = use(1);
    const long before = graphs();
    Step s;

    (void)unused;
    take_step(&s);
    s.z = device_of(LARGE, 9);
    const float *z = s.z;
    for (int i = 0; i < 3; i++)
        replay_step(&s, LARGE);
    assert_ptr_equal(s.z, z);
    assert_int_equal(s.calls, 3);
    assert_int_equal(graphs(), before);
    give_step(&s);
    dg_cuda_free((void *)z);
    assert_int_equal(dg_cuda_wait(), DG_OK);
    dg_cuda_stream_destroy(stream);
}

/* Half of what a plan leaves to the driver is left to it by graphs. */
static void test_graphs_leave_room(void **unused)
{
    enum { NUM = 12 };
    static float run[NUM * N], replayed[NUM * N];
    CudaStream *s = use(1);
    const size_t half = dg_backend_cuda()->later / 2;
    const long before = graphs();
    size_t left, all;
    char text[32];

    (void)unused;
    if (cuda_emulation_graphs == NULL)
        skip();
    outputs(run, 0, NUM);
    assert_int_equal(dg_cuda_room(&left, &all), DG_OK);
    snprintf(text, sizeof text, "%zu", all - left + half + (1 << 18));
    setenv("CUDA_EMULATION_MEMORY", text, 1);
    outputs(replayed, 1, NUM);
    assert_int_equal(dg_cuda_room(&left, &all), DG_OK);
    unsetenv("CUDA_EMULATION_MEMORY");
    assert_memory_equal(run, replayed, sizeof run);
    /* one has room, of four kinds of steps */
    assert_in_range(graphs() - before, 1, NUM / 4);
    assert_true(left >= half);
    dg_cuda_stream_destroy(s);
}

/* What is asked for before there is another stream. */
static void test_a_side_takes_what_is_said(void **unused)
{
    const Backend *be = dg_backend_cuda();
    CudaStream *s = use(1);
    size_t before, after, all;
    void *side;

    (void)unused;
    if (cuda_emulation_graphs == NULL)
        skip();
    assert_int_equal(be->room(&before, &all), DG_OK);
    assert_int_equal(be->side_new(&side), DG_OK);
    assert_int_equal(be->room(&after, &all), DG_OK);
    assert_in_range(before - after, be->side / 2, be->side);
    be->side_free(side);
    dg_cuda_stream_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replayed_steps_have_the_same_bits),
        cmocka_unit_test(test_conditions_share_a_graph),
        cmocka_unit_test(test_without_graphs_steps_are_run),
        cmocka_unit_test(test_old_graphs_make_room),
        cmocka_unit_test(test_ways_back_are_replayed),
        cmocka_unit_test(test_any_token_is_picked_by_one_graph),
        cmocka_unit_test(test_large_inputs_are_run),
        cmocka_unit_test(test_graphs_leave_room),
        cmocka_unit_test(test_a_side_takes_what_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
