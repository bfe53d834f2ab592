#include "nn/resnet.h"

#include "base/error.h"
#include "tensor/tape.h"

#include <stdio.h>
#include <string.h>

/* --- parameters --------------------------------------------------------- */

static const Tensor *add(LayerPath *p, const char *name, const char *end,
                         ParamInit init, int num_dims, const int64_t *dims)
{
    char key[2 * DG_PARAM_NAME];
    const Tensor *t;

    if (p->err)
        return NULL;
    snprintf(key, sizeof key, "%s%s%s", p->text, name, end);
    t = dg_params_add(p->set, key, init, num_dims, dims);
    if (t == NULL)
        p->err = dg_last_error()->code;
    return t;
}

Conv dg_layer_conv(LayerPath *p, const char *name, int64_t in, int64_t out,
                   int64_t k, ParamInit init)
{
    const int64_t dims[4] = { out, in, k, k };
    Conv c;

    c.w = add(p, name, ".weight", init, 4, dims);
    c.b = add(p, name, ".bias", DG_INIT_ZERO, 1, dims);
    return c;
}

Linear dg_layer_conv1(LayerPath *p, const char *name, int64_t in, int64_t out,
                      ParamInit init)
{
    const Conv c = dg_layer_conv(p, name, in, out, 1, init);
    Linear l = { 0 };

    l.w = c.w;
    l.b = c.b;
    return l;
}

void dg_layer_resnet(Resnet *r, LayerPath *p, const ResnetOpts *o)
{
    *r = (Resnet) { .o = *o };
    r->norm1 = dg_layer_layer_norm(p, "norm1", o->in);
    r->conv1 = dg_layer_conv(p, "conv1", o->in, o->out, 3, DG_INIT_NORMAL_FAN);
    if (o->time > 0)
        r->time = dg_layer_linear(p, "time_emb_proj", o->time, o->out,
                                  DG_WITH_BIAS, DG_INIT_XAVIER);
    r->norm2 = dg_layer_layer_norm(p, "norm2", o->out);
    r->conv2 = dg_layer_conv(p, "conv2", o->out, o->out, 3, DG_INIT_ZERO);
    if (o->in != o->out)
        r->shortcut = dg_layer_conv1(p, "conv_shortcut", o->in, o->out,
                                     DG_INIT_NORMAL_FAN);
}

/* --- forward ------------------------------------------------------------ */

Tensor *dg_conv(Context *ctx, Tensor *x, const Conv *c)
{
    const int64_t pad = (c->w->dims[2] - 1) / 2;

    return dg_op_conv2d(ctx, x, c->w, c->b,
                        &(ConvOpts) { 1, pad, pad, pad, pad, 0, 0, 0 });
}

Tensor *dg_conv_up(Context *ctx, Tensor *x, const Conv *c)
{
    return x == NULL ? NULL
                     : dg_conv_up_to(ctx, x, c, 2 * x->dims[1], 2 * x->dims[2]);
}

Tensor *dg_conv_up_to(Context *ctx, Tensor *x, const Conv *c, int64_t h,
                      int64_t w)
{
    const int64_t pad = (c->w->dims[2] - 1) / 2;

    if (x == NULL)
        return NULL;
    if (h > 2 * x->dims[1] || h < 2 * x->dims[1] - 1 || w > 2 * x->dims[2] ||
        w < 2 * x->dims[2] - 1)
        dg_panic("a map of %lld x %lld, enlarged to %lld x %lld",
                 (long long)x->dims[1], (long long)x->dims[2], (long long)h,
                 (long long)w);
    return dg_op_conv2d(ctx, x, c->w, c->b,
                        &(ConvOpts) { 1, pad, pad, pad, pad, 1,
                                      2 * x->dims[1] - h, 2 * x->dims[2] - w });
}

static Tensor *norm_silu(Context *ctx, Tensor *x, const Norm *n,
                         const ResnetOpts *o)
{
    return dg_op_group_norm(
        ctx, x, n->w, n->b,
        &(GroupNormOpts) { o->groups, o->eps, DG_ACT_SILU });
}

/* in = { x, time or NULL, skip or NULL } */
static void resnet_block(Context *ctx, const void *args, Tensor *const *in,
                         Tensor **out)
{
    const Resnet *r = *(const Resnet *const *)args;
    Tensor *x = in[0], *h;

    if (in[2] != NULL)
        x = dg_op_concat_channels(ctx, x, in[2]);
    h = dg_conv(ctx, norm_silu(ctx, x, &r->norm1, &r->o), &r->conv1);
    if (in[1] != NULL)
        h = dg_op_add_channels(ctx, h,
                               dg_linear(ctx, in[1], &r->time, DG_ACT_NONE));
    h = dg_conv(ctx, norm_silu(ctx, h, &r->norm2, &r->o), &r->conv2);
    if (r->shortcut.w != NULL)
        x = dg_linear(ctx, x, &r->shortcut, DG_ACT_NONE);
    out[0] = dg_op_add(ctx, x, h);
}

Tensor *dg_resnet(Context *ctx, const Resnet *r, Tensor *x, Tensor *skip,
                  Tensor *time)
{
    TapeBlock b = { .fn = resnet_block,
                    .args = &r,
                    .args_bytes = sizeof r,
                    .num_in = 3,
                    .num_out = 1,
                    .in = { x, time, skip },
                    .weights = r->conv1.w };
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    if (r->o.in != x->dims[3] + (skip != NULL ? skip->dims[3] : 0) ||
        (time != NULL) != (r->o.time > 0))
        dg_panic("resnet block of %lld channels: inputs do not fit",
                 (long long)r->o.in);
    b.shape[0] =
        (TapeShape) { 4, { x->dims[0], x->dims[1], x->dims[2], r->o.out } };
    dg_tape_block(ctx, &b, &y);
    return y;
}
