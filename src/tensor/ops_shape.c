#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"
#include "tensor/mirror.h"

#include <math.h>
#include <string.h>

/* --- add --------------------------------------------------------------- */

static void add_back(Context *ctx, TapeNode *node)
{
    Tensor *a = node->t[0], *b = node->t[1], *dy = node->out->grad;

    /* only one operand may take dy by reference: b copies first */
    if (b->needs_grad && a->needs_grad) {
        int accumulate;
        Tensor *db = dg_tape_grad(ctx, b, &accumulate);

        if (db == NULL)
            return;
        if (accumulate)
            dg_kernels(ctx, dy)->add(db->data, db->data, dy->data,
                                     dg_tensor_count(dy));
        else
            dg_kernels(ctx, dy)->scale(db->data, dy->data, 1.0f,
                                       dg_tensor_count(dy));
        dg_tape_give(ctx, a, dy);
        return;
    }
    dg_tape_give(ctx, a->needs_grad ? a : b, dy);
}

Tensor *dg_op_add(Context *ctx, Tensor *a, Tensor *b)
{
    Tensor *y;

    if (ctx->err || a == NULL || b == NULL)
        return NULL;
    if (dg_tensor_count(a) != dg_tensor_count(b))
        dg_panic("add: operands of different sizes");
    dg_op_alike(a, b, "add");
    y = dg_tensor_like(ctx, a);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, a)->add(y->data, a->data, b->data, dg_tensor_count(a));
    dg_op_push(ctx, add_back, y, a, b);
    return dg_op_finish(ctx, y, "add");
}

/* --- token ranges ------------------------------------------------------ */

/* Copies tokens [from, from+count) of x to [to, ..) of y, per sample. */
static void copy_tokens(Context *ctx, const Tensor *x, int64_t from, Tensor *y,
                        int64_t to, const int64_t count_accumulate[2])
{
    const int64_t width = dg_tensor_width(x);

    dg_kernels(ctx, x)->copy(&(CopyArgs) {
        .blocks = x->dims[0],
        .rows = count_accumulate[0],
        .width = width,
        .src_block = x->dims[1] * width,
        .src_ld = width,
        .dst_block = y->dims[1] * width,
        .dst_ld = width,
        .src = dg_data_at(x, from * width),
        .dst = dg_data_at(y, to * width),
        .accumulate = (int)count_accumulate[1],
    });
}

static void concat_back(Context *ctx, TapeNode *node)
{
    int64_t from = 0;

    for (int i = 0; i < 2; i++) {
        Tensor *x = node->t[i];
        int accumulate = 0;
        Tensor *dx = dg_tape_grad(ctx, x, &accumulate);

        if (dx != NULL)
            copy_tokens(ctx, node->out->grad, from, dx, 0,
                        (int64_t[]) { x->dims[1], accumulate });
        from += x->dims[1];
    }
}

Tensor *dg_op_concat_tokens(Context *ctx, Tensor *a, Tensor *b)
{
    int64_t dims[3];
    Tensor *y;

    if (ctx->err || a == NULL || b == NULL)
        return NULL;
    dims[0] = a->dims[0];
    dims[1] = a->dims[1] + b->dims[1];
    dims[2] = a->dims[2];
    dg_op_alike(a, b, "concatenation");
    y = dg_tensor_new(ctx, a->dtype, 3, dims);
    if (y == NULL)
        return NULL;
    copy_tokens(ctx, a, 0, y, 0, (int64_t[]) { a->dims[1], 0 });
    copy_tokens(ctx, b, 0, y, a->dims[1], (int64_t[]) { b->dims[1], 0 });
    dg_op_push(ctx, concat_back, y, a, b);
    return dg_op_finish(ctx, y, "concatenation");
}

/* node: t[0] x; n[0] first */
static void slice_back(Context *ctx, TapeNode *node)
{
    Tensor *dx = dg_tape_grad_zeroed(ctx, node->t[0]);

    if (dx != NULL)
        copy_tokens(ctx, node->out->grad, 0, dx, node->n[0],
                    (int64_t[]) { node->out->dims[1], 1 });
}

Tensor *dg_op_slice_tokens(Context *ctx, Tensor *x, int64_t first,
                           int64_t count)
{
    int64_t dims[3];
    TapeNode *node;
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    if (first < 0 || count < 1 || first + count > x->dims[1])
        dg_panic("slice: tokens %lld+%lld of %lld", (long long)first,
                 (long long)count, (long long)x->dims[1]);
    dims[0] = x->dims[0];
    dims[1] = count;
    dims[2] = x->dims[2];
    y = dg_tensor_new(ctx, x->dtype, 3, dims);
    if (y == NULL)
        return NULL;
    copy_tokens(ctx, x, first, y, 0, (int64_t[]) { count, 0 });
    node = dg_op_push(ctx, slice_back, y, x, NULL);
    if (node != NULL)
        node->n[0] = first;
    return dg_op_finish(ctx, y, "slice");
}

/* Which token is picked is data, as an embedding's ids are, and not an address
 * of a launch: one graph serves all. node: t[0] x; extra copy of index */
static void pick_back(Context *ctx, TapeNode *node)
{
    const int32_t *index = node->extra;
    Tensor *x = node->t[0], *dy = node->out->grad;
    const int64_t B = x->dims[0], tokens = x->dims[1];
    const int64_t width = dg_tensor_width(x), rows = B * tokens;
    Tensor *dx = dg_tensor_like(ctx, x); /* its rows are one of these: */
    Tensor *of = dg_tensor_new(ctx, x->dtype, 2, (int64_t[]) { B + 1, width });
    int32_t *ids = dg_arena_take(&ctx->meta, sizeof *ids * (size_t)rows);
    const int32_t *there;

    if (dx == NULL || of == NULL || ids == NULL) {
        ctx->err = ctx->err ? ctx->err : DG_ENOMEM;
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i % tokens == index[i / tokens] ? i / tokens : B);
    there = dg_op_host(ctx, ids, DG_I32, rows);
    dg_kernels(ctx, x)->scale(dg_data(of), dg_data(dy), 1.0f, B * width);
    dg_kernels(ctx, x)->fill(dg_data_at(of, B * width), 0, width);
    dg_kernels(ctx, x)->embed(&(EmbedArgs) { .count = rows,
                                             .width = width,
                                             .vocab = B + 1,
                                             .ids = there,
                                             .table = dg_data(of),
                                             .y = dg_data(dx) });
    dg_tape_give(ctx, x, dx);
}

Tensor *dg_op_pick_token(Context *ctx, Tensor *x, const int32_t *index)
{
    int64_t dims[2], width;
    const int32_t *there;
    TapeNode *node;
    int32_t *kept; /* index, then rows of x */
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    dims[0] = x->dims[0];
    dims[1] = width = dg_tensor_width(x);
    y = dg_tensor_new(ctx, x->dtype, 2, dims);
    kept = dg_arena_take(&ctx->meta, 2 * sizeof *kept * (size_t)dims[0]);
    if (y == NULL || kept == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    for (int64_t b = 0; b < dims[0]; b++) {
        if (index[b] < 0 || index[b] >= x->dims[1])
            dg_panic("pick: token %d of %lld", index[b], (long long)x->dims[1]);
        kept[b] = index[b];
        kept[dims[0] + b] = (int32_t)(b * x->dims[1]) + index[b];
    }
    there = dg_op_host(ctx, kept + dims[0], DG_I32, dims[0]);
    dg_kernels(ctx, x)->embed(&(EmbedArgs) { .count = dims[0],
                                             .width = width,
                                             .vocab = dims[0] * x->dims[1],
                                             .ids = there,
                                             .table = dg_data(x),
                                             .y = dg_data(y) });
    node = dg_op_push(ctx, pick_back, y, x, NULL);
    if (node != NULL)
        node->extra = kept;
    return dg_op_finish(ctx, y, "pick");
}

/* The gradient of a view is a view of the gradient. */
static void reshape_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *dy = node->out->grad;
    Tensor *g = dg_tensor_wrap(ctx, dy->data, dy->dtype, x->num_dims, x->dims);

    if (g != NULL)
        dg_tape_give(ctx, x, g);
}

Tensor *dg_op_reshape(Context *ctx, Tensor *x, int num_dims,
                      const int64_t *dims)
{
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    y = dg_tensor_wrap(ctx, x->data, x->dtype, num_dims, dims);
    if (y == NULL)
        return NULL;
    if (dg_tensor_count(y) != dg_tensor_count(x))
        dg_panic("reshape: %lld elements to %lld",
                 (long long)dg_tensor_count(x), (long long)dg_tensor_count(y));
    dg_op_push(ctx, reshape_back, y, x, NULL);
    return y;
}

/* --- storage ----------------------------------------------------------- */

static void cast(Context *ctx, const Tensor *x, Tensor *y)
{
    if (ctx->backend->cast == NULL)
        dg_panic("%s to %s: the %s backend has one type only",
                 dg_dtype_name(x->dtype), dg_dtype_name(y->dtype),
                 ctx->backend->name);
    ctx->backend->cast(y->data, y->dtype, x->data, x->dtype,
                       dg_tensor_count(x));
}

/* node: t[0] x */
static void cast_back(Context *ctx, TapeNode *node)
{
    Tensor *dx = dg_tensor_like(ctx, node->t[0]);

    if (dx == NULL)
        return;
    cast(ctx, node->out->grad, dx);
    dg_tape_give(ctx, node->t[0], dx);
}

Tensor *dg_op_cast(Context *ctx, Tensor *x, DType dtype)
{
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    if (x->dtype == dtype)
        return x;
    y = dg_tensor_new(ctx, dtype, x->num_dims, x->dims);
    if (y == NULL)
        return NULL;
    cast(ctx, x, y);
    dg_op_push(ctx, cast_back, y, x, NULL);
    return dg_op_finish(ctx, y, "cast");
}

/* the values of x as float32: x itself, or a copy that is not recorded */
static const Tensor *widened(Context *ctx, const Tensor *x)
{
    Tensor *y;

    if (x->dtype == DG_F32)
        return x;
    y = dg_tensor_new(ctx, DG_F32, x->num_dims, x->dims);
    if (y != NULL)
        cast(ctx, x, y);
    return y;
}

/* --- embeddings -------------------------------------------------------- */

/* node: w[0] table; extra ids */
static void embed_back(Context *ctx, TapeNode *node)
{
    const Tensor *table = node->w[0];

    dg_kernels(ctx, table)
        ->embed_grad(&(EmbedArgs) {
            .count = dg_tensor_rows(node->out),
            .width = table->dims[1],
            .vocab = table->dims[0],
            .ids = node->extra,
            .dy = dg_data(node->out->grad),
            .dtable = dg_tape_param_grad(ctx, table),
        });
}

Tensor *dg_op_embed(Context *ctx, const int32_t *ids, int64_t B, int64_t S,
                    const Tensor *table)
{
    const int64_t dims[3] = { B, S, table->dims[1] };
    TapeNode *node = NULL;
    Tensor *y;

    if (ctx->err)
        return NULL;
    for (int64_t i = 0; i < B * S; i++) {
        if (ids[i] >= 0 && ids[i] < table->dims[0])
            continue;
        ctx->err =
            dg_fail(DG_EINVAL, "token id %d at position %lld: must be 0..%lld",
                    ids[i], (long long)i, (long long)table->dims[0] - 1);
        return NULL;
    }
    ids = dg_op_host(ctx, ids, DG_I32, B * S);
    y = dg_tensor_new(ctx, table->dtype, 3, dims);
    if (y == NULL)
        return NULL;
    dg_kernels(ctx, table)
        ->embed(&(EmbedArgs) {
            .count = B * S,
            .width = table->dims[1],
            .vocab = table->dims[0],
            .ids = ids,
            .table = dg_data(table),
            .y = dg_data(y),
        });
    if (dg_op_records(ctx, NULL, table))
        node = dg_tape_push(ctx, embed_back, y);
    if (node != NULL) {
        node->w[0] = table;
        node->extra = ids;
    }
    return dg_op_finish(ctx, y, "embedding");
}

/* node: t[0] x; w[0] table */
static void positions_back(Context *ctx, TapeNode *node)
{
    Tensor *x = node->t[0], *dy = node->out->grad;
    float *dtable = dg_tape_param_grad(ctx, node->w[0]);
    const int64_t count = dg_tensor_count(dy) / dy->dims[0];
    const size_t mark = dg_arena_mark(&ctx->arena);
    const size_t meta = dg_arena_mark(&ctx->meta);

    if (dg_tape_trains(ctx, node->w[0])) {
        const Tensor *wide = widened(ctx, dy);

        for (int64_t b = 0; b < dy->dims[0] && dtable != NULL && !ctx->err; b++)
            ctx->backend->add(dtable, dtable, dg_data(wide) + b * count, count);
    }
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    dg_tape_give(ctx, x, dy);
}

Tensor *dg_op_add_positions(Context *ctx, Tensor *x, const Tensor *table)
{
    TapeNode *node = NULL;
    int64_t count;
    Tensor *y;

    if (ctx->err || x == NULL)
        return NULL;
    if (table->dims[0] < x->dims[1])
        dg_panic("positions: %lld tokens, table of %lld", (long long)x->dims[1],
                 (long long)table->dims[0]);
    dg_op_alike(x, table, "positions");
    y = dg_tensor_like(ctx, x);
    if (y == NULL)
        return NULL;
    count = dg_tensor_count(x) / x->dims[0];
    for (int64_t b = 0; b < x->dims[0] && ctx->backend->computes; b++)
        dg_kernels(ctx, x)->add(dg_data_at(y, b * count),
                                dg_data_at(x, b * count), dg_data(table),
                                count);
    if (dg_op_records(ctx, x, table))
        node = dg_tape_push(ctx, positions_back, y);
    if (node != NULL) {
        node->t[0] = x;
        node->w[0] = table;
    }
    return dg_op_finish(ctx, y, "position embedding");
}

/* --- inputs ------------------------------------------------------------ */

const void *dg_op_host(Context *ctx, const void *host, DType dtype,
                       int64_t count)
{
    Tensor *t;

    if (host == NULL || !ctx->backend->apart)
        return host;
    t = dg_tensor_new(ctx, dtype, 1, &count);
    if (t == NULL || !ctx->backend->computes)
        return NULL;
    ctx->backend->upload(t->data, host,
                         (size_t)(count * dg_dtype_bytes(dtype)));
    return t->data;
}

Tensor *dg_op_input(Context *ctx, const float *host, int num_dims,
                    const int64_t *dims)
{
    Tensor *y = dg_tensor_new(ctx, DG_F32, num_dims, dims);

    if (y != NULL && ctx->backend->computes)
        dg_kernel_upload(ctx->backend, y->data, host,
                         sizeof *host * (size_t)dg_tensor_count(y));
    return y;
}

/* where the host makes the values of y: in place, or for an upload */
static float *host_room(Context *ctx, const Tensor *y)
{
    float *room = dg_data(y);

    if (ctx->backend->apart)
        room = dg_arena_take(&ctx->meta,
                             sizeof *room * (size_t)dg_tensor_count(y));
    if (room == NULL)
        ctx->err = DG_ENOMEM;
    return room;
}

Tensor *dg_op_sinusoid(Context *ctx, const float *t, int64_t B, int64_t dim)
{
    const int64_t dims[2] = { B, dim }, half = dim / 2;
    Tensor *y = dg_tensor_new(ctx, DG_F32, 2, dims);
    float *all;

    if (y == NULL || !ctx->backend->computes)
        return y;
    all = host_room(ctx, y);
    if (all == NULL)
        return NULL;
    for (int64_t b = 0; b < B; b++) {
        float *row = all + b * dim;

        for (int64_t i = 0; i < half; i++) {
            /* the exponent in float, as the networks were trained with: at
             * t = 1000 its rounding turns the angle by up to 1e-4 */
            const float exponent =
                (float)-log(10000.0) * (float)i / (float)half;
            const float angle = t[b] * (float)exp((double)exponent);

            row[i] = (float)cos((double)angle);
            row[half + i] = (float)sin((double)angle);
        }
    }
    if (ctx->backend->apart)
        ctx->backend->upload(y->data, all,
                             sizeof *all * (size_t)dg_tensor_count(y));
    return dg_op_finish(ctx, y, "sinusoid");
}
