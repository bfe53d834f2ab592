/* How colourful a picture looks: Hasler and Suesstrunk, "Measuring colourfulness
 * in natural images" (2003), their metric M3, on values of 0 to 255:
 *
 *   rg = R - G,  yb = (R + G) / 2 - B
 *   sqrt(var rg + var yb) + 0.3 sqrt((mean rg)^2 + (mean yb)^2)
 *
 * 0 for grey; people called pictures of 15 slightly and of 109 extremely
 * colourful. */
#include "kinds.h"

#include "base/error.h"

#include <math.h>

typedef struct Opponents {
    double rg, yb;
} Opponents;

static Opponents opponents(const float *p)
{
    const double r = 255 * (double)p[0], g = 255 * (double)p[1];

    return (Opponents) { r - g, (r + g) / 2 - 255 * (double)p[2] };
}

/* The mean first: the variance of a picture of one colour is 0, nearly. */
static int score(const RewardInput *in, RewardScore *out)
{
    const int64_t pixels = in->height * in->width;
    Opponents mean = { 0 }, var = { 0 };

    for (int64_t i = 0; i < pixels; i++) {
        const Opponents o = opponents(in->rgb + 3 * i);

        mean.rg += o.rg;
        mean.yb += o.yb;
    }
    mean.rg /= (double)pixels;
    mean.yb /= (double)pixels;
    for (int64_t i = 0; i < pixels; i++) {
        const Opponents o = opponents(in->rgb + 3 * i);

        var.rg += (o.rg - mean.rg) * (o.rg - mean.rg);
        var.yb += (o.yb - mean.yb) * (o.yb - mean.yb);
    }
    out->value = (float)(sqrt((var.rg + var.yb) / (double)pixels) +
                         0.3 * sqrt(mean.rg * mean.rg + mean.yb * mean.yb));
    return DG_OK;
}

const RewardKind dg_reward_colourfulness = {
    .name = "colourfulness",
    .score = score,
};
