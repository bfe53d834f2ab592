#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

/* Maps are moved by the copy kernel: rows of channels between two pitches. */

/* --- channels joined ---------------------------------------------------- */

/* node: t[0] a, t[1] b */
static void concat_back(Context *ctx, TapeNode *node)
{
    const int64_t wide = dg_tensor_width(node->out);
    int64_t from = 0;

    for (int i = 0; i < 2; i++) {
        Tensor *x = node->t[i];
        const int64_t width = dg_tensor_width(x);
        int accumulate = 0;
        Tensor *dx = dg_tape_grad(ctx, x, &accumulate);

        if (dx != NULL)
            dg_kernels(ctx, x)->copy(&(CopyArgs) {
                .blocks = 1,
                .rows = dg_tensor_rows(x),
                .width = width,
                .src_ld = wide,
                .dst_ld = width,
                .src = dg_data_at(node->out->grad, from),
                .dst = dg_data(dx),
                .accumulate = accumulate,
            });
        from += width;
    }
}

Tensor *dg_op_concat_channels(Context *ctx, Tensor *a, Tensor *b)
{
    int64_t dims[DG_MAX_DIMS], to = 0;
    Tensor *y;

    if (ctx->err || a == NULL || b == NULL)
        return NULL;
    if (dg_tensor_rows(a) != dg_tensor_rows(b))
        dg_panic("concat: %lld pixels and %lld", (long long)dg_tensor_rows(a),
                 (long long)dg_tensor_rows(b));
    for (int i = 0; i < a->num_dims; i++)
        dims[i] = a->dims[i];
    dims[a->num_dims - 1] += dg_tensor_width(b);
    dg_op_alike(a, b, "concatenation");
    y = dg_tensor_new(ctx, a->dtype, a->num_dims, dims);
    if (y == NULL)
        return NULL;
    for (int i = 0; i < 2; i++) {
        const Tensor *x = i == 0 ? a : b;

        dg_kernels(ctx, x)->copy(&(CopyArgs) {
            .blocks = 1,
            .rows = dg_tensor_rows(x),
            .width = dg_tensor_width(x),
            .src_ld = dg_tensor_width(x),
            .dst_ld = dg_tensor_width(y),
            .src = dg_data(x),
            .dst = dg_data_at(y, to),
        });
        to += dg_tensor_width(x);
    }
    dg_op_push(ctx, concat_back, y, a, b);
    return dg_op_finish(ctx, y, "concatenation");
}

/* --- a vector to every pixel -------------------------------------------- */

/* node: t[0] x, t[1] v */
static void add_channels_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *v = node->t[1], *dy = node->out->grad;
    Tensor *dv = dg_tape_grad_zeroed(ctx, v);

    if (ctx->err)
        return;
    if (dv != NULL)
        dg_kernels(ctx, x)->add_rows_grad(&(AddRowsArgs) {
            .batch = x->dims[0],
            .rows = dg_rows_per_sample(x),
            .width = dg_tensor_width(x),
            .dy = dg_data(dy),
            .dv = dg_data(dv),
        });
    dg_tape_give(ctx, x, dy);
}

Tensor *dg_op_add_channels(Context *ctx, Tensor *x, Tensor *v)
{
    Tensor *y;

    if (ctx->err || x == NULL || v == NULL)
        return NULL;
    if (v->dims[0] != x->dims[0] ||
        dg_tensor_count(v) != x->dims[0] * dg_tensor_width(x))
        dg_panic("add channels: vector and map do not fit");
    dg_op_alike(x, v, "add channels");
    y = dg_tensor_like(ctx, x);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, x)->add_rows(&(AddRowsArgs) {
        .batch = x->dims[0],
        .rows = dg_rows_per_sample(x),
        .width = dg_tensor_width(x),
        .x = dg_data(x),
        .v = dg_data(v),
        .y = dg_data(y),
    });
    dg_op_push(ctx, add_channels_back, y, x, v);
    return dg_op_finish(ctx, y, "added channels");
}

/* --- order of the axes -------------------------------------------------- */

/* x [B,R,C] to y [B,C,R], column after column */
static void swap_axes(Context *ctx, const Tensor *x, Tensor *y, int64_t rows,
                      int accumulate)
{
    const int64_t columns = dg_tensor_count(x) / x->dims[0] / rows;
    const int64_t sample = rows * columns;

    for (int64_t i = 0; i < columns; i++)
        dg_kernels(ctx, x)->copy(&(CopyArgs) {
            .blocks = x->dims[0],
            .rows = rows,
            .width = 1,
            .src_block = sample,
            .src_ld = columns,
            .dst_block = sample,
            .dst_ld = 1,
            .src = dg_data_at(x, i),
            .dst = dg_data_at(y, i * rows),
            .accumulate = accumulate,
        });
}

/* node: t[0] x; n[0] rows of y */
static void swap_back(Context *ctx, TapeNode *node)
{
    int accumulate;
    Tensor *dx = dg_tape_grad(ctx, node->t[0], &accumulate);

    if (dx != NULL)
        swap_axes(ctx, node->out->grad, dx, node->n[0], accumulate);
}

static Tensor *swapped(Context *ctx, Tensor *x, const int64_t *dims,
                       int64_t rows)
{
    Tensor *y = dg_tensor_new(ctx, x->dtype, 4, dims);
    TapeNode *node;

    if (y == NULL)
        return NULL;
    swap_axes(ctx, x, y, rows, 0);
    node = dg_op_push(ctx, swap_back, y, x, NULL);
    if (node != NULL)
        node->n[0] = dg_tensor_count(x) / x->dims[0] / rows;
    return y;
}

Tensor *dg_op_channels_last(Context *ctx, Tensor *x)
{
    if (ctx->err || x == NULL)
        return NULL;
    return swapped(
        ctx, x, (int64_t[]) { x->dims[0], x->dims[2], x->dims[3], x->dims[1] },
        x->dims[1]);
}

Tensor *dg_op_channels_first(Context *ctx, Tensor *x)
{
    if (ctx->err || x == NULL)
        return NULL;
    return swapped(
        ctx, x, (int64_t[]) { x->dims[0], x->dims[3], x->dims[1], x->dims[2] },
        x->dims[1] * x->dims[2]);
}
