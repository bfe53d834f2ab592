#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

/* Scratch lives only for the call: the caller releases its mark. */
static void *take_scratch(Context *ctx, size_t bytes)
{
    const int64_t count = (int64_t)bytes;
    Tensor *t = dg_tensor_new(ctx, DG_U8, 1, &count);

    return t != NULL ? t->data : NULL;
}

/* --- convolution -------------------------------------------------------- */

/* node: t[0] x; w[0] weight, w[1] bias; n[0] stride, n[1] top, n[2] left,
 * n[3] zoom */
static ConvArgs conv_args(const Tensor *x, const Tensor *w, const Tensor *y,
                          const int64_t place[4])
{
    return (ConvArgs) {
        .batch = x->dims[0],
        .h = x->dims[1],
        .w = x->dims[2],
        .in = x->dims[3],
        .out_h = y->dims[1],
        .out_w = y->dims[2],
        .out = y->dims[3],
        .kernel_h = w->dims[2],
        .kernel_w = w->dims[3],
        .stride = place[0],
        .top = place[1],
        .left = place[2],
        .zoom = place[3],
        .x = dg_data(x),
        .weight = dg_data(w),
    };
}

static uint64_t conv_flops(const ConvArgs *a)
{
    return 2 * (uint64_t)(a->batch * a->out_h * a->out_w * a->out *
                          a->kernel_h * a->kernel_w * a->in);
}

static void conv_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0];
    const Tensor *w = node->w[0];
    ConvArgs a = conv_args(x, w, node->out, node->n);
    Tensor *dx = dg_tape_grad(ctx, x, &a.accumulate);
    const size_t mark = dg_arena_mark(&ctx->arena);
    const size_t meta = dg_arena_mark(&ctx->meta);

    if (ctx->err)
        return;
    a.scratch = take_scratch(ctx, ctx->backend->conv_scratch(&a));
    if (ctx->err)
        return;
    a.dy = dg_data(node->out->grad);
    if (dx != NULL) {
        a.dx = dg_data(dx);
        dg_kernels(ctx, x)->conv_input_grad(&a);
        ctx->flops += conv_flops(&a);
    }
    if (dg_tape_trains(ctx, w)) {
        a.dweight = dg_tape_param_grad(ctx, w);
        a.dbias = dg_tape_param_grad(ctx, node->w[1]);
        dg_kernels(ctx, x)->conv_weight_grad(&a);
        ctx->flops += conv_flops(&a);
    }
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
}

static void check_conv(const Tensor *x, const Tensor *w, const int64_t *dims)
{
    if (x->num_dims != 4 || w->num_dims != 4 || w->dims[1] != x->dims[3])
        dg_panic("conv2d: weight of %lld input channels on a map of %lld",
                 (long long)w->dims[1], (long long)x->dims[3]);
    if (dims[1] < 1 || dims[2] < 1)
        dg_panic("conv2d: kernel %lld x %lld on a map of %lld x %lld",
                 (long long)w->dims[2], (long long)w->dims[3],
                 (long long)x->dims[1], (long long)x->dims[2]);
}

/* floor((size - kernel) / stride) + 1, 0 where the kernel does not fit */
static int64_t places(int64_t size, int64_t kernel, int64_t stride)
{
    return size < kernel ? 0 : (size - kernel) / stride + 1;
}

Tensor *dg_op_conv2d(Context *ctx, Tensor *x, const Tensor *w,
                     const Tensor *bias, const ConvOpts *o)
{
    const int64_t zoom = o->upsample ? 2 : 1;
    const int64_t place[4] = { o->stride, o->top, o->left, zoom };
    TapeNode *node = NULL;
    int64_t dims[4];
    size_t mark, meta;
    ConvArgs a;
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    dims[0] = x->dims[0];
    dims[1] =
        places(zoom * x->dims[1] + o->top + o->bottom, w->dims[2], o->stride);
    dims[2] =
        places(zoom * x->dims[2] + o->left + o->right, w->dims[3], o->stride);
    dims[3] = w->dims[0];
    check_conv(x, w, dims);
    dg_op_alike(x, w, "conv2d");
    y = dg_tensor_new(ctx, w->dtype, 4, dims);
    if (y == NULL)
        return NULL;
    a = conv_args(x, w, y, place);
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    a.scratch = take_scratch(ctx, ctx->backend->conv_scratch(&a));
    if (ctx->err)
        return NULL;
    a.bias = dg_data(bias);
    a.y = dg_data(y);
    dg_kernels(ctx, x)->conv(&a);
    ctx->flops += conv_flops(&a);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    if (dg_op_records(ctx, x, w))
        node = dg_tape_push(ctx, conv_back, y);
    if (node != NULL) {
        node->t[0] = x;
        node->w[0] = w;
        node->w[1] = bias;
        for (int i = 0; i < 4; i++)
            node->n[i] = place[i];
    }
    return dg_op_finish(ctx, y, "convolution");
}

/* --- group norm --------------------------------------------------------- */

/* node: t[0] x, t[1] mean, t[2] rstd; w[0] w, w[1] b; n[0] act; f[0] eps */
static GroupNormArgs group_norm_args(const Tensor *x, const Tensor *mean,
                                     const Tensor *rstd,
                                     const Tensor *const w[])
{
    return (GroupNormArgs) {
        .batch = x->dims[0],
        .rows = dg_rows_per_sample(x),
        .width = dg_tensor_width(x),
        .groups = mean->dims[1],
        .x = dg_data(x),
        .w = dg_data(w[0]),
        .b = dg_data(w[1]),
        .mean = dg_data(mean),
        .rstd = dg_data(rstd),
    };
}

static void group_norm_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *dx = dg_tensor_like(ctx, x);
    GroupNormArgs a = group_norm_args(x, node->t[1], node->t[2], node->w);
    size_t mark, meta;

    if (ctx->err)
        return;
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    a.scratch = take_scratch(ctx, ctx->backend->group_norm_scratch(a.width));
    if (ctx->err)
        return;
    a.act = (Act)node->n[0];
    a.eps = node->f[0];
    a.dy = dg_data(node->out->grad);
    a.dx = dg_data(dx);
    a.dw = dg_tape_param_grad(ctx, node->w[0]);
    a.db = dg_tape_param_grad(ctx, node->w[1]);
    dg_kernels(ctx, x)->group_norm_grad(&a);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    dg_tape_give(ctx, x, dx);
}

Tensor *dg_op_group_norm(Context *ctx, Tensor *x, const Tensor *w,
                         const Tensor *b, const GroupNormOpts *o)
{
    const Tensor *const wb[2] = { w, b };
    Tensor *y, *mean, *rstd;
    TapeNode *node = NULL;
    int64_t stat[2];
    size_t mark, meta;
    GroupNormArgs a;

    if (ctx->err || x == NULL)
        return NULL;
    if (o->groups < 1 || dg_tensor_width(x) % o->groups)
        dg_panic("group norm: %lld groups of %lld channels",
                 (long long)o->groups, (long long)dg_tensor_width(x));
    if (o->act != DG_ACT_NONE && o->act != DG_ACT_SILU)
        dg_panic("group norm: activation %d", (int)o->act);
    dg_op_alike(x, w, "group norm");
    stat[0] = x->dims[0];
    stat[1] = o->groups;
    y = dg_tensor_like(ctx, x);
    mean = dg_tensor_new(ctx, DG_F32, 2, stat);
    rstd = dg_tensor_new(ctx, DG_F32, 2, stat);
    if (ctx->err)
        return NULL;
    a = group_norm_args(x, mean, rstd, wb);
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    a.scratch = take_scratch(ctx, ctx->backend->group_norm_scratch(a.width));
    if (ctx->err)
        return NULL;
    a.act = o->act;
    a.eps = o->eps;
    a.y = dg_data(y);
    dg_kernels(ctx, x)->group_norm(&a);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    if (dg_op_records(ctx, x, w))
        node = dg_tape_push(ctx, group_norm_back, y);
    if (node != NULL) {
        node->t[0] = x;
        node->t[1] = mean;
        node->t[2] = rstd;
        node->w[0] = w;
        node->w[1] = b;
        node->n[0] = o->act;
        node->f[0] = o->eps;
    }
    return dg_op_finish(ctx, y, "GroupNorm");
}
