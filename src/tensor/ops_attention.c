#include "tensor/ops.h"

#include "base/error.h"
#include "op.h"

#include <math.h>

/* node: t[0..2] q k v, t[3] bias, t[4] lse; n[0] heads, n[1] causal;
 * f[0] scale */
static AttentionArgs attention_args(const Tensor *q, const Tensor *k,
                                    const Tensor *v, const AttentionOpts *o)
{
    const int64_t d = dg_tensor_width(q) / o->heads;

    return (AttentionArgs) {
        .batch = q->dims[0],
        .heads = o->heads,
        .d = d,
        .sq = q->dims[1],
        .sk = k->dims[1],
        .scale = o->scale != 0 ? o->scale : (float)(1 / sqrt((double)d)),
        .causal = o->causal,
        .bias = dg_data(o->bias),
        .q = dg_data(q),
        .k = dg_data(k),
        .v = dg_data(v),
    };
}

static uint64_t product_flops(const AttentionArgs *a)
{
    return 2 * (uint64_t)(a->batch * a->heads * a->sq * a->sk * a->d);
}

/* Scratch lives only for the call: the mark is released by the caller. */
static void *take_scratch(Context *ctx, const AttentionArgs *a, int backward)
{
    const int64_t bytes =
        (int64_t)ctx->backend->attention_scratch(a->sq, a->sk, a->d, backward);
    Tensor *t = dg_tensor_new(ctx, DG_U8, 1, &bytes);

    return t != NULL ? t->data : NULL;
}

static void attention_back(Context *ctx, TapeNode *node)
{
    Tensor *q = node->t[0], *k = node->t[1], *v = node->t[2];
    Tensor *bias = node->t[3];
    const AttentionOpts o = { (int)node->n[0], node->f[0], (int)node->n[1],
                              bias };
    Tensor *dq = dg_tensor_like(ctx, q), *dk = dg_tensor_like(ctx, k);
    Tensor *dv = dg_tensor_like(ctx, v);
    Tensor *dbias = dg_tape_grad_zeroed(ctx, bias);
    AttentionArgs a = attention_args(q, k, v, &o);
    size_t mark, meta;

    if (ctx->err)
        return;
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    a.scratch = take_scratch(ctx, &a, 1);
    if (ctx->err)
        return;
    a.o = dg_data(node->out);
    a.lse = dg_data(node->t[4]);
    a.d_o = dg_data(node->out->grad);
    a.dq = dg_data(dq);
    a.dk = dg_data(dk);
    a.dv = dg_data(dv);
    a.dbias = dg_data(dbias);
    dg_kernels(ctx, q)->attention_grad(&a);
    ctx->flops += 5 * product_flops(&a);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    dg_tape_give(ctx, q, dq);
    dg_tape_give(ctx, k, dk);
    dg_tape_give(ctx, v, dv);
}

static void record(Context *ctx, Tensor *const qkv[3], Tensor *lse, Tensor *y,
                   const AttentionOpts *o, float scale)
{
    TapeNode *node = dg_tape_push(ctx, attention_back, y);

    if (node == NULL)
        return;
    for (int i = 0; i < 3; i++)
        node->t[i] = qkv[i];
    node->t[3] = o->bias;
    node->t[4] = lse;
    node->n[0] = o->heads;
    node->n[1] = o->causal;
    node->f[0] = scale;
}

Tensor *dg_op_attention(Context *ctx, Tensor *q, Tensor *k, Tensor *v,
                        const AttentionOpts *o)
{
    int64_t stat[3];
    Tensor *y, *lse;
    AttentionArgs a;
    size_t mark, meta;
    int records;

    if (ctx->err || q == NULL || k == NULL || v == NULL)
        return NULL;
    records = dg_op_records(ctx, q, NULL) || dg_op_records(ctx, k, NULL) ||
              dg_op_records(ctx, v, NULL) || dg_op_records(ctx, o->bias, NULL);
    dg_op_alike(q, k, "attention");
    dg_op_alike(q, v, "attention");
    a = attention_args(q, k, v, o);
    stat[0] = a.batch;
    stat[1] = a.heads;
    stat[2] = a.sq;
    y = dg_tensor_like(ctx, q);
    lse = records ? dg_tensor_new(ctx, DG_F32, 3, stat) : NULL;
    if (ctx->err)
        return NULL;
    mark = dg_arena_mark(&ctx->arena);
    meta = dg_arena_mark(&ctx->meta);
    a.scratch = take_scratch(ctx, &a, 0);
    if (ctx->err)
        return NULL;
    a.o = dg_data(y);
    a.lse = dg_data(lse);
    dg_kernels(ctx, q)->attention(&a);
    ctx->flops += 2 * product_flops(&a);
    dg_arena_release(&ctx->arena, mark);
    dg_arena_release(&ctx->meta, meta);
    if (records)
        record(ctx, (Tensor *const[]) { q, k, v }, lse, y, o, a.scale);
    return dg_op_finish(ctx, y, "attention");
}

/* --- T5's relative position bias --------------------------------------- */

static CopyArgs transpose(const float *src, float *dst, int64_t heads,
                          int64_t pairs)
{
    return (CopyArgs) { .blocks = heads,
                        .rows = pairs,
                        .width = 1,
                        .src_block = 1,
                        .src_ld = heads,
                        .dst_block = pairs,
                        .dst_ld = 1,
                        .src = src,
                        .dst = dst };
}

/* node: w[0] table; extra buckets */
static void bias_table_back(Context *ctx, TapeNode *node)
{
    const Tensor *table = node->w[0];
    const int64_t heads = table->dims[1];
    const int64_t pairs = node->out->dims[1] * node->out->dims[2];
    const int64_t dims[2] = { pairs, heads };
    Tensor *flat = dg_tensor_new(ctx, table->dtype, 2, dims);
    const float *dy = dg_data(node->out->grad);

    if (ctx->err)
        return;
    dg_kernels(ctx, flat)->copy(&(CopyArgs) { .blocks = heads,
                                              .rows = pairs,
                                              .width = 1,
                                              .src_block = pairs,
                                              .src_ld = 1,
                                              .dst_block = 1,
                                              .dst_ld = heads,
                                              .src = dy,
                                              .dst = dg_data(flat) });
    dg_kernels(ctx, flat)->embed_grad(&(EmbedArgs) {
        .count = pairs,
        .width = heads,
        .vocab = table->dims[0],
        .ids = node->extra,
        .dy = dg_data(flat),
        .dtable = dg_tape_param_grad(ctx, table),
    });
}

Tensor *dg_op_bias_table(Context *ctx, const int32_t *buckets, int64_t S,
                         const Tensor *table)
{
    const int64_t heads = table->dims[1], pairs = S * S;
    const int64_t flat_dims[2] = { pairs, heads }, dims[3] = { heads, S, S };
    TapeNode *node = NULL;
    Tensor *flat, *y;
    CopyArgs c;

    if (ctx->err)
        return NULL;
    y = dg_tensor_new(ctx, table->dtype, 3, dims);
    flat = dg_tensor_new(ctx, table->dtype, 2, flat_dims);
    buckets = dg_op_host(ctx, buckets, DG_I32, pairs);
    if (ctx->err)
        return NULL;
    dg_kernels(ctx, table)
        ->embed(&(EmbedArgs) {
            .count = pairs,
            .width = heads,
            .vocab = table->dims[0],
            .ids = buckets,
            .table = dg_data(table),
            .y = dg_data(flat),
        });
    c = transpose(dg_data(flat), dg_data(y), heads, pairs);
    dg_kernels(ctx, y)->copy(&c);
    if (dg_op_records(ctx, NULL, table))
        node = dg_tape_push(ctx, bias_table_back, y);
    if (node != NULL) {
        node->w[0] = table;
        node->extra = buckets;
    }
    y = dg_op_finish(ctx, y, "position bias");
    return dg_op_cast(ctx, y, DG_F32);
}
