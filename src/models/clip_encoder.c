#include "clip_encoder.h"

#include "base/error.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <stdlib.h>

static const ClipNames clip_names = {
    "encoder.layers", "self_attn", "q_proj",      "k_proj",
    "v_proj",         "out_proj",  "layer_norm1", "layer_norm2",
};

Act dg_clip_act(ClipAct act)
{
    return act == DG_CLIP_GELU ? DG_ACT_GELU_ERF : DG_ACT_QUICK_GELU;
}

int dg_clip_encoder_check(const ClipEncoder *e, const char *of)
{
    if (e->width < 1 || e->inner < 1 || e->num_layers < 1 || e->heads < 1)
        return dg_fail(DG_EINVAL, "%s: sizes must be >= 1", of);
    if (e->width % e->heads)
        return dg_fail(DG_EINVAL,
                       "%s: hidden_size = %lld: must be a multiple of "
                       "num_attention_heads = %lld",
                       of, (long long)e->width, (long long)e->heads);
    return DG_OK;
}

/* Projections back into the residual stream shrink with the depth, as CLIP's
 * own first values do. */
static void add_layer(ClipLayer *l, LayerPath *p, const ClipEncoder *e)
{
    const int64_t D = e->width, M = e->inner;
    const double shrink = 1 / sqrt(2.0 * e->num_layers);
    const ClipNames *n = e->names;
    size_t mark = dg_path_enter(p, "%s", n->attn);

    l->q = dg_layer_linear(p, n->q, D, D, 1, DG_INIT_NORMAL_FAN);
    l->k = dg_layer_linear(p, n->k, D, D, 1, DG_INIT_NORMAL_FAN);
    l->v = dg_layer_linear(p, n->v, D, D, 1, DG_INIT_NORMAL_FAN);
    l->out =
        dg_layer_linear_normal(p, n->out, D, D, 1, shrink / sqrt((double)D));
    dg_path_leave(p, mark);
    l->norm_1 = dg_layer_layer_norm(p, n->norm_1, D);
    mark = dg_path_enter(p, "mlp");
    l->fc1 = dg_layer_linear(p, "fc1", D, M, 1, DG_INIT_NORMAL_FAN);
    l->fc2 =
        dg_layer_linear_normal(p, "fc2", M, D, 1, shrink / sqrt((double)M));
    dg_path_leave(p, mark);
    l->norm_2 = dg_layer_layer_norm(p, n->norm_2, D);
}

int dg_clip_encoder_add(ClipEncoder *e, LayerPath *p)
{
    e->layers = calloc((size_t)e->num_layers, sizeof *e->layers);
    if (e->layers == NULL)
        return dg_fail(DG_ENOMEM, "clip encoder");
    if (e->names == NULL)
        e->names = &clip_names;
    if (e->eps == 0)
        e->eps = DG_CLIP_EPS;
    for (int i = 0; i < e->num_layers; i++) {
        const size_t mark = dg_path_enter(p, "%s.%d", e->names->layers, i);

        dg_path_group(p);
        add_layer(&e->layers[i], p, e);
        dg_path_group_end(p);
        dg_path_leave(p, mark);
    }
    return p->err;
}

void dg_clip_encoder_fini(ClipEncoder *e)
{
    free(e->layers);
    e->layers = NULL;
}

typedef struct BlockArgs {
    const ClipEncoder *e;
    int index;
} BlockArgs;

/* in = { x }, out = { x } */
static void block(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const BlockArgs *a = args;
    const ClipLayer *l = &a->e->layers[a->index];
    const AttentionOpts opts = { .heads = (int)a->e->heads,
                                 .causal = a->e->causal };
    Tensor *x = in[0], *n, *h, *q, *k;

    dg_scope_push(ctx, a->e->names->layers, a->index);
    n = dg_op_layer_norm(ctx, x, l->norm_1.w, l->norm_1.b, a->e->eps);
    q = dg_linear(ctx, n, &l->q, DG_ACT_NONE);
    k = dg_linear(ctx, n, &l->k, DG_ACT_NONE);
    h = dg_linear(ctx, n, &l->v, DG_ACT_NONE);
    h = dg_op_attention(ctx, q, k, h, &opts);
    x = dg_op_add(ctx, x, dg_linear(ctx, h, &l->out, DG_ACT_NONE));
    n = dg_op_layer_norm(ctx, x, l->norm_2.w, l->norm_2.b, a->e->eps);
    h = dg_linear(ctx, n, &l->fc1, a->e->act);
    out[0] = dg_op_add(ctx, x, dg_linear(ctx, h, &l->fc2, DG_ACT_NONE));
    dg_scope_pop(ctx);
}

Tensor *dg_clip_encoder_run(const ClipEncoder *e, Context *ctx, Tensor *x)
{
    BlockArgs args = { e, 0 };
    TapeBlock b = { .fn = block,
                    .args = &args,
                    .args_bytes = sizeof args,
                    .num_in = 1,
                    .num_out = 1 };

    for (; args.index < e->num_layers && !ctx->err; args.index++) {
        b.in[0] = x;
        b.weights = e->layers[args.index].q.w;
        dg_tape_block(ctx, &b, &x);
    }
    return x;
}
