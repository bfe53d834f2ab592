#ifndef DG_MODELS_CLIP_VISION_H
#define DG_MODELS_CLIP_VISION_H
/*
 * The CLIP vision tower: a vision transformer with a class token. Parameter
 * names are those of the transformers safetensors files ("pre_layrnorm" is
 * spelt so).
 */
#include "models/clip.h"

/* Fields as in the public config.json. */
typedef struct ClipVisionConfig {
    int64_t image_size, patch_size;
    int64_t hidden_size, intermediate_size;
    int num_hidden_layers;
    int64_t num_attention_heads;
    ClipAct act;
} ClipVisionConfig;

typedef struct ClipVision ClipVision;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "reward."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_clip_vision_create(ClipVision **out, const ClipVisionConfig *c,
                          ParamSet *set, const char *prefix);
void dg_clip_vision_destroy(ClipVision *m);

/**
 * The class token after the last norm, [B, hidden_size], of normalised
 * pictures [B, image_size, image_size, 3], channels-last; pixels beyond the
 * last whole patch are not seen. Without a tape one layer's values are in memory
 * at a time.
 * NULL with the context's error set: DG_EINVAL on another size, or what an op
 * reports.
 */
Tensor *dg_clip_vision_forward(const ClipVision *m, Context *ctx,
                               Tensor *pixels);

#endif
