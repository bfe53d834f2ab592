/*
 * A plug-in that does whatever a plug-in may do, and what it may not, by its
 * options and by how it is built (PLUGIN_x, see the Makefile).
 *
 *   ""           the reward brightness
 *   missing=N    one picture in N has no score
 *   silent       none has, and no reason either
 *   endless      nor has its reason an end
 *   lines        and is of two, with what steers a terminal
 *   fatal, status=N, nan, strict=X     what score() gives
 *   refuse, refuse_lines, mute         open() does, with a reason and without
 *   seat         open() refuses with what it is told
 *   words        the score is the length of the prompt and its metadata
 *   scratch=N    N bytes of scratch are written; the score is where they begin
 *   by_rank      the score of the second rank is another
 *   at_once      the score is how many threads were seen in it
 *   upward       it rounds upward, and leaves it so
 */
#include "dancegrpo/reward_plugin.h"

#include <fenv.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef PLUGIN_threads
#define LOOKS 10000
#else
#define LOOKS 20
#endif

static atomic_int inside, most_inside, opened, rank;

static int is(const char *options, const char *key)
{
    return strncmp(options, key, strlen(key)) == 0;
}

static double number(const char *options)
{
    return strtod(strchr(options, '=') + 1, NULL);
}

#ifdef PLUGIN_upward
__attribute__((constructor)) static void begin(void)
{
    fesetround(FE_UPWARD);
}
#endif

static int open_it(void **self, const DgRewardSeat *s, char *reason)
{
    rank = s->rank;
    if (is(s->options, "upward"))
        fesetround(FE_UPWARD);
    if (is(s->options, "refuse"))
        snprintf(reason, DG_REWARD_REASON, "no model for \"%s\"", s->name);
    if (is(s->options, "refuse_lines"))
        snprintf(reason, DG_REWARD_REASON, "one\ntwo\x1b[2J.");
    if (is(s->options, "seat"))
        snprintf(reason, DG_REWARD_REASON,
                 "%s rank %d of %d, of its node %d of %d, device %d, open %d",
                 s->name, (int)s->rank, (int)s->num_ranks, (int)s->node_rank,
                 (int)s->node_ranks, (int)s->device, atomic_load(&opened));
    if (reason[0] != '\0' || is(s->options, "mute"))
        return -1;
    *self = strdup(s->options);
    atomic_fetch_add(&opened, 1);
    return 0;
}

static void close_it(void *self)
{
    atomic_fetch_sub(&opened, 1);
    free(self);
}

static size_t scratch_bytes(const char *options, int64_t height, int64_t width)
{
    return is(options, "scratch=")
               ? (size_t)number(options) * (size_t)(height * width)
               : 0;
}

static float brightness(const DgRewardPicture *p)
{
    const int64_t pixels = p->height * p->width;
    const float *rgb = p->rgb;
    double sum = 0;

    for (int64_t i = 0; i < pixels; i++)
        sum += 0.299 * (double)rgb[3 * i] + 0.587 * (double)rgb[3 * i + 1] +
               0.114 * (double)rgb[3 * i + 2];
    return (float)(sum / (double)pixels);
}

/* By the picture alone: the same pictures on any number of ranks. */
static int drops(const DgRewardPicture *p, unsigned every)
{
    unsigned bits;

    memcpy(&bits, &p->rgb[0], sizeof bits);
    return (bits >> 4) % every == 0;
}

/* Long enough that another thread would come in if it could, or until it does. */
static float count_threads(void)
{
    const struct timespec moment = { 0, 1000000 };
    const int now = atomic_fetch_add(&inside, 1) + 1;
    int most = atomic_load(&most_inside);

    while (now > most &&
           !atomic_compare_exchange_weak(&most_inside, &most, now))
        ;
    for (int i = 0; i < LOOKS && atomic_load(&most_inside) < 2; i++)
        nanosleep(&moment, NULL);
    atomic_fetch_sub(&inside, 1);
    return (float)atomic_load(&most_inside);
}

__attribute__((unused)) static int score(void *self, const DgRewardPicture *p,
                                         DgRewardScore *out)
{
    const char *options = self;

    out->score = brightness(p);
    if (is(options, "missing=") && drops(p, (unsigned)number(options)))
        snprintf(out->reason, sizeof out->reason, "not today: \"%s\"",
                 p->prompt);
    else if (is(options, "endless"))
        memset(out->reason, 'x', sizeof out->reason);
    else if (is(options, "lines"))
        snprintf(out->reason, sizeof out->reason, "one\ntwo\x1b[2J\t\xff.");
    if (out->reason[0] != '\0' || is(options, "silent"))
        return DG_REWARD_MISSING;
    if (is(options, "fatal")) {
        snprintf(out->reason, sizeof out->reason, "the model is gone");
        return DG_REWARD_FATAL;
    }
    if (is(options, "nan"))
        out->score = NAN;
    if (is(options, "strict="))
        out->strict = (float)number(options);
    if (is(options, "words"))
        out->score = (float)(strlen(p->prompt) +
                             (p->metadata ? 1000 * strlen(p->metadata) : 0));
    if (is(options, "scratch=")) {
        memset(p->scratch, 0x5a, scratch_bytes(options, p->height, p->width));
        out->score = (float)((uintptr_t)p->scratch % 64);
    }
    if (is(options, "by_rank") && rank == 1)
        out->score = nextafterf(out->score, 1);
    if (is(options, "at_once"))
        out->score = count_threads();
    if (is(options, "upward"))
        fesetround(FE_UPWARD);
    return is(options, "status=") ? (int)number(options) : DG_REWARD_SCORED;
}

static const DgRewardPlugin plugin = {
#ifdef PLUGIN_abi
    .abi = DG_REWARD_PLUGIN_ABI + 1,
#else
    .abi = DG_REWARD_PLUGIN_ABI,
#endif
#ifdef PLUGIN_flags
    .flags = 0x80,
#endif
#ifdef PLUGIN_threads
    .flags = DG_REWARD_THREAD_SAFE,
#endif
#ifndef PLUGIN_score
    .score = score,
#endif
    .description = "of the tests",
    .scratch_bytes = scratch_bytes,
    .open = open_it,
    .close = close_it,
};

#ifdef PLUGIN_symbol
const DgRewardPlugin *another_name(void);
const DgRewardPlugin *another_name(void)
#else
const DgRewardPlugin *dg_reward_plugin(void)
#endif
{
#ifdef PLUGIN_null
    (void)plugin;
    return NULL;
#else
    return &plugin;
#endif
}
