#ifndef DG_SRC_MODELS_CLIP_ENCODER_H
#define DG_SRC_MODELS_CLIP_ENCODER_H
/* The pre-norm transformer that CLIP's text and vision towers and other vision
 * transformers share; not public. */
#include "models/clip.h"
#include "nn/layer.h"

typedef struct ClipLayer {
    Norm norm_1, norm_2;
    Linear q, k, v, out, fc1, fc2;
} ClipLayer;

/* What a layer's parameters are called. */
typedef struct ClipNames {
    const char *layers, *attn, *q, *k, *v, *out, *norm_1, *norm_2;
} ClipNames;

typedef struct ClipEncoder {
    int64_t width, inner, heads;
    int num_layers;
    int causal;
    Act act;
    float eps;              /* of its norms; 0: DG_CLIP_EPS */
    const ClipNames *names; /* NULL: as in transformers' CLIP */
    ClipLayer *layers;
} ClipEncoder;

#define DG_CLIP_EPS 1e-5f

Act dg_clip_act(ClipAct act);

/** of: what the configuration is called in a message. Errors: DG_EINVAL. */
int dg_clip_encoder_check(const ClipEncoder *e, const char *of);

/** Adds the layers under the path, of the sizes that e has.
 *  Errors: DG_EINVAL, DG_ENOMEM. */
int dg_clip_encoder_add(ClipEncoder *e, LayerPath *p);
void dg_clip_encoder_fini(ClipEncoder *e);

/** x [B, S, width] through all layers, each a tape block. */
Tensor *dg_clip_encoder_run(const ClipEncoder *e, Context *ctx, Tensor *x);

#endif
