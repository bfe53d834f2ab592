#ifndef DG_SRC_REWARD_CLIP_CONFIG_H
#define DG_SRC_REWARD_CLIP_CONFIG_H
/* What is known of a CLIP beside its weights: sizes, and how its pictures are
 * made. By this rank alone. */
#include "models/clip_model.h"
#include "reward/picture.h"

typedef struct ClipFolder {
    ClipModelConfig model;
    int squash;       /* pictures are squeezed to a square, not cut to one */
    int transformers; /* it is a folder of theirs */
    PictureColours colours;
} ClipFolder;

/**
 * The folder's open_clip_config.json, else its config.json of transformers
 * with the preprocessor_config.json beside it, if there is one.
 * *found = 0, and out untouched: neither is there.
 * Errors: DG_EFORMAT naming file and key; DG_EIO; DG_EINVAL a path too long.
 */
int dg_clip_config_read(ClipFolder *out, int *found, const char *folder);

#endif
