#include "grpo/best_of_n.h"

#include <math.h>

#include "base/error.h"

static int has_score(const uint8_t *unscored, int32_t i)
{
    return unscored == NULL || !unscored[i];
}

/* How many members with a score stand before i, highest total first. Quadratic
 * in G, a few hundred at most, and needs no memory. */
static int32_t rank_of(const float *total, const uint8_t *unscored, int32_t G,
                       int32_t i)
{
    int32_t before = 0;

    for (int32_t j = 0; j < G; j++)
        before += has_score(unscored, j) &&
                  (total[j] > total[i] || (total[j] == total[i] && j < i));
    return before;
}

int dg_best_of_n_select(int32_t *kept, const float *total,
                        const uint8_t *unscored, int32_t G, int32_t top,
                        int32_t bottom)
{
    int32_t num = 0, scored = 0, spare;

    if (top < 0 || bottom < 0 || top > G || bottom > G - top ||
        top + bottom < 1)
        return dg_fail(DG_EINVAL,
                       "grpo.keep_top = %d, grpo.keep_bottom = %d: together "
                       "must be 1 to %d (num_generations)",
                       (int)top, (int)bottom, (int)G);
    for (int32_t i = 0; i < G; i++)
        if (!isfinite(total[i]))
            return dg_fail(DG_ENUMERIC, "advantage of sample %d is not finite",
                           (int)i);
    for (int32_t i = 0; i < G; i++)
        scored += has_score(unscored, i);
    spare = top + bottom - scored; /* places that nobody has earned */
    for (int32_t i = 0; i < G; i++) {
        const int32_t rank = rank_of(total, unscored, G, i);

        if (has_score(unscored, i) ? rank < top || rank >= scored - bottom
                                   : spare-- > 0)
            kept[num++] = i;
    }
    return DG_OK;
}
