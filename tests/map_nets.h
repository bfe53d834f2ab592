#ifndef DG_TESTS_MAP_NETS_H
#define DG_TESTS_MAP_NETS_H
/*
 * The networks on maps behind one face: golden weights and inputs, forward,
 * loss L = sum y w, backward. Inputs and outputs are [B, C, H, W] as elsewhere
 * in the world; the network's order is made of them on the tape.
 */
#include "base/error.h"
#include "models/unet.h"
#include "models/vae.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

enum { MAP_ARENA = 256 << 20, MAP_BATCH = 4 };

typedef enum MapKind { MAP_UNET, MAP_ENCODE, MAP_DECODE } MapKind;

typedef struct MapNet {
    MapKind kind;
    UnetConfig unet_config;
    VaeConfig vae_config;
    int64_t batch, h, w, tokens; /* of the input; text of a U-Net */
    float t[MAP_BATCH];
    ParamSet set;
    Unet *unet;
    Vae *vae;
} MapNet;

typedef struct MapOpts {
    const Backend *backend;
    int64_t first, count; /* samples */
    int record, recompute;
} MapOpts;

typedef struct MapRun {
    float *y, *dx, *dcontext; /* of all samples; [set.count] */
    float *grads;             /* added to */
    int64_t y_one, x_one, context_one;
    double loss;
    size_t peak;
    uint64_t flops;
} MapRun;

/* n->kind, sizes and configurations are set */
static int map_create(MapNet *n)
{
    const VaeParts part =
        n->kind == MAP_ENCODE ? DG_VAE_ENCODER : DG_VAE_DECODER;
    int err;

    dg_params_init(&n->set, 1);
    err = n->kind == MAP_UNET
              ? dg_unet_create(&n->unet, &n->unet_config, &n->set, "")
              : dg_vae_create(&n->vae, &n->vae_config, part, &n->set, "");
    if (!err)
        err = dg_params_allocate(&n->set, NULL);
    if (!err)
        dg_params_fill_golden(&n->set, NULL);
    return err;
}

static void map_destroy(MapNet *n)
{
    dg_unet_destroy(n->unet);
    dg_vae_destroy(n->vae);
    dg_params_fini(&n->set);
}

static int64_t map_channels(const MapNet *n)
{
    return n->kind == MAP_UNET     ? n->unet_config.in_channels
           : n->kind == MAP_ENCODE ? n->vae_config.in_channels
                                   : n->vae_config.latent_channels;
}

/* Elements of one sample's output. */
static int64_t map_outputs(const MapNet *n)
{
    const VaeConfig *v = &n->vae_config;
    const int64_t pixels = n->h * n->w;
    int64_t zoom;

    if (n->kind == MAP_UNET)
        return pixels * n->unet_config.out_channels;
    zoom = (int64_t)1 << (v->num_levels - 1);
    return n->kind == MAP_ENCODE
               ? (n->h / zoom) * (n->w / zoom) * 2 * v->latent_channels
               : pixels * zoom * zoom * v->out_channels;
}

static float *map_floats(int64_t count)
{
    float *p = calloc((size_t)count + 1, sizeof *p);

    if (p == NULL)
        abort();
    return p;
}

static MapRun *map_run_create(const MapNet *n)
{
    MapRun *r = calloc(1, sizeof *r);

    if (r == NULL)
        abort();
    r->y_one = map_outputs(n);
    r->x_one = map_channels(n) * n->h * n->w;
    r->context_one = n->tokens * n->unet_config.cross_attention_dim;
    r->y = map_floats(n->batch * r->y_one);
    r->dx = map_floats(n->batch * r->x_one);
    r->dcontext = map_floats(n->batch * r->context_one);
    r->grads = map_floats(n->set.count);
    return r;
}

static void map_run_destroy(MapRun *r)
{
    free(r->y);
    free(r->dx);
    free(r->dcontext);
    free(r->grads);
    free(r);
}

/* Samples o->first.. of the golden input of that name, watched. */
static Tensor *map_input(Context *ctx, const MapNet *n, const MapOpts *o,
                         const char *key, int num_dims, const int64_t *dims)
{
    int64_t all = n->batch, mine[4] = { o->count, dims[0], dims[1], dims[2] };
    float *values;
    Tensor *t;

    for (int i = 0; i + 1 < num_dims; i++)
        all *= dims[i];
    values = map_floats(all);
    dg_golden_input(values, all, key);
    t = dg_op_input(ctx, values + o->first * (all / n->batch), num_dims, mine);
    dg_tape_watch(t);
    free(values);
    return t;
}

static Tensor *map_forward(Context *ctx, const MapNet *n, const MapOpts *o,
                           Tensor **x, Tensor **context)
{
    static const char *const keys[] = { "input.sample", "input.image",
                                        "input.latent" };
    const int64_t dims[3] = { map_channels(n), n->h, n->w };
    const int64_t text[3] = { n->tokens, n->unet_config.cross_attention_dim };
    Tensor *y;

    *context = NULL;
    *x = map_input(ctx, n, o, keys[n->kind], 4, dims);
    y = dg_op_channels_last(ctx, *x);
    if (n->kind == MAP_UNET) {
        *context = map_input(ctx, n, o, "input.context", 3, text);
        y = dg_unet_forward(n->unet, ctx,
                            &(UnetInputs) { y, *context, n->t + o->first });
    } else if (n->kind == MAP_ENCODE) {
        y = dg_vae_encode(n->vae, ctx, y);
    } else {
        y = dg_vae_decode(n->vae, ctx, y);
    }
    return dg_op_channels_first(ctx, y);
}

static void map_keep(float *to, const Tensor *grad, int64_t first, int64_t one,
                     int64_t count)
{
    if (grad != NULL && grad->data != NULL)
        memcpy(to + first * one, grad->data,
               (size_t)(count * one) * sizeof *to);
}

/* One forward, and with record a backward. */
static int map_run_in(Context *ctx, const MapNet *n, const MapOpts *o,
                      MapRun *r)
{
    const int64_t at = o->first * r->y_one, count = o->count * r->y_one;
    float *w = map_floats(n->batch * r->y_one);
    Tensor *x, *context, *y;

    dg_golden_input(w, n->batch * r->y_one, "loss.w");
    dg_context_train(ctx, n->set.id, r->grads, o->record);
    ctx->recompute = o->recompute;
    if (o->record)
        dg_tape_begin(ctx);
    y = map_forward(ctx, n, o, &x, &context);
    r->loss = 0;
    if (y != NULL && o->backend->computes) {
        memcpy(r->y + at, y->data, (size_t)count * sizeof(float));
        for (int64_t i = at; i < at + count; i++)
            r->loss += (double)r->y[i] * w[i];
    }
    if (y != NULL && o->record) {
        Tensor *grad = dg_op_input(ctx, w + at, y->num_dims, y->dims);

        if (grad != NULL)
            dg_tape_backward(ctx, y, grad);
        map_keep(r->dx, x->grad, o->first, r->x_one, o->count);
        if (context != NULL)
            map_keep(r->dcontext, context->grad, o->first, r->context_one,
                     o->count);
    }
    free(w);
    r->peak = ctx->arena.peak;
    r->flops = ctx->flops;
    return dg_context_error(ctx);
}

/* The same in a context of its own. */
static int map_run(const MapNet *n, const MapOpts *o, MapRun *r)
{
    Context ctx;
    int err = dg_context_init(&ctx, o->backend, MAP_ARENA);

    if (err)
        return err;
    err = map_run_in(&ctx, n, o, r);
    dg_context_fini(&ctx);
    return err;
}

#endif
