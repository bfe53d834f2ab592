#ifndef DG_NN_SPATIAL_TRANSFORMER_H
#define DG_NN_SPATIAL_TRANSFORMER_H
/*
 * The transformer of the U-Net on the pixels of a map: self-attention,
 * attention to a text and a gated feed-forward layer between two 1 x 1
 * convolutions. Parameter names are those of diffusers' Transformer2DModel
 * with one BasicTransformerBlock.
 */
#include "nn/layer.h"

typedef struct SpatialTransformerOpts {
    int64_t width, context; /* channels; width of the text states */
    int64_t heads, groups;
} SpatialTransformerOpts;

typedef struct CrossAttention {
    Linear q, k, v, out;
} CrossAttention;

typedef struct SpatialTransformer {
    SpatialTransformerOpts o;
    Norm norm, norm1, norm2, norm3;
    Linear proj_in, proj_out, ff_in, ff_out;
    CrossAttention attn1, attn2;
} SpatialTransformer;

/** Under the path as it stands. proj_out starts at zero: the identity. */
void dg_layer_spatial_transformer(SpatialTransformer *t, LayerPath *p,
                                  const SpatialTransformerOpts *o);

/**
 * x + proj_out(blocks(proj_in(GN(x)))).
 * x        [B, H, W, width]
 * context  [B, S, o.context]
 * A tape block: inner values are given back, or made again at backward.
 */
Tensor *dg_spatial_transformer(Context *ctx, const SpatialTransformer *t,
                               Tensor *x, Tensor *context);

#endif
