#include "models/clip_vision.h"

#include "base/error.h"
#include "clip_encoder.h"
#include "tensor/ops.h"

#include <stdlib.h>
#include <string.h>

struct ClipVision {
    ClipVisionConfig c;
    const Tensor *class_token; /* [hidden_size] */
    const Tensor *patches;     /* [hidden_size, 3, patch, patch] */
    const Tensor *positions;
    Norm pre_norm, post_norm;
    ClipEncoder encoder;
};

int64_t dg_clip_vision_tokens(const ClipVisionConfig *c)
{
    const int64_t side = c->image_size / c->patch_size;

    return 1 + side * side;
}

static ClipEncoder encoder_of(const ClipVisionConfig *c)
{
    return (ClipEncoder) { .width = c->hidden_size,
                           .inner = c->intermediate_size,
                           .heads = c->num_attention_heads,
                           .num_layers = c->num_hidden_layers,
                           .act = dg_clip_act(c->act) };
}

static int check_config(const ClipVisionConfig *c)
{
    const ClipEncoder encoder = encoder_of(c);

    if (c->patch_size < 1)
        return dg_fail(DG_EINVAL, "clip vision config: sizes must be >= 1");
    if (c->image_size < c->patch_size)
        return dg_fail(DG_EINVAL,
                       "clip vision config: image_size = %lld: must be at "
                       "least patch_size = %lld",
                       (long long)c->image_size, (long long)c->patch_size);
    return dg_clip_encoder_check(&encoder, "clip vision config");
}

/* Parameters that are no layer's weight or bias. */
static const Tensor *add_plain(LayerPath *p, const char *name, ParamInit init,
                               int num_dims, const int64_t *dims)
{
    char key[2 * DG_PARAM_NAME];
    const Tensor *t;

    if (p->err)
        return NULL;
    memcpy(key, p->text, strlen(p->text) + 1);
    strncat(key, name, DG_PARAM_NAME - 1);
    t = dg_params_add(p->set, key, init, num_dims, dims);
    if (t == NULL)
        p->err = dg_last_error()->code;
    return t;
}

static int add_params(ClipVision *m, ParamSet *set, const char *prefix)
{
    const ClipVisionConfig *c = &m->c;
    const int64_t patch[4] = { c->hidden_size, 3, c->patch_size,
                               c->patch_size };
    LayerPath p;
    size_t mark;
    int err;

    m->encoder = encoder_of(c);
    dg_path_init(&p, set, prefix);
    dg_path_enter(&p, "vision_model");
    mark = dg_path_enter(&p, "embeddings");
    m->class_token = add_plain(&p, "class_embedding", DG_INIT_NORMAL_FAN, 1,
                               &c->hidden_size);
    m->patches =
        add_plain(&p, "patch_embedding.weight", DG_INIT_NORMAL_FAN, 4, patch);
    m->positions =
        dg_layer_table(&p, "position_embedding", dg_clip_vision_tokens(c),
                       c->hidden_size, 0.2);
    dg_path_leave(&p, mark);
    m->pre_norm = dg_layer_layer_norm(&p, "pre_layrnorm", c->hidden_size);
    err = dg_clip_encoder_add(&m->encoder, &p);
    m->post_norm = dg_layer_layer_norm(&p, "post_layernorm", c->hidden_size);
    return err ? err : p.err;
}

int dg_clip_vision_create(ClipVision **out, const ClipVisionConfig *c,
                          ParamSet *set, const char *prefix)
{
    ClipVision *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "clip vision tower");
    m->c = *c;
    err = add_params(m, set, prefix);
    if (err) {
        dg_clip_vision_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_clip_vision_destroy(ClipVision *m)
{
    if (m == NULL)
        return;
    dg_clip_encoder_fini(&m->encoder);
    free(m);
}

/* B zeros in host memory, alive as long as the step. */
static int32_t *zeros(Context *ctx, int64_t B)
{
    int32_t *z = dg_arena_take(&ctx->meta, (size_t)B * sizeof *z);

    if (z == NULL)
        ctx->err = DG_ENOMEM;
    else
        memset(z, 0, (size_t)B * sizeof *z);
    return z;
}

/* The class token for every sample, [B, 1, D]: row 0 of a table of one. */
static Tensor *class_tokens(const ClipVision *m, Context *ctx,
                            const int32_t *none, int64_t B)
{
    Tensor *table = dg_arena_take(&ctx->meta, sizeof *table);

    if (table == NULL) {
        ctx->err = DG_ENOMEM;
        return NULL;
    }
    *table = *m->class_token;
    table->num_dims = 2;
    table->dims[0] = 1;
    table->dims[1] = m->c.hidden_size;
    return dg_op_embed(ctx, none, B, 1, table);
}

static Tensor *embed(const ClipVision *m, Context *ctx, Tensor *pixels,
                     const int32_t *none)
{
    const int64_t B = pixels->dims[0], patch = m->c.patch_size;
    const int64_t dims[3] = { B, dg_clip_vision_tokens(&m->c) - 1,
                              m->c.hidden_size };
    const ConvOpts stride = { .stride = patch };
    Tensor *x = dg_op_conv2d(ctx, pixels, m->patches, NULL, &stride);

    if (x != NULL)
        x = dg_op_reshape(ctx, x, 3, dims);
    x = dg_op_concat_tokens(ctx, class_tokens(m, ctx, none, B), x);
    x = dg_op_add_positions(ctx, x, m->positions);
    return dg_op_layer_norm(ctx, x, m->pre_norm.w, m->pre_norm.b, DG_CLIP_EPS);
}

Tensor *dg_clip_vision_forward(const ClipVision *m, Context *ctx,
                               Tensor *pixels)
{
    const int32_t *none;
    Tensor *x;

    if (ctx->err || pixels == NULL)
        return NULL;
    if (pixels->num_dims != 4 || pixels->dims[1] != m->c.image_size ||
        pixels->dims[2] != m->c.image_size || pixels->dims[3] != 3) {
        ctx->err =
            dg_fail(DG_EINVAL, "clip vision: pictures must be %lld x %lld x 3",
                    (long long)m->c.image_size, (long long)m->c.image_size);
        return NULL;
    }
    none = zeros(ctx, pixels->dims[0]);
    if (none == NULL)
        return NULL;
    dg_scope_push(ctx, "vision_model", -1);
    x = embed(m, ctx, pixels, none);
    x = dg_clip_encoder_run(&m->encoder, ctx, x);
    x = dg_op_pick_token(ctx, x, none);
    x = dg_op_layer_norm(ctx, x, m->post_norm.w, m->post_norm.b, DG_CLIP_EPS);
    dg_scope_pop(ctx);
    return x;
}
