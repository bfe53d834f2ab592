/*
 * Networks on the device, weights and activations stored as bfloat16: against
 * the same networks in float32, beside other samples, and computed again.
 */
#include "base/error.h"
#include "cuda/cuda.h"
#include "models/flux_transformer.h"
#include "models/unet.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda_test.h"

/* The smallest sizes with every branch. */
static const FluxConfig flux_config = { .in_channels = 8,
                                        .num_layers = 1,
                                        .num_single_layers = 1,
                                        .attention_head_dim = 16,
                                        .num_attention_heads = 2,
                                        .joint_attention_dim = 24,
                                        .pooled_projection_dim = 20,
                                        .guidance_embeds = 1,
                                        .axes_dims_rope = { 4, 6, 6 } };
static const UnetConfig unet_config = { .in_channels = 4,
                                        .out_channels = 4,
                                        .num_levels = 2,
                                        .block_out_channels = { 16, 32 },
                                        .down_attention = { 1, 0 },
                                        .up_attention = { 0, 1 },
                                        .layers_per_block = 1,
                                        .attention_head_dim = 4,
                                        .cross_attention_dim = 24,
                                        .norm_num_groups = 8 };

enum {
    MOST = 4, /* samples */
    TEXT = 5,
    SIDE = 4, /* of the map, or of the grid of tokens */
    ARENA = 32 << 20
};

typedef enum Kind { FLUX, UNET } Kind;

typedef struct Net {
    Kind kind;
    ParamSet set; /* values on the host */
    FluxTransformer *flux;
    Unet *unet;
    int64_t per[3]; /* elements of one sample: input, context, pooled */
    float *in[3];   /* [MOST] samples each, host */
} Net;

static void net_open(Net *n, Kind kind)
{
    *n = (Net) { .kind = kind };
    dg_params_init(&n->set, 1);
    if (kind == FLUX) {
        assert_int_equal(dg_flux_create(&n->flux, &flux_config, &n->set, ""),
                         DG_OK);
        assert_int_equal(dg_flux_prepare(n->flux, SIDE, SIDE, TEXT), DG_OK);
        n->per[0] = SIDE * SIDE * flux_config.in_channels;
        n->per[2] = flux_config.pooled_projection_dim;
    } else {
        assert_int_equal(dg_unet_create(&n->unet, &unet_config, &n->set, ""),
                         DG_OK);
        n->per[0] = SIDE * SIDE * unet_config.in_channels;
    }
    n->per[1] = TEXT * 24;
    assert_int_equal(dg_params_allocate(&n->set, NULL), DG_OK);
    dg_params_fill_golden(&n->set, NULL);
    for (int i = 0; i < 3; ++i) {
        n->in[i] = malloc((size_t)(MOST * n->per[i] + 1) * sizeof(float));
        dg_golden_input(n->in[i], MOST * n->per[i],
                        i == 0   ? "sample"
                        : i == 1 ? "context"
                                 : "pooled");
    }
}

static void net_close(Net *n)
{
    for (int i = 0; i < 3; ++i)
        free(n->in[i]);
    dg_flux_destroy(n->flux);
    dg_unet_destroy(n->unet);
    dg_params_fini(&n->set);
}

typedef struct Run {
    DType dtype;
    int64_t first, num; /* samples */
    int rounded;        /* weights and inputs, to bfloat16 */
    const float *onto;  /* [count] gradients to add to, host; NULL: 0 */
    int recompute;
    /* out, on the host */
    float *y, *dx;  /* [num] samples of per[0] */
    float *dparams; /* [count] */
    size_t peak;    /* of the arena */
} Run;

/* samples of input i to a tensor; dims[0] is set */
static Tensor *input(Context *ctx, const Net *n, const Run *r, int i,
                     int num_dims, int64_t *dims)
{
    Tensor *x;

    dims[0] = r->num;
    x = dg_op_input(ctx, n->in[i] + r->first * n->per[i], num_dims, dims);
    return r->rounded ? dg_op_cast(ctx, dg_op_cast(ctx, x, DG_BF16), DG_F32)
                      : x;
}

static Tensor *forward(Context *ctx, const Net *n, const Run *r, Tensor **x)
{
    static const float t[MOST] = { 0.9f, 0.3f, 0.55f, 0.1f };
    static const float guidance[MOST] = { 3.5f, 3.5f, 1.5f, 2.0f };
    float steps[MOST];
    Tensor *context = input(ctx, n, r, 1, 3, (int64_t[]) { 0, TEXT, 24 });

    if (n->kind == FLUX) {
        FluxInputs in = { .context = context,
                          .t = t + r->first,
                          .guidance = guidance + r->first,
                          .grid_h = SIDE,
                          .grid_w = SIDE };
        in.hidden = *x =
            input(ctx, n, r, 0, 3,
                  (int64_t[]) { 0, SIDE * SIDE, flux_config.in_channels });
        in.pooled = input(ctx, n, r, 2, 2,
                          (int64_t[]) { 0, flux_config.pooled_projection_dim });
        dg_tape_watch(*x);
        return dg_flux_forward(n->flux, ctx, &in);
    }
    for (int i = 0; i < MOST; ++i)
        steps[i] = 1000.0f * t[i];
    UnetInputs in = { .context = context, .t = steps + r->first };
    in.sample = *x =
        input(ctx, n, r, 0, 4,
              (int64_t[]) { 0, SIDE, SIDE, unet_config.in_channels });
    dg_tape_watch(*x);
    return dg_unet_forward(n->unet, ctx, &in);
}

/* the set's values where kernels are */
static void *place(Net *n, DType dtype, int rounded)
{
    const Backend *be = dg_backend_cuda();
    void *wide, *at;

    assert_int_equal(dg_cuda_alloc(&wide, sizeof(float) * (size_t)n->set.count),
                     DG_OK);
    be->upload(wide, n->set.values, sizeof(float) * (size_t)n->set.count);
    assert_int_equal(
        dg_cuda_alloc(&at, (size_t)(n->set.count * dg_dtype_bytes(dtype))),
        DG_OK);
    if (rounded) {
        be->cast(at, DG_BF16, wide, DG_F32, n->set.count);
        be->cast(wide, DG_F32, at, DG_BF16, n->set.count);
    }
    be->cast(at, dtype, wide, DG_F32, n->set.count);
    dg_params_point(&n->set, at, dtype);
    assert_int_equal(dg_cuda_wait(), DG_OK);
    dg_cuda_free(wide);
    return at;
}

static float *fetch(const float *at, int64_t num)
{
    float *host = malloc((size_t)num * sizeof *host);

    assert_int_equal(
        dg_backend_cuda()->download(host, at, (size_t)num * sizeof *host),
        DG_OK);
    return host;
}

/* forward, and back from d loss / d y = y */
static void run(Net *n, Run *r)
{
    const Backend *be = dg_backend_cuda();
    const size_t bytes = sizeof(float) * (size_t)n->set.count;
    void *values = place(n, r->dtype, r->rounded), *grads;
    Tensor *x, *y, *seed;
    Context ctx;

    assert_int_equal(be->take(&grads, bytes), DG_OK);
    assert_int_equal(dg_context_init(&ctx, be, ARENA), DG_OK);
    if (r->onto != NULL)
        be->upload(grads, r->onto, bytes);
    dg_context_train(&ctx, 1, grads, 1);
    ctx.recompute = r->recompute;
    ctx.check_finite = 1;
    dg_tape_begin(&ctx);
    y = dg_op_cast(&ctx, forward(&ctx, n, r, &x), DG_F32);
    if (y == NULL)
        fail_msg("%s", dg_last_error()->text);
    r->y = fetch(y->data, r->num * n->per[0]);
    seed = dg_tensor_like(&ctx, y);
    be->scale(seed->data, y->data, 1.0f, r->num * n->per[0]);
    assert_int_equal(dg_tape_backward(&ctx, y, seed), DG_OK);
    assert_non_null(x->grad);
    assert_int_equal(x->grad->dtype, DG_F32);
    r->dx = fetch(x->grad->data, r->num * n->per[0]);
    r->dparams = fetch(grads, n->set.count);
    r->peak = ctx.arena.peak;
    dg_context_fini(&ctx);
    dg_cuda_free(grads);
    dg_cuda_free(values);
}

static void run_free(Run *r)
{
    free(r->y);
    free(r->dx);
    free(r->dparams);
}

/* |x - y| / |y| */
static double distance(const float *x, const float *y, int64_t num)
{
    double off = 0, size = 0;

    for (int64_t i = 0; i < num; ++i) {
        off += pow((double)x[i] - y[i], 2);
        size += pow(y[i], 2);
    }
    return sqrt(off / size);
}

static void within(const char *what, const float *narrow, const float *rounded,
                   const float *wide, int64_t num, double losses)
{
    const double off = distance(narrow, wide, num);
    const double one = distance(rounded, wide, num);

    if (!(off <= 2.0 * sqrt(losses) * one && off >= 0.5 * one))
        fail_msg("%s: off by %.5f, one loss is %.5f", what, off, one);
}

/*
 * How far one loss goes: the float32 network with weights and inputs rounded to
 * bfloat16, against itself. In bfloat16 each layer of weights stores some four
 * values more, its products, norms, activations and residuals, each of which
 * loses as much as the weights do and on the same way: independent losses, of
 * root mean square sqrt(1 + 4) times the one. On the way back as many gradients
 * are stored again, sqrt(1 + 8) times. Twice that is allowed. Half of the one
 * loss has to be seen, or nothing was rounded.
 */
static void close_to_float32(Kind kind)
{
    Run wide = { .dtype = DG_F32, .num = 3 };
    Run rounded = { .dtype = DG_F32, .num = 3, .rounded = 1 };
    Run narrow = { .dtype = DG_BF16, .num = 3 };
    Net n;

    net_open(&n, kind);
    run(&n, &wide);
    run(&n, &rounded);
    run(&n, &narrow);
    within("output", narrow.y, rounded.y, wide.y, 3 * n.per[0], 5);
    within("input's gradient", narrow.dx, rounded.dx, wide.dx, 3 * n.per[0], 9);
    within("parameters' gradient", narrow.dparams, rounded.dparams,
           wide.dparams, n.set.count, 9);
    /* Statistics and positions stay as wide, and so does the room for parts of
     * convolutions' sums: half of so small a U-Net's peak on a GPU, where
     * DG_CONV_TILE_FLOATS is not the emulation's. */
    assert_true((double)narrow.peak < 0.8 * (double)wide.peak);
    run_free(&wide);
    run_free(&rounded);
    run_free(&narrow);
    net_close(&n);
}

static void test_flux_is_close_to_float32(void **unused)
{
    (void)unused;
    close_to_float32(FLUX);
}

static void test_unet_is_close_to_float32(void **unused)
{
    (void)unused;
    close_to_float32(UNET);
}

/* Sample by sample and as one batch, with and without recomputation: the same
 * bits, gradients of parameters too, which add up sample after sample. */
static void same_bits(Kind kind)
{
    Run all = { .dtype = DG_BF16, .num = MOST };
    Run again = { .dtype = DG_BF16, .num = MOST, .recompute = 1 };
    Net n;

    net_open(&n, kind);
    const size_t bytes = (size_t)n.per[0] * sizeof(float);
    run(&n, &all);
    run(&n, &again);
    assert_memory_equal(all.y, again.y, MOST * bytes);
    assert_memory_equal(all.dx, again.dx, MOST * bytes);
    assert_memory_equal(all.dparams, again.dparams,
                        (size_t)n.set.count * sizeof(float));
    assert_true(again.peak < all.peak);
    float *sum = NULL;
    for (int64_t i = 0; i < MOST; ++i) {
        Run one = { .dtype = DG_BF16, .first = i, .num = 1, .onto = sum };
        run(&n, &one);
        free(sum);
        sum = one.dparams;
        one.dparams = NULL;
        assert_memory_equal(one.y, all.y + i * n.per[0], bytes);
        assert_memory_equal(one.dx, all.dx + i * n.per[0], bytes);
        run_free(&one);
    }
    assert_memory_equal(sum, all.dparams, (size_t)n.set.count * sizeof *sum);
    free(sum);
    run_free(&all);
    run_free(&again);
    net_close(&n);
}

static void test_flux_batch_is_its_samples(void **unused)
{
    (void)unused;
    same_bits(FLUX);
}

static void test_unet_batch_is_its_samples(void **unused)
{
    (void)unused;
    same_bits(UNET);
}

/* What a plan counts is what the arena was used for. */
static void test_plan_counts_bfloat16_exactly(void **unused)
{
    (void)unused;
    for (Kind kind = FLUX; kind <= UNET; ++kind) {
        Run r = { .dtype = DG_BF16, .num = 2 };
        Backend plan;
        Context ctx;
        Tensor *x, *y;
        Net n;

        net_open(&n, kind);
        run(&n, &r);
        dg_params_point(&n.set, NULL, DG_BF16);
        dg_backend_plan(&plan, dg_backend_cuda());
        assert_int_equal(dg_context_init(&ctx, &plan, 0), DG_OK);
        dg_context_train(&ctx, 1, NULL, 1);
        dg_tape_begin(&ctx);
        y = dg_op_cast(&ctx, forward(&ctx, &n, &r, &x), DG_F32);
        assert_int_equal(dg_tape_backward(&ctx, y, dg_tensor_like(&ctx, y)),
                         DG_OK);
        assert_int_equal(ctx.arena.peak, r.peak);
        dg_context_fini(&ctx);
        run_free(&r);
        net_close(&n);
    }
}

/* A NaN that a bfloat16 kernel stores is named by its layer. */
static void test_nan_is_named(void **unused)
{
    static const char name[] = "transformer_blocks.0.ff.net.2.weight";
    Run r = { .dtype = DG_BF16, .num = 1 };
    Context ctx;
    Tensor *x;
    Param *w;
    Net n;

    (void)unused;
    net_open(&n, FLUX);
    w = dg_params_find(&n.set, name);
    assert_non_null(w);
    n.set.values[w->value.param_offset + 5] = NAN;
    void *values = place(&n, DG_BF16, 0);
    assert_int_equal(dg_context_init(&ctx, dg_backend_cuda(), ARENA), DG_OK);
    ctx.check_finite = 1;
    assert_null(forward(&ctx, &n, &r, &x));
    assert_int_equal(dg_context_error(&ctx), DG_ENUMERIC);
    assert_non_null(
        strstr(dg_last_error()->text, "layer transformer_blocks.0.ff: linear"));
    dg_context_fini(&ctx);
    dg_cuda_free(values);
    net_close(&n);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_flux_is_close_to_float32),
    cmocka_unit_test(test_unet_is_close_to_float32),
    cmocka_unit_test(test_flux_batch_is_its_samples),
    cmocka_unit_test(test_unet_batch_is_its_samples),
    cmocka_unit_test(test_plan_counts_bfloat16_exactly),
    cmocka_unit_test(test_nan_is_named),
};

CUDA_MAIN(tests)
