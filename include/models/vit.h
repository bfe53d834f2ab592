#ifndef DG_MODELS_VIT_H
#define DG_MODELS_VIT_H
/*
 * A vision transformer with a class token, as BLIP has it: no norm in front,
 * the norm behind on all tokens, epsilons of 1e-6, erf-GELU. Parameter names
 * are timm's, but that attn.q, attn.k and attn.v are one attn.qkv in the files
 * (weights/remap.h).
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

typedef struct VitConfig {
    int64_t image_size, patch_size;
    int64_t hidden_size, intermediate_size;
    int num_hidden_layers;
    int64_t num_attention_heads;
} VitConfig;

typedef struct Vit Vit;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "blip.visual_encoder."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_vit_create(Vit **out, const VitConfig *c, ParamSet *set,
                  const char *prefix);
void dg_vit_destroy(Vit *m);

/**
 * All tokens after the last norm, [B, tokens, hidden_size], the class token
 * first, of normalised pictures [B, image_size, image_size, 3], channels-last:
 * tokens = 1 + (image_size / patch_size)^2, and pixels beyond the last whole
 * patch are not seen.
 * NULL with the context's error set: DG_EINVAL on another size, or what an op
 * reports.
 */
Tensor *dg_vit_forward(const Vit *m, Context *ctx, Tensor *pixels);

#endif
