/* A pass through a network and the library's bare calls, in turns. */
#include "bench_subject.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/philox.h"
#include "room.h"

#include <math.h>
#include <string.h>

/*
 * Both halves of each number are the same, so that they are about normal as
 * float32 and as two of bfloat16: what is multiplied shows in a device's rate.
 */
static void normal(float *p, int64_t count)
{
    enum { DRAWN = 1 << 20 }; /* then again and again */
    const RngKey key = { .purpose = DG_RNG_TEST };

    dg_rng_normal(p, 0, count < DRAWN ? count : DRAWN, &key);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;

        if (i >= DRAWN) {
            p[i] = p[i - DRAWN];
            continue;
        }
        memcpy(&bits, &p[i], sizeof bits);
        bits = (bits & 0xffff0000u) | bits >> 16;
        memcpy(&p[i], &bits, sizeof bits);
    }
}

int dg_subject_normal(Mirror *m, const Backend *backend, int64_t count)
{
    const int err =
        dg_mirror_new(m, backend, sizeof(float) * (size_t)count, "bench");

    if (err)
        return err;
    normal(m->host, count);
    dg_mirror_up(m);
    return DG_OK;
}

/* Forward and back, before anything of it is there. */
static int check_room(Subject *b, int64_t input_count)
{
    const DType dtype = b->tools->dtype;
    const RoomKey keys[] = {
        { dtype == DG_F32, "run.dtype = bfloat16" },
        { 1, "the configuration's network in place of --blocks" },
    };
    const uint64_t weights =
        (uint64_t)dg_dtype_bytes(dtype) * (uint64_t)b->set.count;
    uint64_t needs;
    int err;

    dg_params_point(&b->set, NULL, dtype);
    err = dg_subject_bytes(b, weights, input_count, 1, &needs);
    return err ? err
               : dg_room_alone(b->backend, needs, keys,
                               sizeof keys / sizeof *keys);
}

int dg_subject_params(Subject *b, int64_t input_count)
{
    int err = DG_OK;

    b->trained = b->set.id;
    if (b->backend->apart)
        err = check_room(b, input_count);
    if (!err)
        err = dg_params_allocate(&b->set, NULL);
    if (err)
        return err;
    dg_params_draw_zeros(&b->set);
    dg_params_draw(&b->set, 1);
    if (b->backend->apart)
        err = dg_params_place(&b->at, &b->set, b->backend, b->tools->dtype);
    if (!err)
        err = dg_kernel_memory_new((void **)&b->grads, b->backend,
                                   sizeof *b->grads * (size_t)b->set.count);
    return err ? err : dg_subject_normal(&b->input, b->backend, input_count);
}

void dg_subject_close(Subject *b)
{
    for (int i = 0; i < DG_BENCH_CONVS; i++)
        if (b->convs[i] != NULL)
            b->tools->conv->destroy(b->convs[i]);
    for (int i = 0; i < 3; i++)
        dg_mirror_free(&b->operand[i]);
    dg_mirror_free(&b->input);
    dg_kernel_memory_free(b->backend, b->grads);
    dg_kernel_memory_free(b->backend, b->at);
    dg_params_fini(&b->set);
}

void dg_subject_products(const Subject *b, int backward)
{
    const BenchTools *t = b->tools;

    (void)backward; /* noted in the last plan */
    for (int i = 0; i < b->meter.num_products; i++) {
        const MeterProduct *p = &b->meter.products[i];

        for (int64_t j = 0; j < p->calls; j++)
            t->product(t->user, b->operand[0].at, b->operand[1].at,
                       b->operand[2].at, p->m, p->n, p->k);
    }
}

static int run_pass(const Subject *b, Context *ctx, int backward)
{
    Tensor *y, *grad;

    dg_context_reset(ctx);
    ctx->flops = 0;
    if (backward)
        dg_tape_begin(ctx);
    y = b->forward(b, ctx);
    if (!backward || y == NULL)
        return dg_context_error(ctx);
    grad = dg_tensor_like(ctx, y);
    if (grad == NULL)
        return dg_context_error(ctx);
    dg_kernel_copy(ctx->backend, grad->data, y->data,
                   dg_tensor_count(y) * dg_dtype_bytes(y->dtype) /
                       dg_dtype_bytes(DG_F32));
    return dg_tape_backward(ctx, y, grad);
}

/* What a pass takes: bytes, operations, products. */
static int plan_pass(Subject *b, int backward, size_t *bytes)
{
    Backend plan;
    Context ctx;
    int err;

    dg_backend_plan(&plan, b->backend);
    dg_meter_init(&b->meter, &plan);
    err = dg_context_init(&ctx, &b->meter.table, 0);
    if (err)
        return err;
    dg_context_train(&ctx, b->trained, NULL, backward);
    ctx.recompute = b->recompute;
    err = run_pass(b, &ctx, backward);
    b->meter.on = 0;
    b->flops = ctx.flops;
    *bytes = ctx.arena.peak;
    dg_context_fini(&ctx);
    return err;
}

/* Numbers of the operands of the largest of the noted products. */
static void size_operands(int64_t most[3], const Subject *b)
{
    for (int j = 0; j < 3; j++)
        most[j] = 1;
    for (int i = 0; i < b->meter.num_products; i++) {
        const MeterProduct *p = &b->meter.products[i];
        const int64_t size[3] = { p->m * p->n, p->m * p->k, p->k * p->n };

        for (int j = 0; j < 3; j++)
            most[j] = size[j] > most[j] ? size[j] : most[j];
    }
}

int dg_subject_bytes(Subject *b, uint64_t weights, int64_t input_count,
                     int backward, uint64_t *bytes)
{
    const ParamSet *trained =
        b->policy != NULL ? dg_policy_trained(b->policy) : &b->set;
    int64_t most[3], floats = input_count;
    size_t step;
    const int err = plan_pass(b, backward, &step);

    if (err)
        return err;
    size_operands(most, b);
    for (int j = 0; j < 3; j++)
        floats += most[j];
    if (backward)
        floats += trained->count;
    *bytes = weights + step + sizeof(float) * (uint64_t)floats;
    return DG_OK;
}

static int open_operands(Subject *b)
{
    int64_t most[3];

    size_operands(most, b);
    for (int j = 0; j < 3; j++) {
        int err;

        dg_mirror_free(&b->operand[j]);
        err = dg_subject_normal(&b->operand[j], b->backend, most[j]);
        if (err)
            return err;
    }
    return DG_OK;
}

static void start(Subject *b)
{
    if (b->tools->start != NULL)
        b->tools->start(b->tools->user);
    else
        b->began = dg_clock_thread();
}

static double seconds(const Subject *b)
{
    return b->tools->start != NULL ? b->tools->stop(b->tools->user)
                                   : dg_clock_thread() - b->began;
}

int dg_subject_failed(const char *what)
{
    const Error why = *dg_last_error();

    return dg_fail(DG_EDEVICE, "bench: %s: %s", what, why.text);
}

/* A device makes its code and chooses algorithms when it is first asked. */
static int warm_up(Subject *b, Context *ctx, int backward)
{
    int err = DG_OK;

    for (int i = 0; i < 2 && b->tools->start != NULL && !err; i++) {
        start(b);
        err = run_pass(b, ctx, backward);
        b->bare_pass(b, backward);
        seconds(b);
    }
    return err;
}

/* Pass and bare calls in turns, so that both see the same machine. */
static int take_turns(Subject *b, Context *ctx, int backward, int repeats,
                      BlockRate *out)
{
    double rate[DG_BENCH_REPEATS], bare[DG_BENCH_REPEATS];
    double ratio[DG_BENCH_REPEATS];
    int err = warm_up(b, ctx, backward);

    for (int i = 0; i < repeats && !err; i++) {
        start(b);
        err = run_pass(b, ctx, backward);
        rate[i] = (double)b->flops / seconds(b);
        start(b);
        b->bare_pass(b, backward);
        bare[i] = (double)b->flops / seconds(b);
        ratio[i] = rate[i] / bare[i];
        if (!err && b->tools->start != NULL && !isfinite(ratio[i]))
            err = dg_subject_failed(b->name);
    }
    if (err)
        return err;
    *out =
        (BlockRate) { (double)b->flops, dg_bench_quantile(rate, repeats, 0.5),
                      dg_bench_quantile(bare, repeats, 0.5),
                      dg_bench_quantile(ratio, repeats, 0.5) };
    return DG_OK;
}

int dg_subject_measure(Subject *b, int backward, int repeats, BlockRate *out)
{
    size_t bytes;
    Context ctx;
    int err = plan_pass(b, backward, &bytes);

    if (!err && b->meter.dropped > 0)
        err = dg_fail(DG_EINVAL, "bench: more than %d matrix sizes",
                      DG_METER_PRODUCTS);
    if (!err)
        err = open_operands(b);
    if (!err)
        err = dg_context_init(&ctx, b->backend, bytes);
    if (err)
        return err;
    dg_context_train(&ctx, b->trained, b->grads, backward);
    ctx.recompute = b->recompute;
    err = take_turns(b, &ctx, backward, repeats, out);
    if (!err)
        dg_info("so far: %s, forward%s: %.1f GFLOP/s, bare %.1f, ratio %.3f",
                b->name, backward ? " and backward" : "", 1e-9 * out->rate,
                1e-9 * out->bare, out->ratio);
    dg_context_fini(&ctx);
    return err;
}
