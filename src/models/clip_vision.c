#include "models/clip_vision.h"

#include "base/error.h"
#include "clip_encoder.h"
#include "patches.h"

#include <stdlib.h>

struct ClipVision {
    ClipVisionConfig c;
    Patches patches;
    Norm pre_norm, post_norm;
    ClipEncoder encoder;
};

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
    m->patches.class_token = dg_layer_tensor(
        &p, "class_embedding", DG_INIT_NORMAL_FAN, 1, &c->hidden_size);
    m->patches.w = dg_layer_tensor(&p, "patch_embedding.weight",
                                   DG_INIT_NORMAL_FAN, 4, patch);
    m->patches.positions = dg_layer_table(
        &p, "position_embedding",
        dg_patches_tokens(c->image_size, c->patch_size), c->hidden_size, 0.2);
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

Tensor *dg_clip_vision_forward(const ClipVision *m, Context *ctx,
                               Tensor *pixels)
{
    Tensor *x;

    if (!dg_patches_check(ctx, pixels, m->c.image_size, "clip vision"))
        return NULL;
    dg_scope_push(ctx, "vision_model", -1);
    x = dg_patches(ctx, &m->patches, pixels);
    x = dg_op_layer_norm(ctx, x, m->pre_norm.w, m->pre_norm.b, DG_CLIP_EPS);
    x = dg_clip_encoder_run(&m->encoder, ctx, x);
    x = dg_op_pick_token(ctx, x, dg_patches_first(ctx, pixels->dims[0]));
    x = dg_op_layer_norm(ctx, x, m->post_norm.w, m->post_norm.b, DG_CLIP_EPS);
    dg_scope_pop(ctx);
    return x;
}
