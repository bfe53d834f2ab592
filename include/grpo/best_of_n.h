#ifndef DG_GRPO_BEST_OF_N_H
#define DG_GRPO_BEST_OF_N_H
/*
 * Best-of-N: train on the best and the worst of a large group only.
 * Advantages stay those of the full group. Source: DanceGRPO section 3.2
 * (best 8 and worst 8 of N); done within each prompt's group, where the
 * reference sorts across all groups of a rank.
 */
#include <stdint.h>

/**
 * Keeps the top highest and the bottom lowest of a group's G totals; among
 * equal totals the lower sample index counts as the higher. A sample without
 * any score is neither good nor bad: it is kept only where fewer than top +
 * bottom have one, all of those being kept, so that the number stays; it has
 * no gradient.
 * kept      [top + bottom] i32 out: sample indices within the group, rising
 * total     [G]  f32, finite
 * unscored  [G]  nonzero: no score; NULL: all have one
 * top, bottom  >= 0, 1 <= top + bottom <= G; G keeps all
 * Not collective; allocates nothing. Errors: DG_EINVAL naming
 * grpo.keep_top, DG_ENUMERIC for a total that is not finite; kept is then
 * untouched.
 */
int dg_best_of_n_select(int32_t *kept, const float *total,
                        const uint8_t *unscored, int32_t G, int32_t top,
                        int32_t bottom);

#endif
