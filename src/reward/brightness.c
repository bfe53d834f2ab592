/* Mean luma of the picture, 0.299 R + 0.587 G + 0.114 B, in [0, 1]. The
 * smallest reward there is; for trials and as the second of two rewards. */
#include "kinds.h"

#include "base/error.h"

static int score(const float *rgb, int64_t size, const Prompt *prompt,
                 RewardScore *out, void *scratch)
{
    double sum = 0;

    (void)prompt;
    (void)scratch;
    for (int64_t i = 0; i < size * size; i++)
        sum += 0.299 * (double)rgb[3 * i] + 0.587 * (double)rgb[3 * i + 1] +
               0.114 * (double)rgb[3 * i + 2];
    out->value = (float)(sum / (double)(size * size));
    return DG_OK;
}

const RewardKind dg_reward_brightness = {
    .name = "brightness",
    .score = score,
};
