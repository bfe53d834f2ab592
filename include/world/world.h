#ifndef DG_WORLD_WORLD_H
#define DG_WORLD_WORLD_H
/*
 * The shapes world: an unlimited stream of captioned pictures of coloured
 * shapes on grey. Scene number i of a seed is a pure function of (seed, i),
 * so a stream needs no state and any rank may draw any part of it.
 *
 * Pixels: centre of pixel (x, y) at (x + 0.5, y + 0.5), y downwards.
 * A shape's radius is that of the circle of equal area.
 */
#include <stddef.h>
#include <stdint.h>

#include "world/meta.h"

enum {
    DG_WORLD_MIN_SIDE = 32,
    DG_WORLD_MAX_SIDE = 128,
    DG_WORLD_MAX_OBJECTS = 8 /* objects of a generated scene */
};

typedef struct WorldObject {
    int32_t shape;
    int32_t colour;
    float cx, cy;   /* pixels */
    float radius;   /* pixels */
    float rotation; /* radians; 0: square upright, triangle's tip up */
} WorldObject;

typedef struct WorldScene {
    WorldMeta meta;
    int32_t num_objects; /* objects of clause 0 first, then of clause 1, .. */
    WorldObject object[DG_WORLD_MAX_OBJECTS];
    char prompt[DG_WORLD_MAX_PROMPT];
} WorldScene;

typedef struct WorldStream {
    uint64_t seed;
    int32_t side;              /* pixels, even */
    float weight[DG_NUM_TAGS]; /* relative frequency of tags; all 0: equal */
    const uint64_t *excluded;  /* ascending dg_world_meaning() values that
                                * the stream must not show; borrowed */
    size_t num_excluded;
} WorldStream;

/**
 * Scene 'index' of the seed's stream, tags equally frequent.
 * side  picture's side in pixels, DG_WORLD_MIN_SIDE .. DG_WORLD_MAX_SIDE
 * Not collective, no state, thread-safe. Errors: DG_EINVAL on a bad side.
 */
int dg_world_scene(WorldScene *out, uint64_t seed, uint64_t index, int side);

/**
 * The same with weights of tags and excluded meanings. With equal weights
 * and nothing excluded it is dg_world_scene().
 * Errors: DG_EINVAL on a bad side or weight, or when nothing is left.
 */
int dg_world_stream_scene(WorldScene *out, const WorldStream *s,
                          uint64_t index);

/**
 * A scene for given metadata (a prompt read from a file), the index-th one
 * of the seed. Errors: DG_EINVAL if m is outside the grammar or asks for
 * more than DG_WORLD_MAX_OBJECTS objects or more than fit.
 */
int dg_world_scene_of(WorldScene *out, const WorldMeta *m, uint64_t seed,
                      uint64_t index, int side);

/**
 * Draws a scene, anti-aliased by 8x8 samples on edge pixels.
 * rgb  [side, side, 3] f32 out, in [0, 1], row 0 on top
 * side is the one the scene was made for.
 */
void dg_world_draw(float *rgb, const WorldScene *s, int side);

#endif
