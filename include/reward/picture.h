#ifndef DG_REWARD_PICTURE_H
#define DG_REWARD_PICTURE_H
/*
 * From a painted picture to what a reward's network was trained to see: 8-bit
 * values, another size, the middle, normalised. Each network has its own way,
 * and scores shift when another one is taken.
 */
#include "base/arena.h"
#include "config/choices.h"

#include <stdint.h>

/* Bicubic resampling with antialiasing, a = -0.5. */
typedef enum Resampler {
    DG_RESAMPLE_U8, /* Pillow's: 8-bit in, 8-bit between the passes, 8-bit out,
                       to the bit. OpenAI's CLIP, OpenCLIP, transformers */
    DG_RESAMPLE_F32 /* torchvision's on float pictures: neither rounded nor
                       limited to [0, 1]. HPS v2 */
} Resampler;

/* How values of [0, 1] are normalised, for red, green, blue. */
typedef struct PictureColours {
    float mean[3], deviation[3];
} PictureColours;

/** OpenAI's, of nearly every CLIP. */
PictureColours dg_picture_colours_clip(void);

typedef struct PictureOpts {
    int64_t side; /* of the network's input */
    int squash;   /* 1: both sides to it; 0: the shorter one, then the middle */
    int crop_low; /* 1: of an odd surplus the smaller half goes above and left,
                     as transformers does; 0: halves to even, torchvision */
    Resampler resampler;
    Quantize quantize;      /* to 8 bits */
    PictureColours colours; /* deviations of 0: CLIP's own */
} PictureOpts;

/**
 * The network's input: rgb in [0, 1] becomes 8-bit, is resampled and cut to
 * side x side, and (v / 255 - mean) / std with o's means and deviations.
 * out      [side, side, 3] f32 out
 * rgb      [height, width, 3] f32 in
 * scratch  room for what is between; given back. A counting arena counts it;
 *          out and rgb are then neither read nor written.
 * Errors: DG_ENUMERIC a value that is not finite, naming the pixel; DG_ENOMEM.
 */
int dg_picture_prepare(float *out, const PictureOpts *o, const float *rgb,
                       int64_t height, int64_t width, Arena *scratch);

/**
 * The first step alone: 255 v rounded to nearest even, or truncated; values
 * beyond [0, 1] are limited to it. num values.
 * Errors: DG_ENUMERIC, naming the value's place.
 */
int dg_picture_quantize(uint8_t *out, const float *rgb, int64_t num,
                        Quantize how);

#endif
