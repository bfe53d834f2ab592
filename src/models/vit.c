#include "models/vit.h"

#include "base/error.h"
#include "clip_encoder.h"
#include "patches.h"

#include <stdlib.h>

#define EPS 1e-6f

struct Vit {
    VitConfig c;
    Patches patches;
    ClipEncoder encoder;
    Norm norm;
};

static const ClipNames names = { "blocks", "attn", "q",     "k",
                                 "v",      "proj", "norm1", "norm2" };

static ClipEncoder encoder_of(const VitConfig *c)
{
    return (ClipEncoder) { .width = c->hidden_size,
                           .inner = c->intermediate_size,
                           .heads = c->num_attention_heads,
                           .num_layers = c->num_hidden_layers,
                           .act = DG_ACT_GELU_ERF,
                           .eps = EPS,
                           .names = &names };
}

static int check_config(const VitConfig *c)
{
    const ClipEncoder encoder = encoder_of(c);

    if (c->patch_size < 1 || c->image_size < c->patch_size)
        return dg_fail(DG_EINVAL,
                       "vision config: image_size = %lld: must be at least "
                       "patch_size = %lld, which must be >= 1",
                       (long long)c->image_size, (long long)c->patch_size);
    return dg_clip_encoder_check(&encoder, "vision config");
}

static int add_params(Vit *m, ParamSet *set, const char *prefix)
{
    const int64_t D = m->c.hidden_size, patch = m->c.patch_size;
    const int64_t one[3] = { 1, 1, D };
    const int64_t all[3] = { 1, dg_patches_tokens(m->c.image_size, patch), D };
    const int64_t kernel[4] = { D, 3, patch, patch };
    LayerPath p;
    int err;

    m->encoder = encoder_of(&m->c);
    dg_path_init(&p, set, prefix);
    m->patches.class_token =
        dg_layer_tensor(&p, "cls_token", DG_INIT_NORMAL_FAN, 3, one);
    m->patches.positions =
        dg_layer_tensor(&p, "pos_embed", DG_INIT_NORMAL_FAN, 3, all);
    m->patches.w = dg_layer_tensor(&p, "patch_embed.proj.weight",
                                   DG_INIT_NORMAL_FAN, 4, kernel);
    m->patches.b =
        dg_layer_tensor(&p, "patch_embed.proj.bias", DG_INIT_ZERO, 1, &D);
    err = dg_clip_encoder_add(&m->encoder, &p);
    m->norm = dg_layer_layer_norm(&p, "norm", D);
    return err ? err : p.err;
}

int dg_vit_create(Vit **out, const VitConfig *c, ParamSet *set,
                  const char *prefix)
{
    Vit *m;
    int err = check_config(c);

    if (err)
        return err;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "vision transformer");
    m->c = *c;
    err = add_params(m, set, prefix);
    if (err) {
        dg_vit_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_vit_destroy(Vit *m)
{
    if (m == NULL)
        return;
    dg_clip_encoder_fini(&m->encoder);
    free(m);
}

Tensor *dg_vit_forward(const Vit *m, Context *ctx, Tensor *pixels)
{
    Tensor *x;

    if (!dg_patches_check(ctx, pixels, m->c.image_size, "vision transformer"))
        return NULL;
    dg_scope_push(ctx, "visual_encoder", -1);
    x = dg_patches(ctx, &m->patches, pixels);
    x = dg_clip_encoder_run(&m->encoder, ctx, x);
    x = dg_op_layer_norm(ctx, x, m->norm.w, m->norm.b, EPS);
    dg_scope_pop(ctx);
    return x;
}
