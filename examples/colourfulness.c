/*
 * A reward of one's own: how colourful a picture is, after Hasler and
 * Suesstrunk, "Measuring colourfulness in natural images" (2003). With
 *
 *   rg = R - G,  yb = (R + G) / 2 - B       of each pixel, values 0 to 255
 *   M  = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2)
 *
 * people call a picture not colourful at 0, moderately at 33, quite at 59,
 * extremely at 109.
 *
 *   cc -O2 -fPIC -shared -Iinclude -o libcolourfulness.so \
 *       examples/colourfulness.c -lm
 *
 *   rewards = ({ name = "colourfulness"; plugin = "libcolourfulness.so";
 *                options = "most=59"; weight = 0.5; });
 *
 * options  most=NUMBER: what is more colourful scores no higher, so that a
 *          policy has no use for glaring pictures; "": as colourful as it gets
 */
#include "dancegrpo/reward_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Colourfulness {
    double most;
} Colourfulness;

/* All that can be wrong is found here, before anything is computed. */
static int read_options(Colourfulness *c, const char *options, char *reason)
{
    static const char key[] = "most=";
    const char *number = options + strlen(key);
    char *end;

    c->most = INFINITY;
    if (options[0] == '\0')
        return 0;
    if (strncmp(options, key, strlen(key)) == 0) {
        c->most = strtod(number, &end);
        if (end != number && *end == '\0' && c->most > 0)
            return 0;
    }
    snprintf(reason, DG_REWARD_REASON,
             "options = \"%.200s\": must be most=NUMBER, above 0", options);
    return 1;
}

static int open_it(void **self, const DgRewardSeat *seat, char *reason)
{
    Colourfulness *c = malloc(sizeof *c);

    if (c == NULL) {
        snprintf(reason, DG_REWARD_REASON, "out of memory");
        return 1;
    }
    if (read_options(c, seat->options, reason) != 0) {
        free(c);
        return 1;
    }
    *self = c;
    return 0;
}

/* Mean and variance of a colour's difference; sums in the order of pixels, so
 * that they have the same bits everywhere. */
static void spread(const DgRewardPicture *p, const double factor[3],
                   double *mean, double *variance)
{
    const int64_t num = p->height * p->width;
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < num; i++) {
        const float *rgb = p->rgb + 3 * i;
        const double value =
            255 * (factor[0] * (double)rgb[0] + factor[1] * (double)rgb[1] +
                   factor[2] * (double)rgb[2]);

        sum += value;
        squares += value * value;
    }
    *mean = sum / (double)num;
    *variance = fmax(squares / (double)num - *mean * *mean, 0);
}

static int score(void *self, const DgRewardPicture *picture, DgRewardScore *out)
{
    static const double rg[3] = { 1, -1, 0 }, yb[3] = { 0.5, 0.5, -1 };
    const Colourfulness *c = self;
    double mean[2], variance[2], m;

    if (picture->height < 2 || picture->width < 2) {
        snprintf(out->reason, sizeof out->reason,
                 "a picture of %lld x %lld pixels has no colourfulness",
                 (long long)picture->height, (long long)picture->width);
        return DG_REWARD_MISSING;
    }
    spread(picture, rg, &mean[0], &variance[0]);
    spread(picture, yb, &mean[1], &variance[1]);
    m = sqrt(variance[0] + variance[1]) +
        0.3 * sqrt(mean[0] * mean[0] + mean[1] * mean[1]);
    out->score = (float)fmin(m, c->most);
    return DG_REWARD_SCORED;
}

/* nothing is written but what belongs to the call */
static const DgRewardPlugin plugin = {
    .abi = DG_REWARD_PLUGIN_ABI,
    .flags = DG_REWARD_THREAD_SAFE,
    .description = "colourfulness (Hasler and Suesstrunk)",
    .open = open_it,
    .score = score,
    .close = free,
};

const DgRewardPlugin *dg_reward_plugin(void)
{
    return &plugin;
}
