#ifndef DG_MODELS_CLIP_H
#define DG_MODELS_CLIP_H
/*
 * The CLIP text encoder (causal). Parameter names are those of the
 * transformers safetensors files.
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

/* hidden_act of the public config.json: OpenAI's networks and DFN have the
 * first, LAION's the second. The shapes are the same, the numbers are not. */
typedef enum ClipAct { DG_CLIP_QUICK_GELU, DG_CLIP_GELU } ClipAct;

/* Fields as in the public config.json. */
typedef struct ClipTextConfig {
    int64_t vocab_size, hidden_size, intermediate_size;
    int num_hidden_layers;
    int64_t num_attention_heads;
    int64_t max_position_embeddings;
    ClipAct act;
} ClipTextConfig;

typedef struct ClipText ClipText;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "text_encoder."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_clip_create(ClipText **out, const ClipTextConfig *c, ParamSet *set,
                   const char *prefix);
void dg_clip_destroy(ClipText *m);

/**
 * Hidden state after the final norm, [B, tokens, hidden_size], of ids
 * [B, tokens] (host memory, alive until backward). All rows, padding too.
 * pooled  out, NULL: not wanted; [B, hidden_size], the row of the first
 *         position of the largest id (the end token; pads are end tokens too)
 * NULL with the context's error set: DG_EINVAL when tokens exceed the
 * position table or an id is out of range, or what an op reports.
 */
Tensor *dg_clip_forward(const ClipText *m, Context *ctx, const int32_t *ids,
                        int64_t B, int64_t tokens, Tensor **pooled);

#endif
