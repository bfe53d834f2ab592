#ifndef DG_BASE_LANES_H
#define DG_BASE_LANES_H
/*
 * Sums in a fixed order: element i belongs to lane i mod DG_LANES, each lane
 * adds in rising i, and the lanes fold by halves. The order is written out,
 * so a sum does not depend on the vector width a compiler chooses, and the
 * same order can be kept on a device.
 */
#define DG_LANES 16

/** Folds the lanes: 16 -> 8 -> 4 -> 2 -> 1. lane is overwritten. */
static inline double dg_lanes_fold(double lane[DG_LANES])
{
    for (int half = DG_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

#endif
