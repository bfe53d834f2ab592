#ifndef DG_OPTIM_ADAMW8_H
#define DG_OPTIM_ADAMW8_H
/*
 * AdamW whose moments are kept in 8 bits: the recursion of optim/adamw.h, in
 * float32, over moments that are read from codes and stored as codes.
 *
 * Blocks of DG_MOMENT_BLOCK elements, counted from the beginning of the flat
 * buffer, have a float32 scale for each moment, the largest size in the block
 * (Dettmers et al., 2022); an element has a code of each, optim/moment_code.h.
 *
 * Both neighbours of a value in the code are 1/8 of the smaller one apart at
 * most. Rounded to the nearer one a second moment would stand still: an update
 * moves it by a part of 1 - beta2 = 0.001. So which neighbour it is follows
 * from the value, the element's number and the update's, in such a way that
 * over updates it is the upper one as often as the value is near it. It is no
 * random number: the same update gives the same codes, on any device, for any
 * ranges, threads or ranks that cut at blocks. An update's own weights are
 * moved by its moments before they are rounded.
 *
 *   |stored - m| <= |m| / 8,  or  1.25 2^-16 of the block's largest |m|
 *   |stored - v| <= v / 8,    or  1.25 2^-32 of the block's largest v
 */
#include <stdint.h>

#include "optim/adamw.h"

enum { DG_MOMENT_BLOCK = 256 };

/* Of a range that begins at a block. All zero: moments of zero. */
typedef struct Moments8 {
    uint8_t *m, *v;           /* [num] codes */
    float *m_scale, *v_scale; /* [dg_moments8_blocks(num)] */
} Moments8;

/** num / DG_MOMENT_BLOCK, rounded up. */
int64_t dg_moments8_blocks(int64_t num);

/** Those of the elements from 'first' on, a multiple of DG_MOMENT_BLOCK. */
Moments8 dg_moments8_at(const Moments8 *all, int64_t first);

/**
 * Applies the update to num elements.
 * w     [num] f32 in/out
 * grad  [num] f32, multiplied by s->grad_scale first
 * x     their moments
 * first number of the first one in the whole buffer, a multiple of
 *       DG_MOMENT_BLOCK; num is one too but at the buffer's end
 * Not collective.
 */
void dg_adamw8_update(float *w, const Moments8 *x, const float *grad,
                      int64_t first, int64_t num, const AdamwStep *s);

/** One moment of whole blocks, [num] f32 out. */
void dg_moments8_read_m(float *out, const Moments8 *x, int64_t num);
void dg_moments8_read_v(float *out, const Moments8 *x, int64_t num);
/** And from [num] f32, each rounded to the nearest code: what was read comes
 *  back as it was. v >= 0. */
void dg_moments8_write_m(const Moments8 *x, const float *m, int64_t num);
void dg_moments8_write_v(const Moments8 *x, const float *v, int64_t num);

#endif
