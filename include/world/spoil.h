#ifndef DG_WORLD_SPOIL_H
#define DG_WORLD_SPOIL_H
/*
 * Faults of pictures gathered from the web: washed out, out of focus. Both
 * work on [side, side, 3] f32 RGB in place. Thread-safe, cannot fail.
 */

/**
 * Washed out: every value moves towards the background's grey, x becomes
 * grey + contrast (x - grey).
 * contrast  in [0, 1]; 1: unchanged, bit for bit not promised
 */
void dg_world_fade(float *rgb, int side, float contrast);

/**
 * Out of focus: 'passes' times the binomial filter (1 2 1)/4 in both
 * directions, the rim repeated: a standard deviation of sqrt(passes / 2)
 * pixels per direction.
 * side  at most DG_WORLD_MAX_SIDE
 */
void dg_world_blur(float *rgb, int side, int passes);

#endif
