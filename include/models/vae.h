#ifndef DG_MODELS_VAE_H
#define DG_MODELS_VAE_H
/*
 * The convolutional auto-encoder between pictures and latents: that of Stable
 * Diffusion (4 channels, with quant convolutions) and of FLUX.1 (16 channels,
 * without). Parameter names are those of the diffusers safetensors files
 * (AutoencoderKL). A latent's side is 1/8 of the picture's with four levels:
 * in general 1/2^(num_levels - 1).
 */
#include "nn/param.h"
#include "tensor/context.h"

#include <stdint.h>

enum { DG_VAE_MAX_LEVELS = 8 };

/* Which half is made. */
typedef enum VaeParts {
    DG_VAE_ENCODER = 1,
    DG_VAE_DECODER = 2,
    DG_VAE_BOTH = 3
} VaeParts;

/* Fields as in the public config.json. */
typedef struct VaeConfig {
    int64_t in_channels, out_channels; /* of pictures */
    int num_levels;                    /* entries of block_out_channels */
    int64_t block_out_channels[DG_VAE_MAX_LEVELS];
    int layers_per_block; /* the decoder has one more */
    int64_t latent_channels;
    int64_t norm_num_groups;
    int use_quant_conv, use_post_quant_conv;
    double scaling_factor, shift_factor;
} VaeConfig;

/** Stable Diffusion 1.x: 83 653 863 values in 248 parameters. */
VaeConfig dg_vae_sd1(void);
/** FLUX.1: 83 819 683 values in 244 parameters. */
VaeConfig dg_vae_flux(void);

typedef struct Vae Vae;

/**
 * Adds the parameters of one half or both to set, names preceded by prefix (""
 * or "vae."). c is copied, set borrowed. Not collective.
 * Errors: DG_EINVAL on a bad config or name, DG_ENOMEM.
 */
int dg_vae_create(Vae **out, const VaeConfig *c, VaeParts parts, ParamSet *set,
                  const char *prefix);
void dg_vae_destroy(Vae *m);

const VaeConfig *dg_vae_config(const Vae *m);

/**
 * image [B, H, W, in_channels] in [-1, 1], channels-last -> [B, h, w,
 * 2 latent_channels], h = floor(H / 2^(num_levels - 1)) >= 1: mean, then logarithm of
 * the variance, which the reference limits to -30..20 before use. Neither
 * scaled nor shifted: a model's latent is dg_vae_to_model() of a draw.
 * NULL with the context's error set: DG_EINVAL on a size that does not fit or
 * a half that was not made, or what an op reports.
 */
Tensor *dg_vae_encode(const Vae *m, Context *ctx, Tensor *image);

/**
 * z [B, h, w, latent_channels], of dg_vae_from_model() -> pictures
 * [B, H, W, out_channels], about -1..1. Errors as above. Without a tape only
 * the level at work keeps its maps.
 */
Tensor *dg_vae_decode(const Vae *m, Context *ctx, Tensor *z);

/** A model's latent of the auto-encoder's, in place:
 *  (z - shift_factor) scaling_factor. */
void dg_vae_to_model(const VaeConfig *c, float *z, int64_t count);
/** And back: z / scaling_factor + shift_factor. */
void dg_vae_from_model(const VaeConfig *c, float *z, int64_t count);

#endif
