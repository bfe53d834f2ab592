#include "patches.h"

#include "base/error.h"

#include <string.h>

int64_t dg_patches_tokens(int64_t side, int64_t patch)
{
    return 1 + (side / patch) * (side / patch);
}

const int32_t *dg_patches_first(Context *ctx, int64_t B)
{
    int32_t *z;

    if (ctx->err)
        return NULL;
    z = dg_arena_take(&ctx->meta, (size_t)B * sizeof *z);
    if (z == NULL)
        ctx->err = DG_ENOMEM;
    else
        memset(z, 0, (size_t)B * sizeof *z);
    return z;
}

int dg_patches_check(Context *ctx, const Tensor *pixels, int64_t side,
                     const char *of)
{
    if (ctx->err || pixels == NULL)
        return 0;
    if (pixels->num_dims == 4 && pixels->dims[1] == side &&
        pixels->dims[2] == side && pixels->dims[3] == 3)
        return 1;
    ctx->err = dg_fail(DG_EINVAL, "%s: pictures must be %lld x %lld x 3", of,
                       (long long)side, (long long)side);
    return 0;
}

/* A parameter as a matrix of rows of its last dimension. */
static const Tensor *as_rows(Context *ctx, const Tensor *t)
{
    Tensor *view = dg_arena_take(&ctx->meta, sizeof *view);

    if (view == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    *view = *t;
    view->num_dims = 2;
    view->dims[0] = dg_tensor_rows(t);
    view->dims[1] = dg_tensor_width(t);
    return view;
}

/* The class token for every sample, [B, 1, width]: row 0 of a table of one. */
static Tensor *class_tokens(Context *ctx, const Patches *p, int64_t B)
{
    const int32_t *first = dg_patches_first(ctx, B);
    const Tensor *table = as_rows(ctx, p->class_token);

    return ctx->err ? NULL : dg_op_embed(ctx, first, B, 1, table);
}

Tensor *dg_patches(Context *ctx, const Patches *p, Tensor *pixels)
{
    const ConvOpts stride = { .stride = p->w->dims[2] };
    const Tensor *positions;
    Tensor *x = dg_op_conv2d(ctx, pixels, p->w, p->b, &stride);

    if (x != NULL)
        x = dg_op_reshape(
            ctx, x, 3,
            (int64_t[]) { x->dims[0], x->dims[1] * x->dims[2], x->dims[3] });
    if (x != NULL)
        x = dg_op_concat_tokens(ctx, class_tokens(ctx, p, x->dims[0]), x);
    positions = as_rows(ctx, p->positions);
    return ctx->err ? NULL : dg_op_add_positions(ctx, x, positions);
}
