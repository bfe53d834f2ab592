/*
 * Sums that leave while the way back still runs, emulated: the bits of sums
 * that leave at the end, whichever stream is late.
 */
#include "mpi_test.h"

#include "base/error.h"
#include "cuda/comm.h"
#include "cuda/cuda.h"
#include "nn/param.h"
#include "tensor/ops.h"
#include "tensor/tape.h"
#include "train/team.h"

#include <math.h>

enum { WIDTH = 20, ROWS = 3, LAYERS = 5, ITEMS = 4, BUCKET = 300, PIECE = 950 };

typedef struct Net {
    ParamSet set;
    const Tensor *w[LAYERS], *bias[LAYERS];
    void *at;
} Net;

/* A stream that sums on its own with the others', once it is joined. */
static CudaStream *use_alone(const char *streams)
{
    CudaStream *s = NULL;

    setenv("CUDA_EMULATION_STREAMS", streams, 1);
    EXPECT(dg_cuda_stream_create(&s, comm.rank) == DG_OK);
    dg_cuda_use(s);
    return s;
}

static CudaStream *use(const char *streams)
{
    CudaStream *s = use_alone(streams);

    EXPECT(dg_cuda_comm_join(&comm, 600) == DG_OK);
    return s;
}

static void open_net(Net *n)
{
    EXPECT(dg_params_init(&n->set, 1) == DG_OK);
    for (int l = 0; l < LAYERS; l++) {
        char name[32];

        snprintf(name, sizeof name, "%d.weight", l);
        n->w[l] = dg_params_add(&n->set, name, DG_INIT_XAVIER, 2,
                                (int64_t[]) { WIDTH, WIDTH });
        snprintf(name, sizeof name, "%d.bias", l);
        n->bias[l] = dg_params_add(&n->set, name, DG_INIT_ZERO, 1,
                                   (int64_t[]) { WIDTH });
    }
    EXPECT(dg_params_allocate(&n->set, NULL) == DG_OK);
    dg_params_draw(&n->set, 3);
    EXPECT(dg_params_place(&n->at, &n->set, dg_backend_cuda(), DG_F32) ==
           DG_OK);
}

static void close_net(Net *n)
{
    dg_cuda_free(n->at);
    dg_params_fini(&n->set);
}

/* one item: PASSES ways back through the layers, the first used twice */
enum { PASSES = 2, NOBODY = -1 };

typedef struct Work {
    const Net *net;
    int64_t first; /* of this rank's items */
    int64_t short_item, bad_item, failing_item;
} Work;

typedef struct Layer {
    const Net *net;
    int index;
} Layer;

static void layer(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const Layer *a = args;

    out[0] = dg_op_linear(ctx, in[0], a->net->w[a->index],
                          a->net->bias[a->index], DG_ACT_SILU);
}

static Tensor *forward(Context *ctx, const Net *n, Tensor *x)
{
    for (int l = 0; l < LAYERS + 1 && x != NULL; l++) {
        const Layer a = { n, l % LAYERS };
        const TapeBlock b = { .fn = layer,
                              .args = &a,
                              .args_bytes = sizeof a,
                              .num_in = 1,
                              .num_out = 1,
                              .in = { x } };
        Tensor *y[1];

        dg_tape_block(ctx, &b, y);
        x = y[0];
    }
    return x;
}

/* bad: the gradient is not finite */
static int way_back(Worker *w, const Net *n, int64_t item, int pass, int bad)
{
    const int64_t dims[2] = { ROWS, WIDTH };
    float host[ROWS * WIDTH];
    Tensor *x, *y, *grad;

    dg_context_reset(&w->ctx);
    x = dg_tensor_new(&w->ctx, DG_F32, 2, dims);
    grad = dg_tensor_new(&w->ctx, DG_F32, 2, dims);
    if (x == NULL || grad == NULL)
        return dg_context_error(&w->ctx);
    for (int i = 0; i < ROWS * WIDTH; i++)
        host[i] = (float)((i * 37 + item * 11 + pass) % 101 - 50) / 64;
    dg_cuda_stage_up(x->data, host, sizeof host);
    host[3] = bad ? INFINITY : host[3];
    dg_cuda_stage_up(grad->data, host, sizeof host);
    dg_tape_begin(&w->ctx);
    dg_tape_watch(x);
    y = forward(&w->ctx, n, x);
    return y == NULL ? dg_context_error(&w->ctx)
                     : dg_tape_backward(&w->ctx, y, grad);
}

static int run_one(Worker *w, int64_t i, void *user)
{
    const Work *k = user;
    const int64_t item = k->first + i;
    int err = DG_OK;

    dg_backend_cuda()->fill(w->grads, 0, k->net->set.count);
    for (int p = 0; p < PASSES && !err; p++) {
        dg_team_pass(w, p == PASSES - 1);
        if (p == 0 || item != k->short_item)
            err = way_back(w, k->net, item, p, item == k->bad_item);
    }
    if (!err && item == k->failing_item)
        err = dg_fail(DG_EINVAL, "item %lld", (long long)item);
    if (err)
        return err;
    err = dg_team_add(w, NULL);
    EXPECT((err == DG_ENUMERIC) == (item == k->bad_item));
    return err == DG_ENUMERIC ? DG_OK : err;
}

static Team *new_team_of(const Net *n, ShardLevel level, int64_t bucket,
                         int recompute, int exact)
{
    TeamOpts o = { .backend = dg_backend_cuda(),
                   .num_threads = 1,
                   .step_bytes = 1 << 20,
                   .num_grads = n->set.count,
                   .exact = exact,
                   .max_items = ITEMS,
                   .piece = PIECE,
                   .bucket = bucket };
    Team *t = NULL;

    dg_shard_init(&o.shard, &comm, level, o.num_grads, 64);
    EXPECT(dg_team_create(&t, &o) == DG_OK);
    dg_context_train(&t->workers[0].ctx, n->set.id, t->workers[0].grads, 1);
    t->workers[0].ctx.recompute = recompute;
    return t;
}

static Team *new_team(const Net *n, ShardLevel level, int64_t bucket,
                      int recompute)
{
    return new_team_of(n, level, bucket, recompute, 1);
}

/* this rank's part of the sum over items 0 .. num - 1 of all ranks */
static int take_sum(int64_t *out, Team *t, Work *k, int64_t items)
{
    ExactSum own;
    int64_t num;
    int err;

    dg_share_range(items, comm.rank, comm.size, &k->first, &num);
    err = dg_team_sum(t, &comm, num, run_one, k);
    if (err)
        return err;
    own = dg_team_own(t);
    EXPECT(own.items == items - (k->bad_item >= 0));
    return dg_cuda_stage_down(out, own.fixed, sizeof *out * (size_t)own.num);
}

static void compare(Team *plain, Team *beside, Work k, int64_t items)
{
    const size_t bytes = sizeof(int64_t) * (size_t)plain->shard.num;
    int64_t *want = calloc(1, bytes + 1), *got = calloc(1, bytes + 1);

    EXPECT(take_sum(want, plain, &k, items) == DG_OK);
    EXPECT(take_sum(got, beside, &k, items) == DG_OK);
    EXPECT(memcmp(want, got, bytes) == 0);
    free(want);
    free(got);
}

static void check(const char *streams, ShardLevel level, int recompute)
{
    CudaStream *s = use(streams);
    Work k = { .short_item = NOBODY,
               .bad_item = NOBODY,
               .failing_item = NOBODY };
    Net net;
    int64_t early;
    Team *plain, *beside;

    open_net(&net);
    k.net = &net;
    plain = new_team(&net, level, 0, recompute);
    beside = new_team(&net, level, BUCKET, recompute);
    compare(plain, beside, k, ITEMS); /* counts */
    EXPECT(dg_team_take_early(beside) == 0);
    compare(plain, beside, k, ITEMS);
    early = dg_team_take_early(beside);
    /* all of the last item's, all items' in rounds: the last layers are used
     * once more by the first */
    EXPECT(comm.size == 1 || early > LAYERS);
    compare(plain, beside, k, 1); /* others have no item */
    EXPECT((dg_team_take_early(beside) > 0) ==
           (comm.rank == 0 && comm.size > 1));
    k.short_item = ITEMS - 1; /* its last way back is not gone */
    compare(plain, beside, k, ITEMS);
    k.short_item = NOBODY;
    k.bad_item = ITEMS - 1;
    int64_t *lost = calloc(sizeof *lost, (size_t)net.set.count);
    EXPECT(take_sum(lost, beside, &k, ITEMS) == DG_OK);
    free(lost);
    k.bad_item = NOBODY; /* and the next sum is whole */
    compare(plain, beside, k, ITEMS);
    dg_team_destroy(plain);
    dg_team_destroy(beside);
    close_net(&net);
    dg_cuda_stream_destroy(s);
}

static void test_same_sum_whichever_stream_is_late(void **unused)
{
    (void)unused;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        check("late", (ShardLevel)l, l % 2);
        check("early", (ShardLevel)l, !(l % 2));
        check("random", (ShardLevel)l, l % 2);
    }
    VERDICT();
}

/* This rank's part of the sum of all items, to free. */
static float *sum_as_floats(const Net *n, ShardLevel level, int exact)
{
    Team *t = new_team_of(n, level, 0, 0, exact);
    const int64_t num = t->shard.num;
    float *sum = calloc(sizeof *sum, (size_t)num + 1);
    Work k = { .net = n,
               .short_item = NOBODY,
               .bad_item = NOBODY,
               .failing_item = NOBODY };
    ExactSum own;
    void *read;
    int64_t mine;

    dg_share_range(ITEMS, comm.rank, comm.size, &k.first, &mine);
    EXPECT(dg_team_sum(t, &comm, mine, run_one, &k) == DG_OK);
    own = dg_team_own(t);
    EXPECT(own.num == num && own.items == ITEMS);
    EXPECT(dg_cuda_take(&read, sizeof *sum * (size_t)num) == DG_OK);
    t->sums->exact_read(&own, read, 1);
    EXPECT(dg_cuda_stage_down(sum, read, sizeof *sum * (size_t)num) == DG_OK);
    dg_cuda_free(read);
    dg_team_destroy(t);
    return sum;
}

/* Of streams that are not joined, through the host: integers the same, floats,
 * whose order is another, nearly. */
static void test_same_sum_by_the_host(void **unused)
{
    (void)unused;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        CudaStream *joined = use("late"), *alone;
        float *want, *exact, *plain;
        Shard own;
        Net net;

        open_net(&net);
        dg_shard_init(&own, &comm, (ShardLevel)l, net.set.count, 64);
        want = sum_as_floats(&net, (ShardLevel)l, 1);
        alone = use_alone("late");
        exact = sum_as_floats(&net, (ShardLevel)l, 1);
        plain = sum_as_floats(&net, (ShardLevel)l, 0);
        EXPECT(memcmp(want, exact, sizeof *want * (size_t)own.num) == 0);
        for (int64_t i = 0; i < own.num; i++)
            EXPECT(fabs(plain[i] - want[i]) < 1e-6 * (1 + fabs(want[i])));
        dg_cuda_use(joined);
        close_net(&net);
        dg_cuda_stream_destroy(alone);
        dg_cuda_stream_destroy(joined);
        free(want);
        free(exact);
        free(plain);
    }
    VERDICT();
}

/* The others have asked for sums that one rank's part will never reach. */
static void test_a_failed_item_fails_all(void **unused)
{
    (void)unused;
    for (int l = DG_SHARD_NONE; l <= DG_SHARD_GRADIENTS; l++) {
        CudaStream *s = use("late");
        Work k = { .short_item = NOBODY,
                   .bad_item = NOBODY,
                   .failing_item = NOBODY };
        Net net;
        int64_t *sum;
        Team *t;

        open_net(&net);
        k.net = &net;
        sum = calloc(sizeof *sum, (size_t)net.set.count);
        t = new_team(&net, (ShardLevel)l, BUCKET, 0);
        EXPECT(take_sum(sum, t, &k, ITEMS) == DG_OK);
        k.failing_item = ITEMS - 1;
        EXPECT(take_sum(sum, t, &k, ITEMS) == DG_EINVAL);
        EXPECT(strcmp(dg_last_error()->text, "item 3") == 0);
        free(sum);
        dg_team_destroy(t);
        close_net(&net);
        dg_cuda_stream_destroy(s);
    }
    VERDICT();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_sum_whichever_stream_is_late),
    cmocka_unit_test(test_same_sum_by_the_host),
    cmocka_unit_test(test_a_failed_item_fails_all),
};

MPI_MAIN(mpi_cuda_buckets, tests)
