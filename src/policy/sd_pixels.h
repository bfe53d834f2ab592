#ifndef DG_SRC_POLICY_SD_PIXELS_H
#define DG_SRC_POLICY_SD_PIXELS_H
/*
 * The codec of a small Stable Diffusion, which has no auto-encoder: a pixel of
 * the latent map [h, w, 3 cell^2] holds the cell x cell pixels of the
 * picture below it, channel (c cell + dy) cell + dx, latent = scale (2 pixel -
 * 1). Nothing is lost.
 */
#include <stdint.h>

typedef struct SdPixels {
    int64_t height, width; /* of the picture, multiples of cell */
    int64_t cell;
    float scale;
} SdPixels;

/** The cell of maps of that many channels; DG_EINVAL naming
 *  unet.in_channels: must be 3 cell^2. */
int dg_sd_pixels_cell(int64_t *cell, int64_t channels);

/** rgb [height, width, 3] in [0, 1] to a latent. */
void dg_sd_pixels_code(const SdPixels *x, const float *rgb, float *latent);

/** And back, by dg_policy_pixel(). */
void dg_sd_pixels_decode(const SdPixels *x, const float *latent, float *rgb);

#endif
