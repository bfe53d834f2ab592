#include "models/clip_model.h"

#include "base/error.h"
#include "nn/layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ClipModel {
    ClipModelConfig c;
    ClipText *text;
    ClipVision *vision;
    Linear text_projection, visual_projection;
    const Tensor *logit_scale; /* [1] */
};

/* --- public sizes ------------------------------------------------------- */

static ClipModelConfig vit_l(ClipAct act)
{
    return (ClipModelConfig) {
        .text = { 49408, 768, 3072, 12, 12, 77, act },
        .vision = { 224, 14, 1024, 4096, 24, 16, act },
        .projection_dim = 768,
    };
}

static ClipModelConfig vit_h(int64_t image_size, ClipAct act)
{
    return (ClipModelConfig) {
        .text = { 49408, 1024, 4096, 24, 16, 77, act },
        .vision = { image_size, 14, 1280, 5120, 32, 16, act },
        .projection_dim = 1024,
    };
}

int dg_clip_model_named(ClipModelConfig *out, const char *name)
{
    if (strcmp(name, "ViT-L-14") == 0)
        *out = vit_l(DG_CLIP_GELU);
    else if (strcmp(name, "ViT-L-14-quickgelu") == 0)
        *out = vit_l(DG_CLIP_QUICK_GELU);
    else if (strcmp(name, "ViT-H-14") == 0)
        *out = vit_h(224, DG_CLIP_GELU);
    else if (strcmp(name, "ViT-H-14-378-quickgelu") == 0)
        *out = vit_h(378, DG_CLIP_QUICK_GELU);
    else
        return DG_EINVAL;
    return DG_OK;
}

static int same_text(const ClipTextConfig *a, const ClipTextConfig *b)
{
    return a->vocab_size == b->vocab_size && a->hidden_size == b->hidden_size &&
           a->intermediate_size == b->intermediate_size &&
           a->num_hidden_layers == b->num_hidden_layers &&
           a->num_attention_heads == b->num_attention_heads &&
           a->max_position_embeddings == b->max_position_embeddings &&
           a->act == b->act;
}

static int same_vision(const ClipVisionConfig *a, const ClipVisionConfig *b)
{
    return a->image_size == b->image_size && a->patch_size == b->patch_size &&
           a->hidden_size == b->hidden_size &&
           a->intermediate_size == b->intermediate_size &&
           a->num_hidden_layers == b->num_hidden_layers &&
           a->num_attention_heads == b->num_attention_heads && a->act == b->act;
}

int dg_clip_model_same(const ClipModelConfig *a, const ClipModelConfig *b)
{
    return a->projection_dim == b->projection_dim &&
           same_text(&a->text, &b->text) && same_vision(&a->vision, &b->vision);
}

/* --- creation ----------------------------------------------------------- */

static int add_projections(ClipModel *m, ParamSet *set, const char *prefix)
{
    const int64_t one = 1, e = m->c.projection_dim;
    char key[2 * DG_PARAM_NAME];
    LayerPath p;

    dg_path_init(&p, set, prefix);
    if (!m->c.vision_only)
        m->text_projection =
            dg_layer_linear(&p, "text_projection", m->c.text.hidden_size, e, 0,
                            DG_INIT_NORMAL_FAN);
    m->visual_projection =
        dg_layer_linear(&p, "visual_projection", m->c.vision.hidden_size, e, 0,
                        DG_INIT_NORMAL_FAN);
    if (p.err || m->c.vision_only)
        return p.err;
    memcpy(key, p.text, strlen(p.text) + 1);
    strcat(key, "logit_scale");
    m->logit_scale = dg_params_add(set, key, DG_INIT_ONE, 1, &one);
    return m->logit_scale != NULL ? DG_OK : dg_last_error()->code;
}

int dg_clip_model_create(ClipModel **out, const ClipModelConfig *c,
                         ParamSet *set, const char *prefix)
{
    ClipModel *m;
    int err;

    if (c->projection_dim < 1)
        return dg_fail(DG_EINVAL,
                       "clip config: projection_dim = %lld: must be "
                       ">= 1",
                       (long long)c->projection_dim);
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return dg_fail(DG_ENOMEM, "clip");
    m->c = *c;
    err = c->vision_only ? DG_OK
                         : dg_clip_create(&m->text, &c->text, set, prefix);
    if (!err)
        err = dg_clip_vision_create(&m->vision, &c->vision, set, prefix);
    if (!err)
        err = add_projections(m, set, prefix);
    if (err) {
        dg_clip_model_destroy(m);
        return err;
    }
    *out = m;
    return DG_OK;
}

void dg_clip_model_destroy(ClipModel *m)
{
    if (m == NULL)
        return;
    dg_clip_destroy(m->text);
    dg_clip_vision_destroy(m->vision);
    free(m);
}

const ClipModelConfig *dg_clip_model_config(const ClipModel *m)
{
    return &m->c;
}

/* --- use ---------------------------------------------------------------- */

Tensor *dg_clip_model_text(const ClipModel *m, Context *ctx, const int32_t *ids,
                           int64_t B, int64_t tokens)
{
    Tensor *pooled;

    if (dg_clip_forward(m->text, ctx, ids, B, tokens, &pooled) == NULL)
        return NULL;
    return dg_linear(ctx, pooled, &m->text_projection, DG_ACT_NONE);
}

Tensor *dg_clip_model_image(const ClipModel *m, Context *ctx, Tensor *pixels)
{
    Tensor *x = dg_clip_vision_forward(m->vision, ctx, pixels);

    return dg_linear(ctx, x, &m->visual_projection, DG_ACT_NONE);
}

double dg_clip_model_scale(const ClipModel *m)
{
    return exp((double)dg_tensor_f32(m->logit_scale)[0]);
}

double dg_clip_dot(const float *a, const float *b, int64_t num)
{
    double sum = 0;

    for (int64_t i = 0; i < num; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

void dg_clip_normalize(float *x, int64_t num)
{
    const double length = sqrt(dg_clip_dot(x, x, num));
    const double divisor = length > 1e-12 ? length : 1e-12;

    for (int64_t i = 0; i < num; i++)
        x[i] = (float)((double)x[i] / divisor);
}
