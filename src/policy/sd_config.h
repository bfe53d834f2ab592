#ifndef DG_SRC_POLICY_SD_CONFIG_H
#define DG_SRC_POLICY_SD_CONFIG_H
/*
 * What the config.json files of a Stable Diffusion 1.x folder say of its
 * networks. By this rank alone.
 */
#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"

typedef struct SdConfig {
    UnetConfig unet;
    VaeConfig vae;
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

#endif
