#include "models/clip.h"

#include "base/error.h"
#include "nn/layer.h"
#include "tensor/ops.h"
#include "tensor/tape.h"

#include <math.h>
#include <stdlib.h>

#define EPS 1e-5f

typedef struct Layer {
    Norm norm_1, norm_2;
    Linear q, k, v, out, fc1, fc2;
} Layer;

struct ClipText {
    ClipTextConfig c;
    const Tensor *tokens, *positions;
    Layer *layers;
    Norm final_norm;
};

static int check_config(const ClipTextConfig *c)
{
    if (c->vocab_size < 1 || c->hidden_size < 1 || c->intermediate_size < 1 ||
        c->num_hidden_layers < 1 || c->num_attention_heads < 1 ||
        c->max_position_embeddings < 1)
        return dg_fail(DG_EINVAL, "clip config: sizes must be >= 1");
    if (c->hidden_size % c->num_attention_heads)
        return dg_fail(DG_EINVAL,
                       "clip config: hidden_size = %lld: must be a multiple "
                       "of num_attention_heads = %lld",
                       (long long)c->hidden_size,
                       (long long)c->num_attention_heads);
    return DG_OK;
}

/* Projections back into the residual stream shrink with the depth, as CLIP's
 * own first values do. */
static void add_layer(Layer *l, LayerPath *p, const ClipTextConfig *c)
{
    const int64_t D = c->hidden_size, M = c->intermediate_size;
    const double shrink = 1 / sqrt(2.0 * c->num_hidden_layers);
    size_t mark = dg_path_enter(p, "self_attn");

    l->q = dg_layer_linear(p, "q_proj", D, D, 1, DG_INIT_NORMAL_FAN);
    l->k = dg_layer_linear(p, "k_proj", D, D, 1, DG_INIT_NORMAL_FAN);
    l->v = dg_layer_linear(p, "v_proj", D, D, 1, DG_INIT_NORMAL_FAN);
    l->out = dg_layer_linear_normal(p, "out_proj", D, D, 1,
                                    shrink / sqrt((double)D));
    dg_path_leave(p, mark);
    l->norm_1 = dg_layer_layer_norm(p, "layer_norm1", D);
    mark = dg_path_enter(p, "mlp");
    l->fc1 = dg_layer_linear(p, "fc1", D, M, 1, DG_INIT_NORMAL_FAN);
    l->fc2 =
        dg_layer_linear_normal(p, "fc2", M, D, 1, shrink / sqrt((double)M));
    dg_path_leave(p, mark);
    l->norm_2 = dg_layer_layer_norm(p, "layer_norm2", D);
}

static int add_params(ClipText *m, ParamSet *set, const char *prefix)
{
    const ClipTextConfig *c = &m->c;
    LayerPath p;
    size_t mark;

    dg_path_init(&p, set, prefix);
    dg_path_enter(&p, "text_model");
    mark = dg_path_enter(&p, "embeddings");
    m->tokens = dg_layer_table(&p, "token_embedding", c->vocab_size,
                               c->hidden_size, 0.5);
    m->positions =
        dg_layer_table(&p, "position_embedding", c->max_position_embeddings,
                       c->hidden_size, 0.2);
    dg_path_leave(&p, mark);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        mark = dg_path_enter(&p, "encoder.layers.%d", i);
        add_layer(&m->layers[i], &p, c);
        dg_path_leave(&p, mark);
    }
    m->final_norm = dg_layer_layer_norm(&p, "final_layer_norm", c->hidden_size);
    return p.err;
}

int dg_clip_create(ClipText **out, const ClipTextConfig *c, ParamSet *set,
                   const char *prefix)
{
    ClipText *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "clip text encoder");
    m->c = *c;
    m->layers = calloc((size_t)c->num_hidden_layers, sizeof *m->layers);
    if (m->layers == NULL)
        err = dg_fail(DG_ENOMEM, "clip text encoder");
    else
        err = add_params(m, set, prefix);
    if (err) {
        dg_clip_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_clip_destroy(ClipText *m)
{
    if (m == NULL)
        return;
    free(m->layers);
    free(m);
}

const ClipTextConfig *dg_clip_config(const ClipText *m)
{
    return &m->c;
}

typedef struct BlockArgs {
    const ClipText *m;
    int index;
} BlockArgs;

/* in = { x }, out = { x } */
static void block(Context *ctx, const void *args, Tensor *const *in,
                  Tensor **out)
{
    const BlockArgs *a = args;
    const Layer *l = &a->m->layers[a->index];
    const AttentionOpts opts = { .heads = (int)a->m->c.num_attention_heads,
                                 .causal = 1 };
    Tensor *x = in[0], *n, *h, *q, *k;

    dg_scope_push(ctx, "encoder.layers", a->index);
    n = dg_op_layer_norm(ctx, x, l->norm_1.w, l->norm_1.b, EPS);
    q = dg_linear(ctx, n, &l->q, DG_ACT_NONE);
    k = dg_linear(ctx, n, &l->k, DG_ACT_NONE);
    h = dg_linear(ctx, n, &l->v, DG_ACT_NONE);
    h = dg_op_attention(ctx, q, k, h, &opts);
    x = dg_op_add(ctx, x, dg_linear(ctx, h, &l->out, DG_ACT_NONE));
    n = dg_op_layer_norm(ctx, x, l->norm_2.w, l->norm_2.b, EPS);
    h = dg_linear(ctx, n, &l->fc1, DG_ACT_QUICK_GELU);
    out[0] = dg_op_add(ctx, x, dg_linear(ctx, h, &l->fc2, DG_ACT_NONE));
    dg_scope_pop(ctx);
}

/* First position of the largest id of each sample: never a search for the
 * end token's id, whose value old configurations give wrongly. */
static Tensor *pool(Context *ctx, Tensor *x, const int32_t *ids, int64_t B,
                    int64_t tokens)
{
    int32_t *at = dg_arena_take(&ctx->meta, (size_t)B * sizeof *at);

    if (at == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    for (int64_t b = 0; b < B; b++) {
        const int32_t *row = ids + b * tokens;

        at[b] = 0;
        for (int64_t i = 1; i < tokens; i++)
            if (row[i] > row[at[b]])
                at[b] = (int32_t)i;
    }
    return dg_op_pick_token(ctx, x, at);
}

Tensor *dg_clip_forward(const ClipText *m, Context *ctx, const int32_t *ids,
                        int64_t B, int64_t tokens, Tensor **pooled)
{
    BlockArgs args = { m, 0 };
    TapeBlock b = { .fn = block,
                    .args = &args,
                    .args_bytes = sizeof args,
                    .num_in = 1,
                    .num_out = 1 };
    Tensor *x;

    if (pooled != NULL)
        *pooled = NULL;
    if (ctx->err)
        return NULL;
    if (tokens < 1 || tokens > m->c.max_position_embeddings) {
        ctx->err =
            dg_fail(DG_EINVAL, "clip: %lld tokens, allowed 1 to %lld",
                    (long long)tokens, (long long)m->c.max_position_embeddings);
        return NULL;
    }
    x = dg_op_embed(ctx, ids, B, tokens, m->tokens);
    x = dg_op_add_positions(ctx, x, m->positions);
    for (args.index = 0; args.index < m->c.num_hidden_layers && !ctx->err;
         args.index++) {
        b.in[0] = x;
        dg_tape_block(ctx, &b, &x);
    }
    x = dg_op_layer_norm(ctx, x, m->final_norm.w, m->final_norm.b, EPS);
    if (pooled != NULL && x != NULL)
        *pooled = pool(ctx, x, ids, B, tokens);
    return x;
}
