/* Full-size blocks against the library's bare calls. */
#include "train/bench_blocks.h"

#include "base/error.h"
#include "bench_subject.h"

#include <omp.h>
#include <stdlib.h>

BlockSizes dg_bench_block_sizes(void)
{
    return (BlockSizes) { 64, 320, 24, 128, 45, 512, 4096, 768 };
}

/* Every input is made of the same normal numbers. */
static Tensor *input(const Subject *b, Context *ctx, int num_dims,
                     const int64_t *dims)
{
    Tensor *t = dg_tensor_wrap(ctx, b->input.at, DG_F32, num_dims, dims);

    if (t != NULL)
        dg_tape_watch(t);
    return t;
}

/* --- the residual block -------------------------------------------------- */

static Tensor *resnet_forward(const Subject *b, Context *ctx)
{
    const int64_t map[4] = { 1, b->s->side, b->s->side, b->s->channels };
    const int64_t time[2] = { 1, 4 * b->s->channels };

    const DType dtype = b->tools->dtype;

    return dg_resnet(ctx, &b->resnet,
                     dg_op_cast(ctx, input(b, ctx, 4, map), dtype), NULL,
                     dg_op_cast(ctx, input(b, ctx, 2, time), dtype));
}

/* Both convolutions, and backward their two gradients each. */
static void resnet_bare(const Subject *b, int backward)
{
    for (int way = 0; way < (backward ? DG_BENCH_CONVS : 1); way++)
        for (int i = 0; i < 2; i++)
            b->tools->conv->run(b->convs[way]);
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

    b->forward = resnet_forward;
    dg_path_init(&p, &b->set, "");
    dg_layer_resnet(&b->resnet, &p, &(ResnetOpts) { c, c, 4 * c, 8, 1e-5f });
    err = p.err ? p.err
                : dg_subject_params(b, b->s->side * b->s->side * c + 4 * c);
    for (int way = 0; way < DG_BENCH_CONVS && b->tools->conv != NULL && !err;
         way++)
        err = b->tools->conv->create(&b->convs[way], &conv, way);
    if (b->tools->conv != NULL)
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

    b->forward = flux_forward;
    if (!err)
        err = dg_flux_prepare(b->flux, s->grid, s->grid, s->text_tokens);
    if (!err)
        err = dg_subject_params(b, (image > text ? image : text) + s->pooled);
    return err;
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
    b->bare_pass = dg_subject_products;
    err = which == 0 ? open_resnet(b) : open_flux(b, which == 1);
    out->name = b->name = names[which];
    out->goal = which == 0 ? 0.70 : 0.80;
    if (!err)
        err = dg_subject_measure(b, 0, repeats, &out->forward);
    if (!err)
        err = dg_subject_measure(b, 1, repeats, &out->both);
    dg_flux_destroy(b->flux);
    dg_subject_close(b);
    free(b);
    return err;
}

int dg_bench_blocks(BenchBlock *out, int *num, const Backend *backend,
                    const BlockSizes *s, const BenchTools *tools, int repeats)
{
    const Subject given = { .s = s, .backend = backend, .tools = tools };
    const int threads = omp_get_max_threads();
    int err = DG_OK, done = 0;

    if (repeats < 1 || repeats > DG_BENCH_REPEATS)
        return dg_fail(DG_EINVAL, "bench: %d repeats of blocks: 1 to %d",
                       repeats, DG_BENCH_REPEATS);
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
