/*
 * A reward of one's own: are the colours that the prompt names in the picture?
 * Every pixel counts for the colour of the list below that is nearest to it. A
 * named colour's part is the share of pixels that count for it, divided by the
 * share that is enough, and at most 1; the score is the mean over the named
 * colours. Its strict score says whether there is enough of all of them. A
 * prompt that names none has no score.
 *
 *   cc -O2 -fPIC -shared -Iinclude -o libnamed_colours.so \
 *       examples/named_colours.c
 *
 *   rewards = ({ name = "named_colours"; plugin = "libnamed_colours.so";
 *                options = "enough=0.1"; weight = 0.5; });
 *
 * options  enough=SHARE of the picture, above 0 and at most 1; "": 0.1. More of
 *          a colour scores no higher, or whole pictures of it would win.
 */
#include "dancegrpo/reward_plugin.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Colour {
    const char *name;
    float rgb[3];
} Colour;

static const Colour colours[] = {
    { "red", { 0.90f, 0.10f, 0.10f } },
    { "orange", { 0.96f, 0.52f, 0.10f } },
    { "yellow", { 0.97f, 0.88f, 0.15f } },
    { "green", { 0.10f, 0.62f, 0.22f } },
    { "blue", { 0.12f, 0.30f, 0.85f } },
    { "purple", { 0.52f, 0.16f, 0.66f } },
    { "pink", { 0.97f, 0.60f, 0.75f } },
    { "brown", { 0.47f, 0.28f, 0.12f } },
    { "black", { 0.05f, 0.05f, 0.05f } },
    { "white", { 0.95f, 0.95f, 0.95f } },
    { "grey", { 0.50f, 0.50f, 0.50f } },
};

enum { NUM = sizeof colours / sizeof *colours };

typedef struct NamedColours {
    double enough;
} NamedColours;

/* What is wrong with options is told here, before anything is computed. */
static int read_options(NamedColours *n, const char *options, char *reason)
{
    static const char key[] = "enough=";
    const size_t length = strlen(key);
    char *end;

    n->enough = 0.1;
    if (options[0] == '\0')
        return 0;
    if (strncmp(options, key, length) == 0) {
        n->enough = strtod(options + length, &end);
        if (end != options + length && *end == '\0' && n->enough > 0 &&
            n->enough <= 1)
            return 0;
    }
    snprintf(
        reason, DG_REWARD_REASON,
        "options = \"%.200s\": must be enough=SHARE, above 0 and at most 1",
        options);
    return 1;
}

static int open_it(void **self, const DgRewardSeat *seat, char *reason)
{
    NamedColours *n = malloc(sizeof *n);

    if (n == NULL) {
        snprintf(reason, DG_REWARD_REASON, "out of memory");
        return 1;
    }
    if (read_options(n, seat->options, reason) != 0) {
        free(n);
        return 1;
    }
    *self = n;
    return 0;
}

/* As a word of its own, in small or large letters. */
static int names(const char *prompt, const char *word)
{
    const size_t length = strlen(word);

    while (*prompt != '\0') {
        size_t n = 0, same = 0;

        while (isalpha((unsigned char)prompt[n])) {
            same += n < length && tolower((unsigned char)prompt[n]) == word[n];
            n++;
        }
        if (n == length && same == length)
            return 1;
        prompt += n > 0 ? n : 1;
    }
    return 0;
}

static int nearest(const float *rgb)
{
    float least = 4;
    int best = 0;

    for (int i = 0; i < NUM; i++) {
        const float *c = colours[i].rgb;
        const float r = rgb[0] - c[0], g = rgb[1] - c[1], b = rgb[2] - c[2];
        const float distance = r * r + g * g + b * b;

        if (distance < least) {
            least = distance;
            best = i;
        }
    }
    return best;
}

static int score(void *self, const DgRewardPicture *picture, DgRewardScore *out)
{
    const NamedColours *n = self;
    const int64_t pixels = picture->height * picture->width;
    int64_t count[NUM] = { 0 };
    double sum = 0;
    int named = 0;

    for (int64_t i = 0; i < pixels; i++)
        count[nearest(picture->rgb + 3 * i)]++;
    for (int i = 0; i < NUM; i++)
        if (names(picture->prompt, colours[i].name)) {
            const double part = (double)count[i] / (double)pixels / n->enough;

            sum += part < 1 ? part : 1;
            named++;
        }
    if (named == 0) {
        snprintf(out->reason, sizeof out->reason, "the prompt names no colour");
        return DG_REWARD_MISSING;
    }
    out->score = (float)(sum / named);
    out->strict = sum == named;
    return DG_REWARD_SCORED;
}

/* score() writes nothing but what belongs to the call */
static const DgRewardPlugin plugin = {
    .abi = DG_REWARD_PLUGIN_ABI,
    .flags = DG_REWARD_THREAD_SAFE,
    .description = "colours that the prompt names",
    .open = open_it,
    .score = score,
    .close = free,
};

const DgRewardPlugin *dg_reward_plugin(void)
{
    return &plugin;
}
