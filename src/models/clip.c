#include "models/clip.h"

#include "base/error.h"
#include "clip_encoder.h"
#include "tensor/ops.h"

#include <stdlib.h>

struct ClipText {
    ClipTextConfig c;
    const Tensor *tokens, *positions;
    ClipEncoder encoder;
    Norm final_norm;
};

static ClipEncoder encoder_of(const ClipTextConfig *c)
{
    return (ClipEncoder) { .width = c->hidden_size,
                           .inner = c->intermediate_size,
                           .heads = c->num_attention_heads,
                           .num_layers = c->num_hidden_layers,
                           .causal = 1,
                           .act = dg_clip_act(c->act) };
}

static int check_config(const ClipTextConfig *c)
{
    const ClipEncoder encoder = encoder_of(c);

    if (c->vocab_size < 1 || c->max_position_embeddings < 1)
        return dg_fail(DG_EINVAL, "clip config: sizes must be >= 1");
    return dg_clip_encoder_check(&encoder, "clip config");
}

static int add_params(ClipText *m, ParamSet *set, const char *prefix)
{
    const ClipTextConfig *c = &m->c;
    LayerPath p;
    size_t mark;
    int err;

    m->encoder = encoder_of(c);
    dg_path_init(&p, set, prefix);
    dg_path_enter(&p, "text_model");
    mark = dg_path_enter(&p, "embeddings");
    m->tokens = dg_layer_table(&p, "token_embedding", c->vocab_size,
                               c->hidden_size, 0.5);
    m->positions =
        dg_layer_table(&p, "position_embedding", c->max_position_embeddings,
                       c->hidden_size, 0.2);
    dg_path_leave(&p, mark);
    err = dg_clip_encoder_add(&m->encoder, &p);
    m->final_norm = dg_layer_layer_norm(&p, "final_layer_norm", c->hidden_size);
    return err ? err : p.err;
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
    dg_clip_encoder_fini(&m->encoder);
    free(m);
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
    x = dg_clip_encoder_run(&m->encoder, ctx, x);
    x = dg_op_layer_norm(ctx, x, m->final_norm.w, m->final_norm.b, DG_CLIP_EPS);
    if (pooled != NULL && x != NULL)
        *pooled = pool(ctx, x, ids, B, tokens);
    return x;
}
