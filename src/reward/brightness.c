/* Mean luma of the picture, 0.299 R + 0.587 G + 0.114 B, in [0, 1]. The
 * smallest reward there is; for trials and as the second of two rewards. */
#include "kinds.h"

#include "base/error.h"

static int score(const RewardInput *in, RewardScore *out)
{
    const int64_t pixels = in->height * in->width;
    const float *rgb = in->rgb;
    double sum = 0;

    for (int64_t i = 0; i < pixels; i++)
        sum += 0.299 * (double)rgb[3 * i] + 0.587 * (double)rgb[3 * i + 1] +
               0.114 * (double)rgb[3 * i + 2];
    out->value = (float)(sum / (double)pixels);
    return DG_OK;
}

const RewardKind dg_reward_brightness = {
    .name = "brightness",
    .score = score,
};
