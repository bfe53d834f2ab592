/* Full-size blocks against the library's bare calls. */
#include "train/bench_blocks.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/philox.h"
#include "models/flux_transformer.h"
#include "nn/resnet.h"
#include "tensor/tape.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEATS = 64, CONVS = 3 };

typedef struct Subject Subject;
struct Subject {
    const BlockSizes *s;
    const Backend *backend;
    BenchProduct bare;
    const BenchConv *conv;
    /* the pass; inputs are made from 'input' */
    Tensor *(*forward)(const Subject *, Context *);
    /* seconds of the bare calls of one pass */
    double (*bare_pass)(const Subject *, int backward);
    ParamSet set;
    float *grads, *input;
    Resnet resnet;
    FluxTransformer *flux;
    void *convs[CONVS];
    Meter meter;
    float *operand[3];
    uint64_t flops;
};

BlockSizes dg_bench_block_sizes(void)
{
    return (BlockSizes) { 64, 320, 24, 128, 45, 512, 4096, 768 };
}

static float *normal_floats(int64_t count)
{
    const RngKey key = { .purpose = DG_RNG_TEST };
    float *p = dg_memory_new(sizeof *p * (size_t)count);

    if (p != NULL)
        dg_rng_normal(p, 0, count, &key);
    return p;
}

static Tensor *input(const Subject *b, Context *ctx, int num_dims,
                     const int64_t *dims)
{
    Tensor *t = dg_op_input(ctx, b->input, num_dims, dims);

    dg_tape_watch(t);
    return t;
}

/* Weights drawn, so that none is zero and every sum is done. */
static int open_params(Subject *b, int64_t input_count)
{
    int err = dg_params_allocate(&b->set, NULL);

    if (err)
        return err;
    for (int i = 0; i < b->set.num_params; i++) {
        Param *p = b->set.params[i];

        if (p->init == DG_INIT_ZERO)
            p->init = p->value.num_dims > 1 ? DG_INIT_NORMAL_FAN : DG_INIT_ONE;
    }
    dg_params_draw(&b->set, 1);
    b->grads = dg_memory_new(sizeof *b->grads * (size_t)b->set.count);
    b->input = normal_floats(input_count);
    return b->grads != NULL && b->input != NULL
               ? DG_OK
               : dg_fail(DG_ENOMEM, "bench: a block's gradients");
}

static void close_subject(Subject *b)
{
    for (int i = 0; i < CONVS; i++)
        if (b->convs[i] != NULL)
            b->conv->destroy(b->convs[i]);
    for (int i = 0; i < 3; i++)
        free(b->operand[i]);
    dg_flux_destroy(b->flux);
    dg_params_fini(&b->set);
    free(b->grads);
    free(b->input);
}

/* --- the residual block -------------------------------------------------- */

static Tensor *resnet_forward(const Subject *b, Context *ctx)
{
    const int64_t map[4] = { 1, b->s->side, b->s->side, b->s->channels };
    const int64_t time[2] = { 1, 4 * b->s->channels };

    return dg_resnet(ctx, &b->resnet, input(b, ctx, 4, map), NULL,
                     input(b, ctx, 2, time));
}

/* Both convolutions, and backward their two gradients each. */
static double resnet_bare(const Subject *b, int backward)
{
    const double began = dg_clock_thread();

    for (int way = 0; way < (backward ? CONVS : 1); way++)
        for (int i = 0; i < 2; i++)
            b->conv->run(b->convs[way]);
    return dg_clock_thread() - began;
}

static int open_resnet(Subject *b)
{
    const int64_t c = b->s->channels;
    const ConvArgs conv = { .batch = 1,
                            .h = b->s->side,
                            .w = b->s->side,
                            .in = c,
                            .out_h = b->s->side,
                            .out_w = b->s->side,
                            .out = c,
                            .kernel_h = 3,
                            .kernel_w = 3,
                            .stride = 1,
                            .top = 1,
                            .left = 1,
                            .zoom = 1 };
    LayerPath p;
    int err;

    dg_path_init(&p, &b->set, "");
    dg_layer_resnet(&b->resnet, &p, &(ResnetOpts) { c, c, 4 * c, 8, 1e-5f });
    err = p.err ? p.err : open_params(b, b->s->side * b->s->side * c + 4 * c);
    for (int way = 0; way < CONVS && !err; way++)
        err = b->conv->create(&b->convs[way], &conv, way);
    b->forward = resnet_forward;
    b->bare_pass = resnet_bare;
    return err;
}

/* --- FLUX.1 with a single block ------------------------------------------- */

static Tensor *flux_forward(const Subject *b, Context *ctx)
{
    static const float t[1] = { 0.5f }, guidance[1] = { 3.5f };
    const BlockSizes *s = b->s;
    const int64_t hidden[3] = { 1, s->grid * s->grid, 64 };
    const int64_t context[3] = { 1, s->text_tokens, s->text_width };
    const int64_t pooled[2] = { 1, s->pooled };
    const FluxInputs in = { .hidden = input(b, ctx, 3, hidden),
                            .context = input(b, ctx, 3, context),
                            .pooled = input(b, ctx, 2, pooled),
                            .t = t,
                            .guidance = guidance,
                            .grid_h = s->grid,
                            .grid_w = s->grid };

    return dg_flux_forward(b->flux, ctx, &in);
}

/* The products noted in the last pass, bare. */
static double flux_bare(const Subject *b, int backward)
{
    const double began = dg_clock_thread();

    (void)backward;
    for (int i = 0; i < b->meter.num_products; i++) {
        const MeterProduct *p = &b->meter.products[i];

        for (int64_t j = 0; j < p->calls; j++)
            b->bare(b->operand[0], b->operand[1], b->operand[2], p->m, p->n,
                    p->k);
    }
    return dg_clock_thread() - began;
}

static int open_flux(Subject *b, int doubles)
{
    const BlockSizes *s = b->s;
    const int64_t axis = s->head_dim * 7 / 16 / 2 * 2;
    const FluxConfig c = { .in_channels = 64,
                           .num_layers = doubles,
                           .num_single_layers = 1 - doubles,
                           .attention_head_dim = s->head_dim,
                           .num_attention_heads = s->heads,
                           .joint_attention_dim = s->text_width,
                           .pooled_projection_dim = s->pooled,
                           .guidance_embeds = 1,
                           .axes_dims_rope = { s->head_dim - 2 * axis, axis,
                                               axis } };
    const int64_t image = s->grid * s->grid * 64;
    const int64_t text = s->text_tokens * s->text_width;
    int err = dg_flux_create(&b->flux, &c, &b->set, "");

    if (!err)
        err = dg_flux_prepare(b->flux, s->grid, s->grid, s->text_tokens);
    if (!err)
        err = open_params(b, (image > text ? image : text) + s->pooled);
    b->forward = flux_forward;
    b->bare_pass = flux_bare;
    return err;
}

/* --- measuring ------------------------------------------------------------ */

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
    if (ctx->backend->computes)
        memcpy(grad->data, y->data, sizeof(float) * (size_t)dg_tensor_count(y));
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
    dg_context_train(&ctx, b->set.id, NULL, backward);
    err = run_pass(b, &ctx, backward);
    b->meter.on = 0;
    b->flops = ctx.flops;
    *bytes = ctx.arena.peak;
    dg_context_fini(&ctx);
    return err;
}

/* Operands for the largest of the noted products. */
static int open_operands(Subject *b)
{
    int64_t most[3] = { 1, 1, 1 };

    for (int i = 0; i < b->meter.num_products; i++) {
        const MeterProduct *p = &b->meter.products[i];
        const int64_t size[3] = { p->m * p->n, p->m * p->k, p->k * p->n };

        for (int j = 0; j < 3; j++)
            most[j] = size[j] > most[j] ? size[j] : most[j];
    }
    for (int j = 0; j < 3; j++) {
        free(b->operand[j]);
        b->operand[j] = normal_floats(most[j]);
        if (b->operand[j] == NULL)
            return dg_fail(DG_ENOMEM, "bench: operands");
    }
    return DG_OK;
}

/* Pass and bare calls in turns, so that both see the same machine. */
static int measure(Subject *b, int backward, int repeats, BlockRate *out)
{
    double rate[MAX_REPEATS], bare[MAX_REPEATS], ratio[MAX_REPEATS];
    size_t bytes;
    Context ctx;
    int err = plan_pass(b, backward, &bytes);

    if (!err)
        err = open_operands(b);
    if (!err)
        err = dg_context_init(&ctx, b->backend, bytes);
    if (err)
        return err;
    dg_context_train(&ctx, b->set.id, b->grads, backward);
    for (int i = 0; i < repeats && !err; i++) {
        const double began = dg_clock_thread();

        err = run_pass(b, &ctx, backward);
        rate[i] = (double)b->flops / (dg_clock_thread() - began);
        bare[i] = (double)b->flops / b->bare_pass(b, backward);
        ratio[i] = rate[i] / bare[i];
    }
    dg_context_fini(&ctx);
    if (err)
        return err;
    *out =
        (BlockRate) { (double)b->flops, dg_bench_quantile(rate, repeats, 0.5),
                      dg_bench_quantile(bare, repeats, 0.5),
                      dg_bench_quantile(ratio, repeats, 0.5) };
    return DG_OK;
}

static int bench_block(BenchBlock *out, int which, const Subject *given,
                       int repeats)
{
    static const char *const names[DG_BENCH_BLOCKS] = { "U-Net residual block",
                                                        "FLUX.1 double block",
                                                        "FLUX.1 single block" };
    Subject *b = malloc(sizeof *b);
    int err;

    if (b == NULL)
        return dg_fail(DG_ENOMEM, "bench: a block");
    *b = *given;
    dg_params_init(&b->set, 1);
    err = which == 0 ? open_resnet(b) : open_flux(b, which == 1);
    out->name = names[which];
    out->goal = which == 0 ? 0.70 : 0.80;
    if (!err)
        err = measure(b, 0, repeats, &out->forward);
    if (!err)
        err = measure(b, 1, repeats, &out->both);
    close_subject(b);
    free(b);
    return err;
}

int dg_bench_blocks(BenchBlock *out, int *num, const Backend *backend,
                    const BlockSizes *s, BenchProduct bare,
                    const BenchConv *conv, int repeats)
{
    const Subject given = {
        .s = s, .backend = backend, .bare = bare, .conv = conv
    };
    const int threads = omp_get_max_threads();
    int err = DG_OK, done = 0;

    if (repeats < 1 || repeats > MAX_REPEATS)
        return dg_fail(DG_EINVAL, "bench: %d repeats of blocks: 1 to %d",
                       repeats, MAX_REPEATS);
    if (s->channels % 8)
        return dg_fail(DG_EINVAL,
                       "bench: %lld channels: must be a multiple "
                       "of 8",
                       (long long)s->channels);
    omp_set_num_threads(1);
    for (int i = 0; i < DG_BENCH_BLOCKS && !err; i++)
        if (i == 0 ? s->channels > 0 : s->heads > 0)
            err = bench_block(&out[done++], i, &given, repeats);
    omp_set_num_threads(threads);
    *num = err ? 0 : done;
    return err;
}

static void rate_text(FILE *f, const char *pass, const BlockRate *r,
                      double goal)
{
    fprintf(f,
            "  %-20s %9.1f GFLOP %7.1f GFLOP/s   bare %7.1f   ratio %.3f"
            "   goal %.2f %s\n",
            pass, 1e-9 * r->flops, 1e-9 * r->rate, 1e-9 * r->bare, r->ratio,
            goal, r->ratio >= goal ? "reached" : "missed");
}

void dg_bench_blocks_text(FILE *f, const BenchBlock *blocks, int num)
{
    for (int i = 0; i < num; i++) {
        fprintf(f, "%s\n", blocks[i].name);
        rate_text(f, "forward", &blocks[i].forward, blocks[i].goal);
        rate_text(f, "forward and backward", &blocks[i].both, blocks[i].goal);
    }
}
