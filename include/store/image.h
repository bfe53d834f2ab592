#ifndef DG_STORE_IMAGE_H
#define DG_STORE_IMAGE_H
/*
 * Pictures as PNG files, 8 bits per channel, with text about their origin
 * (seed, prompt) inside; and grids of pictures with captions.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct Image {
    int32_t width, height;
    unsigned char *rgb; /* [height, width, 3]; free with dg_image_free() */
} Image;

typedef struct ImageText {
    const char *key;   /* 1 to 79 bytes of ASCII, no newline */
    const char *value; /* UTF-8 */
} ImageText;

typedef struct ImageGrid {
    int32_t num;           /* tiles, >= 1 */
    int32_t width, height; /* of a tile, pixels */
    int32_t columns;       /* >= 1 */
    int32_t scale;         /* each pixel becomes scale x scale, >= 1 */
    int32_t padding;       /* white pixels around tiles, >= 0 */
    /* [num] texts under the tiles, cut to what fits in three lines; NULL:
     * none. Small letters and all else of ASCII; what is beyond it is drawn as
     * its letters without their marks, or as '?' (text/ascii.h). */
    const char *const *captions;
} ImageGrid;

/** [0, 1] to 0..255, rounded to nearest; outside it is clamped, NaN is 0.
 *  num values. */
void dg_image_quantise(unsigned char *out, const float *in, size_t num);

/**
 * A white picture with the tiles in rows.
 * tiles  [num, height, width, 3] u8
 * Errors: DG_EINVAL on bad sizes, DG_ENOMEM.
 */
int dg_image_grid(Image *out, const unsigned char *tiles, const ImageGrid *g);

/**
 * Writes a PNG, whole or not at all (path.tmp, then renamed).
 * texts  [num_texts] become tEXt chunks, iTXt where not ASCII
 * By this rank alone. Errors: DG_EINVAL, DG_ENOMEM, DG_EIO naming the file.
 */
int dg_image_write_png(const char *path, const Image *image,
                       const ImageText *texts, int num_texts);

/**
 * Reads a PNG of any kind as RGB8 (alpha dropped). Errors: DG_EIO, DG_EFORMAT
 * (not a PNG, damaged, or more than 16384 pixels a side), DG_ENOMEM.
 */
int dg_image_read_png(Image *out, const char *path);

/**
 * The text of a key in a PNG file. Errors: as above, DG_EINVAL if there is
 * no such key or its text does not fit into cap bytes.
 */
int dg_image_read_text(char *out, size_t cap, const char *path,
                       const char *key);

void dg_image_free(Image *image);

#endif
