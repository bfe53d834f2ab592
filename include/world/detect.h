#ifndef DG_WORLD_DETECT_H
#define DG_WORLD_DETECT_H
/*
 * Reads a picture of the shapes world back: which shapes of which colour
 * stand where. Exact rules, no learned part; the features that tell shapes
 * apart do not change under an isotropic blur or a rotation.
 */
#include <stdint.h>

#include "world/world.h"

/* A component has max(8, 0.4 %) pixels or more: never more than this many. */
enum { DG_WORLD_MAX_SEEN = 256 };

typedef struct WorldSeen {
    int32_t shape;        /* WorldShape, DG_SHAPE_OTHER included */
    int32_t colour;       /* WorldColour */
    int32_t box[4];       /* x0 y0 x1 y1 of the hard mask, x1 y1 exclusive */
    int32_t pixels;       /* of the hard mask */
    float mass;           /* sum of the soft weights, pixels */
    float cx, cy;         /* centroid of the soft weights, pixels */
    float rgb[3];         /* mean colour of the inner hard mask, [0, 1] */
    float e2, s2, s3, s4; /* shape features, 1 */
} WorldSeen;

typedef struct WorldDetection {
    int32_t num_objects;
    int32_t num_fragments; /* components too small to be objects */
    float clutter;         /* unexplained + fragments, share of the pixels;
                            * 1 where the background is not grey */
    float unexplained;     /* share of pixels of no palette colour */
    float fragments;       /* share of pixels in fragments */
    float background[3];   /* [0, 1] */
    WorldSeen object[DG_WORLD_MAX_SEEN]; /* by first pixel, rows first */
} WorldDetection;

/* Working memory of one call; the caller owns it, one per thread. */
typedef struct WorldScratch {
    float pixel[3 * DG_WORLD_MAX_SIDE * DG_WORLD_MAX_SIDE];
    float row[3 * 3 * DG_WORLD_MAX_SIDE];
    float ring[4 * DG_WORLD_MAX_SIDE * (DG_WORLD_MAX_SIDE / 32)];
    int32_t queue[DG_WORLD_MAX_SIDE * DG_WORLD_MAX_SIDE];
    int16_t owner[DG_WORLD_MAX_SIDE * DG_WORLD_MAX_SIDE];
    int8_t label[DG_WORLD_MAX_SIDE * DG_WORLD_MAX_SIDE];
} WorldScratch;

/**
 * Detects the objects of a picture.
 * rgb   [side, side, 3] f32, nominally [0, 1]; clamped to it
 * side  DG_WORLD_MIN_SIDE .. DG_WORLD_MAX_SIDE
 * Allocates nothing; thread-safe with a scratch per thread.
 * Errors: DG_EINVAL on a bad side, DG_ENUMERIC on a pixel that is not
 * finite; out is then untouched.
 */
int dg_world_detect(WorldDetection *out, const float *rgb, int side,
                    WorldScratch *scratch);

#endif
