#include "nn/spatial_transformer.h"

#include "nn/resnet.h"
#include "tensor/tape.h"

/* Other than everywhere else in the U-Net, GroupNorm here has 1e-6. */
#define EPS_GROUP 1e-6f
#define EPS_LAYER 1e-5f

static void add_attention(CrossAttention *a, LayerPath *p, const char *name,
                          int64_t width, int64_t context)
{
    const size_t mark = dg_path_enter(p, "%s", name);

    a->q = dg_layer_linear(p, "to_q", width, width, DG_NO_BIAS, DG_INIT_XAVIER);
    a->k =
        dg_layer_linear(p, "to_k", context, width, DG_NO_BIAS, DG_INIT_XAVIER);
    a->v =
        dg_layer_linear(p, "to_v", context, width, DG_NO_BIAS, DG_INIT_XAVIER);
    a->out = dg_layer_linear(p, "to_out.0", width, width, DG_WITH_BIAS,
                             DG_INIT_XAVIER);
    dg_path_leave(p, mark);
}

void dg_layer_spatial_transformer(SpatialTransformer *t, LayerPath *p,
                                  const SpatialTransformerOpts *o)
{
    const int64_t c = o->width;
    size_t mark;

    *t = (SpatialTransformer) { .o = *o };
    t->norm = dg_layer_layer_norm(p, "norm", c);
    t->proj_in = dg_layer_conv1(p, "proj_in", c, c, DG_INIT_XAVIER);
    mark = dg_path_enter(p, "transformer_blocks.0");
    t->norm1 = dg_layer_layer_norm(p, "norm1", c);
    add_attention(&t->attn1, p, "attn1", c, c);
    t->norm2 = dg_layer_layer_norm(p, "norm2", c);
    add_attention(&t->attn2, p, "attn2", c, o->context);
    t->norm3 = dg_layer_layer_norm(p, "norm3", c);
    t->ff_in = dg_layer_linear(p, "ff.net.0.proj", c, 8 * c, DG_WITH_BIAS,
                               DG_INIT_XAVIER);
    t->ff_out =
        dg_layer_linear(p, "ff.net.2", 4 * c, c, DG_WITH_BIAS, DG_INIT_XAVIER);
    dg_path_leave(p, mark);
    t->proj_out = dg_layer_conv1(p, "proj_out", c, c, DG_INIT_ZERO);
}

static Tensor *layer_norm(Context *ctx, Tensor *x, const Norm *n)
{
    return dg_op_layer_norm(ctx, x, n->w, n->b, EPS_LAYER);
}

/* x + out(attention(q(n), k(context), v(context))) */
static Tensor *attend(Context *ctx, const CrossAttention *a, Tensor *x,
                      Tensor *n, Tensor *context, int64_t heads)
{
    const AttentionOpts opts = { .heads = (int)heads };
    Tensor *q = dg_linear(ctx, n, &a->q, DG_ACT_NONE);
    Tensor *k = dg_linear(ctx, context, &a->k, DG_ACT_NONE);
    Tensor *v = dg_linear(ctx, context, &a->v, DG_ACT_NONE);
    Tensor *h = dg_op_attention(ctx, q, k, v, &opts);

    return dg_op_add(ctx, x, dg_linear(ctx, h, &a->out, DG_ACT_NONE));
}

/* h, the map as tokens [B, HW, width] */
static Tensor *token_blocks(Context *ctx, const SpatialTransformer *t,
                            Tensor *h, Tensor *context)
{
    Tensor *n = layer_norm(ctx, h, &t->norm1);

    dg_scope_push(ctx, "attn1", -1);
    h = attend(ctx, &t->attn1, h, n, n, t->o.heads);
    dg_scope_pop(ctx);
    dg_scope_push(ctx, "attn2", -1);
    n = layer_norm(ctx, h, &t->norm2);
    h = attend(ctx, &t->attn2, h, n, context, t->o.heads);
    dg_scope_pop(ctx);
    dg_scope_push(ctx, "ff", -1);
    n = dg_linear(ctx, layer_norm(ctx, h, &t->norm3), &t->ff_in, DG_ACT_NONE);
    n = dg_op_gated_halves(ctx, n, DG_ACT_GELU_ERF);
    h = dg_op_add(ctx, h, dg_linear(ctx, n, &t->ff_out, DG_ACT_NONE));
    dg_scope_pop(ctx);
    return h;
}

/* in = { x, context }, out = { x } */
static void block(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const SpatialTransformer *t = *(const SpatialTransformer *const *)args;
    Tensor *x = in[0], *h;
    const int64_t tokens[3] = { x->dims[0], x->dims[1] * x->dims[2],
                                x->dims[3] };

    h = dg_op_group_norm(
        ctx, x, t->norm.w, t->norm.b,
        &(GroupNormOpts) { t->o.groups, EPS_GROUP, DG_ACT_NONE });
    h = dg_linear(ctx, h, &t->proj_in, DG_ACT_NONE);
    h = dg_op_reshape(ctx, h, 3, tokens);
    h = token_blocks(ctx, t, h, in[1]);
    h = dg_linear(ctx, h, &t->proj_out, DG_ACT_NONE);
    h = dg_op_reshape(ctx, h, 4, x->dims);
    out[0] = dg_op_add(ctx, x, h);
}

Tensor *dg_spatial_transformer(Context *ctx, const SpatialTransformer *t,
                               Tensor *x, Tensor *context)
{
    TapeBlock b = { .fn = block,
                    .args = &t,
                    .args_bytes = sizeof t,
                    .num_in = 2,
                    .num_out = 1,
                    .in = { x, context },
                    .weights = t->proj_in.w };
    Tensor *y;

    if (ctx->err || x == NULL || context == NULL)
        return NULL;
    dg_tape_block(ctx, &b, &y);
    return y;
}
