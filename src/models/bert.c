#include "models/bert.h"

#include "base/error.h"
#include "nn/layer.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <stdlib.h>

#define EPS 1e-12f

/* norm(x + out(attention(q(x), k(y), v(y)))) */
typedef struct Attention {
    Linear q, k, v, out;
    Norm norm;
} Attention;

typedef struct Layer {
    Attention self, cross;
    Linear inner, outer;
    Norm norm;
} Layer;

struct Bert {
    BertConfig c;
    const Tensor *words, *positions;
    Norm norm;
    Layer *layers;
};

static int check_config(const BertConfig *c)
{
    if (c->vocab_size < 1 || c->hidden_size < 1 || c->intermediate_size < 1 ||
        c->num_hidden_layers < 1 || c->num_attention_heads < 1 ||
        c->max_position_embeddings < 1 || c->encoder_width < 1)
        return dg_fail(DG_EINVAL, "bert config: sizes must be >= 1");
    if (c->hidden_size % c->num_attention_heads)
        return dg_fail(DG_EINVAL,
                       "bert config: hidden_size = %lld: must be a multiple of "
                       "num_attention_heads = %lld",
                       (long long)c->hidden_size,
                       (long long)c->num_attention_heads);
    return DG_OK;
}

/* width: of what keys and values are made of */
static void add_attention(Attention *a, LayerPath *p, const char *name,
                          int64_t D, int64_t width)
{
    const size_t whole = dg_path_enter(p, "%s", name);
    size_t mark = dg_path_enter(p, "self");

    a->q = dg_layer_linear(p, "query", D, D, DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
    a->k =
        dg_layer_linear(p, "key", width, D, DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
    a->v =
        dg_layer_linear(p, "value", width, D, DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
    dg_path_leave(p, mark);
    mark = dg_path_enter(p, "output");
    a->out =
        dg_layer_linear(p, "dense", D, D, DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
    a->norm = dg_layer_layer_norm(p, "LayerNorm", D);
    dg_path_leave(p, mark);
    dg_path_leave(p, whole);
}

static void add_layer(Layer *l, LayerPath *p, const BertConfig *c)
{
    const int64_t D = c->hidden_size, M = c->intermediate_size;
    size_t mark;

    add_attention(&l->self, p, "attention", D, D);
    add_attention(&l->cross, p, "crossattention", D, c->encoder_width);
    l->inner = dg_layer_linear(p, "intermediate.dense", D, M, DG_WITH_BIAS,
                               DG_INIT_NORMAL_FAN);
    mark = dg_path_enter(p, "output");
    l->outer =
        dg_layer_linear(p, "dense", M, D, DG_WITH_BIAS, DG_INIT_NORMAL_FAN);
    l->norm = dg_layer_layer_norm(p, "LayerNorm", D);
    dg_path_leave(p, mark);
}

static int add_params(Bert *m, ParamSet *set, const char *prefix)
{
    const BertConfig *c = &m->c;
    LayerPath p;
    size_t mark;

    dg_path_init(&p, set, prefix);
    mark = dg_path_enter(&p, "embeddings");
    m->words = dg_layer_table(&p, "word_embeddings", c->vocab_size,
                              c->hidden_size, 0.5);
    m->positions =
        dg_layer_table(&p, "position_embeddings", c->max_position_embeddings,
                       c->hidden_size, 0.2);
    m->norm = dg_layer_layer_norm(&p, "LayerNorm", c->hidden_size);
    dg_path_leave(&p, mark);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        mark = dg_path_enter(&p, "encoder.layer.%d", i);
        dg_path_group(&p);
        add_layer(&m->layers[i], &p, c);
        dg_path_group_end(&p);
        dg_path_leave(&p, mark);
    }
    return p.err;
}

int dg_bert_create(Bert **out, const BertConfig *c, ParamSet *set,
                   const char *prefix)
{
    Bert *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "bert");
    m->c = *c;
    m->layers = calloc((size_t)c->num_hidden_layers, sizeof *m->layers);
    if (m->layers == NULL)
        err = dg_fail(DG_ENOMEM, "bert");
    else
        err = add_params(m, set, prefix);
    if (err) {
        dg_bert_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_bert_destroy(Bert *m)
{
    if (m == NULL)
        return;
    free(m->layers);
    free(m);
}

typedef struct BlockArgs {
    const Bert *m;
    int index;
} BlockArgs;

/* x's own tokens attend to those of y. */
static Tensor *attend(Context *ctx, const Attention *a, int64_t heads,
                      Tensor *x, Tensor *y)
{
    const AttentionOpts opts = { .heads = (int)heads };
    Tensor *q = dg_linear(ctx, x, &a->q, DG_ACT_NONE);
    Tensor *k = dg_linear(ctx, y, &a->k, DG_ACT_NONE);
    Tensor *h = dg_linear(ctx, y, &a->v, DG_ACT_NONE);

    h = dg_op_attention(ctx, q, k, h, &opts);
    h = dg_op_add(ctx, x, dg_linear(ctx, h, &a->out, DG_ACT_NONE));
    return dg_op_layer_norm(ctx, h, a->norm.w, a->norm.b, EPS);
}

/* in = { x, seen }, out = { x } */
static void block(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const BlockArgs *a = args;
    const Layer *l = &a->m->layers[a->index];
    const int64_t heads = a->m->c.num_attention_heads;
    Tensor *x, *h;

    dg_scope_push(ctx, "encoder.layer", a->index);
    x = attend(ctx, &l->self, heads, in[0], in[0]);
    x = attend(ctx, &l->cross, heads, x, in[1]);
    h = dg_linear(ctx, x, &l->inner, DG_ACT_GELU_ERF);
    h = dg_op_add(ctx, x, dg_linear(ctx, h, &l->outer, DG_ACT_NONE));
    out[0] = dg_op_layer_norm(ctx, h, l->norm.w, l->norm.b, EPS);
    dg_scope_pop(ctx);
}

static Tensor *embed(const Bert *m, Context *ctx, const int32_t *ids, int64_t B,
                     int64_t tokens)
{
    Tensor *x;

    if (tokens < 1 || tokens > m->c.max_position_embeddings) {
        ctx->err =
            dg_fail(DG_EINVAL, "bert: %lld tokens: must be 1..%lld",
                    (long long)tokens, (long long)m->c.max_position_embeddings);
        return NULL;
    }
    x = dg_op_embed(ctx, ids, B, tokens, m->words);
    x = dg_op_add_positions(ctx, x, m->positions);
    return dg_op_layer_norm(ctx, x, m->norm.w, m->norm.b, EPS);
}

Tensor *dg_bert_forward(const Bert *m, Context *ctx, const int32_t *ids,
                        int64_t B, int64_t tokens, Tensor *seen)
{
    BlockArgs args = { m, 0 };
    TapeBlock b = { .fn = block,
                    .args = &args,
                    .args_bytes = sizeof args,
                    .num_in = 2,
                    .num_out = 1 };
    Tensor *x;

    if (ctx->err || seen == NULL)
        return NULL;
    dg_scope_push(ctx, "text_encoder", -1);
    x = embed(m, ctx, ids, B, tokens);
    b.in[1] = seen;
    for (; args.index < m->c.num_hidden_layers && !ctx->err; args.index++) {
        b.in[0] = x;
        b.weights = m->layers[args.index].self.q.w;
        dg_tape_block(ctx, &b, &x);
    }
    dg_scope_pop(ctx);
    return ctx->err ? NULL : x;
}
