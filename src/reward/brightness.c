/* Mean luma of the picture, 0.299 R + 0.587 G + 0.114 B, in [0, 1], or with a
 * target how near to it the mean is, -|mean - target|. The smallest reward
 * there is; for trials and as the second of two rewards. */
#include "kinds.h"

#include "base/error.h"

#include <math.h>

static int score(const RewardInput *in, RewardScore *out)
{
    const int64_t pixels = in->height * in->width;
    const double target = in->reward->target;
    const float *rgb = in->rgb;
    double sum = 0;

    for (int64_t i = 0; i < pixels; i++)
        sum += 0.299 * (double)rgb[3 * i] + 0.587 * (double)rgb[3 * i + 1] +
               0.114 * (double)rgb[3 * i + 2];
    sum /= (double)pixels;
    out->value = (float)(isnan(target) ? sum : -fabs(sum - target));
    return DG_OK;
}

const RewardKind dg_reward_brightness = {
    .name = "brightness",
    .keys = DG_KEY_TARGET,
    .score = score,
};
