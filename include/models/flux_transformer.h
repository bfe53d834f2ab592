#ifndef DG_MODELS_FLUX_TRANSFORMER_H
#define DG_MODELS_FLUX_TRANSFORMER_H
/*
 * The FLUX.1 transformer: double blocks over text and image streams, single
 * blocks over their concatenation, adaLN modulation from time, guidance and
 * pooled text, QK RMS norm, 3-axis RoPE. Parameter names are those of the
 * diffusers safetensors files. D = heads * head size.
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

/* Fields as in the public config.json. */
typedef struct FluxConfig {
    int64_t in_channels; /* features of a packed token, in = out */
    int num_layers;      /* double blocks */
    int num_single_layers;
    int64_t attention_head_dim; /* sum of axes_dims_rope */
    int64_t num_attention_heads;
    int64_t joint_attention_dim;   /* width of the text states (T5) */
    int64_t pooled_projection_dim; /* width of the pooled text (CLIP) */
    int guidance_embeds;           /* 1: dev, 0: schnell */
    int64_t axes_dims_rope[3];     /* frame, row, column; all even */
    double rope_theta;             /* 0: 10000, that of FLUX.1 */
} FluxConfig;

typedef struct FluxTransformer FluxTransformer;

typedef struct FluxInputs {
    Tensor *hidden;  /* [B, N, in_channels], token = row * grid_w + column */
    Tensor *context; /* [B, T, joint_attention_dim] */
    Tensor *pooled;  /* [B, pooled_projection_dim] */
    const float *t;  /* [B] sigma in [0, 1], host memory */
    const float *guidance;  /* [B], read if guidance_embeds */
    int64_t grid_h, grid_w; /* packed units; N = grid_h * grid_w */
    int bf16_compat; /* 1: round t and guidance to bf16 before and after the
                        factor 1000, as bf16 training code does */
} FluxInputs;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "transformer."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_flux_create(FluxTransformer **out, const FluxConfig *c, ParamSet *set,
                   const char *prefix);
void dg_flux_destroy(FluxTransformer *m);

const FluxConfig *dg_flux_config(const FluxTransformer *m);

/**
 * Makes the position table of one grid and text length: before the first
 * dg_flux_forward() with these sizes, by one thread. Again: nothing happens.
 * Forward passes only read it and may run in several threads.
 * Errors: DG_EINVAL on sizes < 1 (text_tokens < 0), DG_ENOMEM.
 */
int dg_flux_prepare(FluxTransformer *m, int64_t grid_h, int64_t grid_w,
                    int64_t text_tokens);

/**
 * The velocity [B, N, in_channels]. Source: FLUX.1, FluxTransformer2DModel.
 * in is read only during the call, its tensors until backward.
 * NULL with the context's error set: DG_EINVAL when the grid was not
 * prepared or guidance is missing, or what an op reports.
 */
Tensor *dg_flux_forward(const FluxTransformer *m, Context *ctx,
                        const FluxInputs *in);

/**
 * RoPE of 3 axes: cosines, sines [tokens, d/2] f32 (computed in double) for
 * text_tokens text rows at position 0, then the grid's tokens at
 * (0, row, column). Axis a of width A turns pair k by pos / theta^(2k/A).
 * Reads axes_dims_rope and rope_theta of c.
 */
void dg_flux_rope(float *cosines, float *sines, const FluxConfig *c,
                  int64_t grid_h, int64_t grid_w, int64_t text_tokens);

#endif
