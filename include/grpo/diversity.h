#ifndef DG_GRPO_DIVERSITY_H
#define DG_GRPO_DIVERSITY_H
/*
 * How unlike the pictures of a group are. Mode collapse shows here long before
 * anybody looks at pictures, and whatever the reward makes of them.
 *
 * Each picture is made small, DG_DIVERSITY_SIDE cells high and wide, a cell
 * being the mean of its pixels: what stays are composition and colours, what
 * goes is the grain that an SDE leaves in large pictures. Of the n small
 * pictures x_i of a group, with M = 3 side^2 numbers each,
 *
 *   diversity^2 = 1/M sum_m 1/(n - 1) sum_i (x_im - mean_i x_im)^2
 *               = half the mean square difference of two of them
 *
 * The square root is taken of the mean over cells, not in each: so it hardly
 * depends on how many samples of the group there are.
 *
 * Cells are whole multiples of 1 / DG_DIVERSITY_LEVELS, and all that is kept of
 * a group are integer sums: any order, and any share of its samples among
 * threads and ranks, give the same bits.
 */
#include <stdint.h>

enum {
    DG_DIVERSITY_SIDE = 32,
    DG_DIVERSITY_CELLS = 3 * DG_DIVERSITY_SIDE * DG_DIVERSITY_SIDE,
    DG_DIVERSITY_LEVELS = 4095, /* white */
    DG_DIVERSITY_MOST = 4096    /* pictures of a group: no sum overflows */
};

/* Sums over pictures of a group; all zero: none yet. Integers of one type, so
 * that ranks add theirs as one array. */
typedef struct GroupPictures {
    int64_t num;
    int64_t squares; /* over pictures and cells */
    int64_t sum[DG_DIVERSITY_CELLS];
} GroupPictures;

/**
 * A picture, made small. A side of fewer pixels than cells has some twice.
 * cells  [DG_DIVERSITY_CELLS] out, 0 to DG_DIVERSITY_LEVELS
 * rgb    [height, width, 3] in, in [0, 1]
 * Returns 1, or 0 where a cell is not within [0, 1]: NaN, infinities.
 * Not collective.
 */
int dg_diversity_cells(int32_t *cells, const float *rgb, int64_t height,
                       int64_t width);

/** Adds one to its group; not for two threads at a time. */
void dg_diversity_add(GroupPictures *group, const int32_t *cells);

/** Of a group: 0 (all alike) to sqrt(1/2) (of two, black and white), unit 1, the
 *  range of a pixel; NAN below two pictures. */
double dg_diversity_of(const GroupPictures *group);

/** Mean over those of num groups that have two; NAN: none has. */
double dg_diversity_mean(const GroupPictures *groups, int64_t num);

#endif
