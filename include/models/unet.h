#ifndef DG_MODELS_UNET_H
#define DG_MODELS_UNET_H
/*
 * The U-Net of Stable Diffusion 1.x: residual convolution blocks on a pyramid
 * of maps, with attention among pixels and to a text, skip connections from
 * the way down to the way up. Parameter names and shapes are those of the
 * diffusers safetensors files (UNet2DConditionModel).
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

enum { DG_UNET_MAX_LEVELS = 8 };

/* Fields as in the public config.json. */
typedef struct UnetConfig {
    int64_t in_channels, out_channels;
    int num_levels; /* entries of the lists below */
    int64_t block_out_channels[DG_UNET_MAX_LEVELS];
    /* down_block_types[i] is CrossAttnDownBlock2D; up_block_types[i] is
     * CrossAttnUpBlock2D, i counted from the lowest level */
    int down_attention[DG_UNET_MAX_LEVELS];
    int up_attention[DG_UNET_MAX_LEVELS];
    int layers_per_block;
    int64_t attention_head_dim; /* the number of heads, whatever its name */
    int64_t cross_attention_dim;
    int64_t norm_num_groups;
    double norm_eps; /* 0: 1e-5, that of Stable Diffusion */
} UnetConfig;

/** Stable Diffusion 1.x: 859 520 964 values in 686 parameters. */
UnetConfig dg_unet_sd1(void);

typedef struct Unet Unet;

typedef struct UnetInputs {
    Tensor *sample;  /* [B, H, W, in_channels], channels-last: see
                        dg_op_channels_last() */
    Tensor *context; /* [B, S, cross_attention_dim] */
    const float *t;  /* [B] time in 0..999, host memory */
} UnetInputs;

/**
 * Adds the network's parameters to set, names preceded by prefix ("" or
 * "unet."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_unet_create(Unet **out, const UnetConfig *c, ParamSet *set,
                   const char *prefix);
void dg_unet_destroy(Unet *m);

/**
 * The prediction [B, H, W, out_channels]. Source: UNet2DConditionModel as
 * Stable Diffusion 1.4 uses it (freq_shift 0, flip_sin_to_cos, one
 * transformer block per attention, projections as 1 x 1 convolutions).
 * Each residual block and each transformer is a tape block. in is read only
 * during the call, its tensors until backward. May run in several threads.
 * NULL with the context's error set: DG_EINVAL when the map's size does not
 * fit, or what an op reports.
 */
Tensor *dg_unet_forward(const Unet *m, Context *ctx, const UnetInputs *in);

#endif
