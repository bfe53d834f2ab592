#ifndef DG_MODELS_CLIP_MODEL_H
#define DG_MODELS_CLIP_MODEL_H
/*
 * Both towers of CLIP and the projections into the space that they share:
 * CLIP, OpenCLIP, HPS v2, PickScore, DFN are this network. Parameter names are
 * those of transformers' CLIPModel.
 */
#include "models/clip_vision.h"

typedef struct ClipModelConfig {
    ClipTextConfig text;
    ClipVisionConfig vision;
    int64_t projection_dim;
    int vision_only; /* no text tower, nor the scale of its logits */
} ClipModelConfig;

typedef struct ClipModel ClipModel;

/** A public size by OpenCLIP's name: "ViT-L-14", "ViT-L-14-quickgelu"
 *  (OpenAI's), "ViT-H-14" (HPS v2.1, PickScore), "ViT-H-14-378-quickgelu"
 *  (DFN). DG_EINVAL, nothing recorded, for another. */
int dg_clip_model_named(ClipModelConfig *out, const char *name);

/** Whether all sizes are the same, of towers that are left out too. */
int dg_clip_model_same(const ClipModelConfig *a, const ClipModelConfig *b);

/**
 * Adds the network's parameters to set, names preceded by prefix. c is copied,
 * set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_clip_model_create(ClipModel **out, const ClipModelConfig *c,
                         ParamSet *set, const char *prefix);
void dg_clip_model_destroy(ClipModel *m);

const ClipModelConfig *dg_clip_model_config(const ClipModel *m);

/** [B, projection_dim], not normalised, of ids [B, tokens]; as
 *  dg_clip_forward(). Not of one that is vision_only, nor its scale. */
Tensor *dg_clip_model_text(const ClipModel *m, Context *ctx, const int32_t *ids,
                           int64_t B, int64_t tokens);

/** [B, projection_dim], not normalised; as dg_clip_vision_forward(). */
Tensor *dg_clip_model_image(const ClipModel *m, Context *ctx, Tensor *pixels);

/** exp(logit_scale) of the weights. */
double dg_clip_model_scale(const ClipModel *m);

/** x / max(|x|, 1e-12), in place, the length in double. x [num] f32. */
void dg_clip_normalize(float *x, int64_t num);

/** The inner product in double: of normalised vectors, their cosine. */
double dg_clip_dot(const float *a, const float *b, int64_t num);

#endif
