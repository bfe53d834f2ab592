#ifndef DG_TESTS_TINY_NETS_H
#define DG_TESTS_TINY_NETS_H
/*
 * The three networks in their smallest size, filled by the golden rule, with
 * two samples each, behind one face: forward, loss L = sum y w, backward.
 */
#include "base/error.h"
#include "models/clip.h"
#include "models/flux_transformer.h"
#include "models/t5.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

enum {
    TINY_SAMPLES = 2,
    TINY_INPUTS = 3,
    TINY_ARENA = 32 << 20,
    T5_TOKENS = 40,
    CLIP_TOKENS = 77,
    FLUX_H = 3,
    FLUX_W = 5,
    FLUX_TEXT = 6
};

static const FluxConfig tiny_flux = { .in_channels = 16,
                                      .num_layers = 2,
                                      .num_single_layers = 2,
                                      .attention_head_dim = 32,
                                      .num_attention_heads = 2,
                                      .joint_attention_dim = 40,
                                      .pooled_projection_dim = 24,
                                      .guidance_embeds = 1,
                                      .axes_dims_rope = { 8, 12, 12 } };
static const T5Config tiny_t5 = { .vocab_size = 64,
                                  .d_model = 32,
                                  .d_kv = 16,
                                  .d_ff = 80,
                                  .num_layers = 2,
                                  .num_heads = 4,
                                  .relative_attention_num_buckets = 32,
                                  .relative_attention_max_distance = 128 };
static const ClipTextConfig tiny_clip = { .vocab_size = 100,
                                          .hidden_size = 32,
                                          .intermediate_size = 128,
                                          .num_hidden_layers = 2,
                                          .num_attention_heads = 4,
                                          .max_position_embeddings = 77 };

typedef enum NetKind { NET_FLUX, NET_T5, NET_CLIP, NUM_NETS } NetKind;

typedef struct Net {
    NetKind kind;
    ParamSet set;
    FluxTransformer *flux;
    T5Encoder *t5;
    ClipText *clip;
    int32_t ids[TINY_SAMPLES * CLIP_TOKENS];
    int64_t y_count; /* of one sample */
} Net;

/* What a run leaves behind; sizes are the larger of all networks'. */
typedef struct Run {
    float y[TINY_SAMPLES * CLIP_TOKENS * 32];
    float pooled[TINY_SAMPLES * 32];
    float input_grads[TINY_INPUTS][TINY_SAMPLES * 15 * 40];
    double loss;
    float *grads; /* [set.count], added to */
    size_t peak;
    uint64_t flops;
} Run;

typedef struct RunOpts {
    const Backend *backend;
    int first, count; /* samples */
    int record, recompute;
} RunOpts;

static inline void net_ids(Net *n, int64_t tokens)
{
    static const int32_t t5[12] = { 3, 9, 33, 5, 60, 12, 12, 7, 41, 2, 8, 1 };
    static const int32_t clip[6] = { 98, 5, 17, 42, 7, 99 };

    for (int64_t i = 0; i < tokens; i++) {
        if (n->kind == NET_T5) {
            n->ids[i] = i < 12 ? t5[i] : 0;
            n->ids[tokens + i] = (int32_t)(i * 7 % 64);
        } else {
            n->ids[i] = i < 6 ? clip[i] : 99;
            n->ids[tokens + i] = i < 30 ? (int32_t)(i * 11 % 98) : 99;
        }
    }
}

static inline int net_create(Net *n, NetKind kind)
{
    int err;

    memset(n, 0, sizeof *n);
    n->kind = kind;
    dg_params_init(&n->set, 1);
    if (kind == NET_FLUX) {
        n->y_count = FLUX_H * FLUX_W * tiny_flux.in_channels;
        err = dg_flux_create(&n->flux, &tiny_flux, &n->set, "transformer.");
        if (!err)
            err = dg_flux_prepare(n->flux, FLUX_H, FLUX_W, FLUX_TEXT);
    } else if (kind == NET_T5) {
        n->y_count = T5_TOKENS * tiny_t5.d_model;
        net_ids(n, T5_TOKENS);
        err = dg_t5_create(&n->t5, &tiny_t5, &n->set, "text_encoder_2.");
        if (!err)
            err = dg_t5_prepare(n->t5, T5_TOKENS);
    } else {
        n->y_count = CLIP_TOKENS * tiny_clip.hidden_size;
        net_ids(n, CLIP_TOKENS);
        err = dg_clip_create(&n->clip, &tiny_clip, &n->set, "text_encoder.");
    }
    return err ? err : dg_params_allocate(&n->set, NULL);
}

static inline const char *net_prefix(const Net *n)
{
    static const char *const prefix[] = { "transformer.", "text_encoder_2.",
                                          "text_encoder." };

    return prefix[n->kind];
}

static void net_destroy(Net *n)
{
    dg_flux_destroy(n->flux);
    dg_t5_destroy(n->t5);
    dg_clip_destroy(n->clip);
    dg_params_fini(&n->set);
}

/* Samples o->first.. of the golden input of that name, watched. */
static Tensor *net_input(Context *ctx, const RunOpts *o, const char *key,
                         int num_dims, const int64_t *sample_dims)
{
    int64_t dims[DG_MAX_DIMS] = { o->count };
    static float all[TINY_SAMPLES * 15 * 40];
    int64_t one = 1;
    Tensor *t;

    for (int i = 0; i < num_dims; i++)
        one *= dims[i + 1] = sample_dims[i];
    dg_golden_input(all, TINY_SAMPLES * one, key);
    t = dg_op_input(ctx, all + o->first * one, num_dims + 1, dims);
    dg_tape_watch(t);
    return t;
}

static Tensor *flux_forward(const Net *n, Context *ctx, const RunOpts *o,
                            Tensor **inputs)
{
    static const float t[2] = { 0.937f, 0.25f }, guidance[2] = { 3.5f, 3.5f };
    const FluxConfig *c = dg_flux_config(n->flux);
    const FluxInputs in = {
        .hidden = net_input(ctx, o, "input.hidden", 2,
                            (int64_t[]) { FLUX_H * FLUX_W, c->in_channels }),
        .context = net_input(ctx, o, "input.context", 2,
                             (int64_t[]) { FLUX_TEXT, c->joint_attention_dim }),
        .pooled = net_input(ctx, o, "input.pooled", 1,
                            (int64_t[]) { c->pooled_projection_dim }),
        .t = t + o->first,
        .guidance = guidance,
        .grid_h = FLUX_H,
        .grid_w = FLUX_W
    };

    inputs[0] = in.hidden;
    inputs[1] = in.context;
    inputs[2] = in.pooled;
    return dg_flux_forward(n->flux, ctx, &in);
}

static Tensor *net_forward(const Net *n, Context *ctx, const RunOpts *o,
                           Tensor **inputs, Tensor **pooled)
{
    *pooled = NULL;
    inputs[0] = inputs[1] = inputs[2] = NULL;
    if (n->kind == NET_FLUX)
        return flux_forward(n, ctx, o, inputs);
    if (n->kind == NET_T5)
        return dg_t5_forward(n->t5, ctx, n->ids + o->first * T5_TOKENS,
                             o->count, T5_TOKENS);
    return dg_clip_forward(n->clip, ctx, n->ids + o->first * CLIP_TOKENS,
                           o->count, CLIP_TOKENS, pooled);
}

static inline void net_keep(const Net *n, Run *r, const RunOpts *o,
                            const Tensor *y, const float *w)
{
    const int64_t from = o->first * n->y_count;

    memcpy(r->y + from, y->data,
           (size_t)(o->count * n->y_count) * sizeof(float));
    r->loss = 0;
    for (int64_t i = 0; i < o->count * n->y_count; i++)
        r->loss += (double)r->y[from + i] * w[from + i];
}

static inline void net_keep_input_grads(Run *r, const RunOpts *o,
                                        Tensor *const *inputs)
{
    for (int i = 0; i < TINY_INPUTS; i++) {
        const Tensor *t = inputs[i];
        int64_t one;

        if (t == NULL || t->grad == NULL)
            continue;
        one = dg_tensor_count(t) / o->count;
        memcpy(r->input_grads[i] + o->first * one, t->grad->data,
               (size_t)(o->count * one) * sizeof(float));
    }
}

/* One forward, and with record a backward. */
static inline int net_run_in(Context *ctx, const Net *n, const RunOpts *o,
                             Run *r)
{
    static float w[TINY_SAMPLES * CLIP_TOKENS * 32];
    Tensor *inputs[TINY_INPUTS], *pooled, *y, *grad;

    dg_golden_input(w, TINY_SAMPLES * n->y_count, "loss.w");
    dg_context_train(ctx, n->set.id, r->grads, o->record);
    ctx->recompute = o->recompute;
    if (o->record)
        dg_tape_begin(ctx);
    y = net_forward(n, ctx, o, inputs, &pooled);
    if (y != NULL && o->backend->computes) {
        net_keep(n, r, o, y, w);
        if (pooled != NULL)
            memcpy(r->pooled + o->first * 32, pooled->data,
                   (size_t)o->count * 32 * sizeof(float));
    }
    if (y != NULL && o->record) {
        grad =
            dg_op_input(ctx, w + o->first * n->y_count, y->num_dims, y->dims);
        dg_tape_backward(ctx, y, grad);
        if (o->backend->computes)
            net_keep_input_grads(r, o, inputs);
    }
    r->peak = ctx->arena.peak;
    r->flops = ctx->flops;
    return dg_context_error(ctx);
}

/* The same in a context of its own. */
static inline int net_run(const Net *n, const RunOpts *o, Run *r)
{
    Context ctx;
    int err = dg_context_init(&ctx, o->backend, TINY_ARENA);

    if (err)
        return err;
    err = net_run_in(&ctx, n, o, r);
    dg_context_fini(&ctx);
    return err;
}

static inline Run *run_create(const Net *n)
{
    Run *r = calloc(1, sizeof *r);

    if (r == NULL)
        abort();
    r->grads = calloc((size_t)n->set.count, sizeof *r->grads);
    if (r->grads == NULL)
        abort();
    return r;
}

static inline void run_destroy(Run *r)
{
    free(r->grads);
    free(r);
}

#endif
