#ifndef DG_SRC_POLICY_SD_CONFIG_H
#define DG_SRC_POLICY_SD_CONFIG_H
/*
 * What the config.json files of a Stable Diffusion 1.x folder say of its
 * networks. By this rank alone.
 */
#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"

enum { DG_SD_PATH = 1024 };

typedef struct SdConfig {
    UnetConfig unet;
    VaeConfig vae;
    ClipTextConfig clip;
} SdConfig;

/** out = folder/component, or folder/component/file. DG_EINVAL: too long. */
int dg_sd_path(char out[DG_SD_PATH], const char *folder, const char *component,
               const char *file);

/**
 * Reads folder/{unet,vae,text_encoder}/config.json and, where there is one,
 * scheduler/scheduler_config.json.
 * Errors: DG_EIO, DG_EFORMAT naming file and key: not there, or of another
 * network than Stable Diffusion 1.x has.
 */
int dg_sd_config_read(SdConfig *out, const char *folder);

#endif
