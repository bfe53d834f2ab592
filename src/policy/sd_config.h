#ifndef DG_SRC_POLICY_SD_CONFIG_H
#define DG_SRC_POLICY_SD_CONFIG_H
/*
 * Sizes of a Stable Diffusion's networks: what the config.json files of a
 * folder say, by this rank alone, or the configuration's.
 */
#include "config/config.h"
#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"

#include <stdio.h>

typedef struct SdConfig {
    UnetConfig unet;
    VaeConfig vae; /* of a folder */
    ClipTextConfig clip;
} SdConfig;

/**
 * Reads folder/{unet,vae,text_encoder}/config.json and, where there is one,
 * scheduler/scheduler_config.json.
 * Errors: DG_EIO, DG_EFORMAT naming file and key: not there, or of another
 * network than Stable Diffusion 1.x has.
 */
int dg_sd_config_read(SdConfig *out, const char *folder);

/** Stable Diffusion 1.4, where there is no folder to read. */
SdConfig dg_sd_config_public(void);

/**
 * The same from c->unet and c->clip, checked by dg_config_check(), but for
 * clip.vocab_size, which is left 0.
 * Errors: DG_EINVAL naming the key: lists of different lengths, other block
 * types than Stable Diffusion 1.x has.
 */
int dg_sd_config_sizes(SdConfig *out, const Config *c);

/** Writes c->unet, checked by dg_sd_config_sizes(), as the config.json of
 *  diffusers' UNet2DConditionModel. */
void dg_sd_describe(const Config *c, FILE *out);

#endif
